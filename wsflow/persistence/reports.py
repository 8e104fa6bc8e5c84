"""Reports that were written as JSON, by ``wsflow evaluate -o report.json``, ``wsflow demo`` or `Report.to_dict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsflow.evaluation.measures import MEASURES
from wsflow.evaluation.report import Report
from wsflow.exceptions import InvalidInputError
from wsflow.persistence.format import parse_json
from wsflow.populations.file_kinds import check_path, other_than
from wsflow.schema import anything, list_of, mapping, nullable, number, one_of, record, text, whole

ROW = mapping(nullable(number))
ROWS = ("training", "held_out", "samples", "barrier")
REPORT = record(
    {
        **dict.fromkeys(ROWS, ROW),
        "nulls": mapping(ROW),
        "verdict": list_of(text),
        "counts": mapping(whole()),
        "score": one_of(*MEASURES),
    },
    {"distribution": mapping(mapping(ROW)), "provenance": mapping(anything)},
    further=True,
)
COUNTS = ("samples", "training", "training_runs", "held_out", "held_out_runs")


def load_report(path: str | Path) -> Report:
    """Read a report from JSON: its verdict and its numbers, without what figures are drawn of.

    Raises
    ------
    InvalidInputError
        If the file is no report.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import wsflow
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> report = wsflow.evaluate(weights[:4], weights[:8], weights[8:], task, nulls=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "report.json")
    ...     _ = path.write_text(json.dumps(report.to_dict()))
    ...     print(str(wsflow.load_report(path)) == str(report))
    True
    """
    path = Path(path)
    check_path(path)
    try:
        data = parse_json(path.read_bytes())
        REPORT(data, "")
        if missing := next((name for name in COUNTS if name not in data["counts"]), None):
            raise ValueError(f"the field 'counts.{missing}' is missing")
    except (ValueError, RecursionError, OSError) as error:
        what = other_than(path, "report")
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        about = f": {reason}" if what == "this is no report" or "JSON" in what else ""
        raise InvalidInputError(f"{path}: {what}{about}. Write one with wsflow evaluate -o report.json.") from error
    rows: dict[str, Any] = {name: _row(data[name]) for name in ROWS}
    nulls = {name: _row(row) for name, row in data["nulls"].items()}
    distribution = {
        name: {space: _row(row) for space, row in spaces.items()}
        for name, spaces in data.get("distribution", {}).items()
    }
    known = {name: data[name] for name in ("verdict", "counts", "score")}
    return Report(**rows, nulls=nulls, distribution=distribution, provenance=data.get("provenance", {}), **known)


def _row(row: dict[str, Any]) -> dict[str, float]:
    return {name: float("nan") if value is None else float(value) for name, value in row.items()}
