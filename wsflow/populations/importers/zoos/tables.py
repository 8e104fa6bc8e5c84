"""Tables of what is known of networks: CSV files, also packed by gzip, and JSON documents, as rows of plain values."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.damaged import intact
from wsflow.populations.readers import MAXIMUM_RATIO, check_file

Row = dict[str, Any]
Columns = dict[str, list[Any]]
COPY = "Restore it from a copy."
NAME = "path"  # of a network
SPLIT = "split"


def csv_rows(path: Path) -> list[Row]:
    """Read the rows of a CSV file with a header, of numbers and texts; columns without a name are left out."""
    with intact(path, "csv file", COPY):
        text = io.StringIO(_text(path).decode("utf-8-sig"), newline="")
        head = text.readline()
        text.seek(0)
        rows = csv.DictReader(text, delimiter=max(",;\t", key=head.count), strict=True)
        listed = [{key: value for key, value in row.items() if key} for row in rows]
    if any(None in row.values() for row in listed):
        raise InvalidInputError(f"{path}: a row has fewer values than the header. Give every row the same number.")
    return rows_of({name: _parsed([row[name] for row in listed]) for name in (listed[0] if listed else ())})


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Return the rows of columns of one length."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def columns_of(rows: Sequence[Row]) -> Columns:
    """Return the columns of rows: numbers, with NaN where there is none, or texts, with empty ones."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return {name: _filled(values) for name, values in columns.items()}


def _filled(values: list[Any]) -> list[Any]:
    known = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in known):
        return ["" if value is None else str(value) for value in values]
    if len(known) < len(values):
        return [math.nan if value is None else float(value) for value in values]
    return values


def _parsed(cells: list[str]) -> list[Any]:
    """Return cells as whole numbers, or numbers where an empty one is NaN, or texts."""
    for read in (_whole, _real):
        try:
            return [read(cell) for cell in cells]
        except ValueError:
            continue
    return cells


def _whole(cell: str) -> int:
    if abs(number := int(cell)) >= 2**63:
        raise ValueError
    return number


def _real(cell: str) -> float:
    return float(cell) if cell.strip() else math.nan


def json_lines(path: Path) -> list[Row]:
    """Read a file with a JSON object in each line."""
    with intact(path, "file of JSON objects", COPY):
        found = [json.loads(line) for line in _text(path).decode().splitlines() if line.strip()]
        if not all(isinstance(row, dict) for row in found):
            raise ValueError("a line is no object")
    return [scalars(row) for row in found]


def json_object(path: Path) -> Row:
    """Read the scalars of a JSON object, those of objects in it by dotted names."""
    content = _json(path)
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path}: this is no JSON object. {COPY}")
    return scalars(content)


def json_rows(path: Path) -> list[Row]:
    """Read rows of a JSON document: a list of objects, an object of them by names of networks, or splits.

    Splits are lists of names, or objects with lists such as ``"path"`` and ``"label"``, by the name of the split.
    """
    content = _json(path)
    if isinstance(content, list):
        return [scalars(row) for row in content if isinstance(row, dict)]
    if not isinstance(content, dict):
        return []
    return [row for name, value in content.items() for row in _named_rows(name, value)]


def _named_rows(name: str, value: Any) -> Iterable[Row]:
    if isinstance(value, list):
        return [{NAME: one, SPLIT: name} for one in value if isinstance(one, str)]
    if not isinstance(value, dict):
        return []
    lists = {key: column for key, column in value.items() if isinstance(column, list)}
    if len({len(column) for column in lists.values()}) == 1:
        return [scalars(row) | {SPLIT: name} for row in rows_of(lists)]
    return [{NAME: name, **scalars(value)}]


def scalars(content: Mapping[Any, Any], prefix: str = "") -> Row:
    """Return the numbers and texts of an object, those of objects in it by dotted names."""
    found: Row = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= scalars(value, f"{prefix}{key}.")
        elif isinstance(value, (str, float)) or (isinstance(value, int) and abs(value) < 2**63):
            found[f"{prefix}{key}"] = value
    return found


def _json(path: Path) -> Any:
    with intact(path, "JSON document", COPY):
        return json.loads(_text(path).decode())


def _text(path: Path) -> bytes:
    check_file(path)
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    most = MAXIMUM_RATIO * path.stat().st_size
    with gzip.open(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it unpacks to more than {MAXIMUM_RATIO} times its size")
    return content
