"""The layouts in which zoos are published: a row for each, with what recognises a folder of it and what reads it.

References
----------
Unterthiner et al. 2020, "Predicting neural network accuracy from weights", arXiv:2002.11448 (a matrix of weights);
Schürholt et al. 2022, "Model zoos: a dataset of diverse populations of neural network models", arXiv:2209.14764 (a
folder of each run); Navon et al. 2023, "Equivariant architectures for learning in deep weight spaces",
arXiv:2301.12780 (a JSON document of splits, with names of files).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.formats import FORMATS
from wsflow.populations.importers.paths import BESIDE, natural_key
from wsflow.populations.importers.zoos.tables import Row, csv_rows, json_lines, json_object, json_rows
from wsflow.populations.importers.zoos.zoo import Zoo, is_whole, read_matrix

LABEL, STEP, RUN = "label", "step", "run"
HYPERPARAMETERS = ("config.", "hyperparameters.", "hparams.")  # how the names of columns of hyperparameters begin
CHECKPOINT = re.compile(r"^(checkpoint|ckpt|step|epoch|iter)\D*(?P<step>\d+)", re.IGNORECASE)
UNNAMED = ("checkpoints", "checkpoint", "model", "state_dict")  # state dicts without a suffix
# what ray tune writes beside the measures of an iteration
BOOKKEEPING = re.compile(
    r"^(config\.|time|timestamp|timesteps|iterations?_|episodes|pid$|date$|hostname|node_ip|trial_id|experiment|done$|"
    r"should_checkpoint|training_iteration$|warmup|perf\.|checkpoint)"
)


@dataclass(frozen=True)
class ZooLayout:
    """A way to publish a zoo; its function returns None for a folder that is of another."""

    description: str
    read: Callable[[Path], Zoo | None]


def read_zoo(source: Any) -> Zoo | None:
    """Return the zoo in a folder of one of the layouts, else None."""
    if not isinstance(source, (str, Path)) or not Path(source).is_dir():
        return None
    found = (layout.read(Path(source)) for layout in ZOO_LAYOUTS.values())
    return next((zoo for zoo in found if zoo is not None), None)


def _of_matrix(folder: Path) -> Zoo | None:
    if not (folder / "layout.csv").is_file() or not any(folder.glob("*weights*.npy")):
        return None
    matrix, rows = read_matrix(folder)
    folders = [row.pop("modeldir", i) for i, row in enumerate(rows)]
    order = {name: i for i, name in enumerate(dict.fromkeys(folders))}
    runs = [order[name] for name in folders]
    return _zoo(matrix, runs, [row.pop(STEP, None) for row in rows], rows)


def _zoo(networks: Any, runs: Sequence[int], steps: Sequence[Any], rows: Sequence[Row], **notes: Any) -> Zoo:
    """Return a zoo of networks and rows of one table, which has hyperparameters under names that begin so."""
    drawn, measured = [], []
    for row in rows:
        names = {name: name.removeprefix(next((p for p in HYPERPARAMETERS if name.startswith(p)), "")) for name in row}
        drawn.append({short: row[name] for name, short in names.items() if short != name})
        measured.append({name: row[name] for name, short in names.items() if short == name})
    labels = [row.pop(LABEL, None) for row in measured]
    known = None if any(label is None for label in labels) else labels
    return Zoo(networks, runs, steps, measured, drawn, known, notes)


def _of_runs(folder: Path) -> Zoo | None:
    # folders with settings or results, and with networks
    tables = ("result.json", "params.json")
    found = [p for p in folder.iterdir() if p.is_dir() and any((p / name).is_file() for name in tables)]
    runs = sorted((p for p in found if next(_checkpoints(p), None)), key=natural_key)
    if not runs:
        return None
    paths, numbers, steps, measured, drawn = [], [], [], [], []
    for number, run in enumerate(runs):
        results = _results(run)
        settings = json_object(run / "params.json") if (run / "params.json").is_file() else {}
        for step, path in _checkpoints(run):
            paths.append(path)
            numbers.append(number)
            steps.append(step)
            measured.append({} if step is None else results.get(step, {}))
            drawn.append(settings)
    return Zoo(paths, numbers, steps, measured, drawn, None, {"runs": [run.name for run in runs]})


def _results(run: Path) -> dict[int, Row]:
    """Return what was measured of a run, by its iterations."""
    path = run / "result.json"
    rows = json_lines(path) if path.is_file() else []
    kept = [{name: value for name, value in row.items() if not BOOKKEEPING.match(name)} for row in rows]
    iterations = [row.get("training_iteration", i + 1) for i, row in enumerate(rows)]
    return {int(iteration): kept[i] for i, iteration in enumerate(iterations) if is_whole(iteration)}


def _checkpoints(run: Path) -> Iterator[tuple[int | None, Path]]:
    """Yield the networks of a run and their steps, if these are known."""
    for path in sorted(run.iterdir(), key=natural_key):
        match = CHECKPOINT.match(path.name)
        step = int(match["step"]) if match else None
        inside = sorted(path.iterdir(), key=natural_key) if path.is_dir() and match else [path]
        yield from ((step, file) for file in inside if _is_network(file))


def _is_network(path: Path) -> bool:
    known = path.suffix.lower() in FORMATS or path.name in UNNAMED
    return known and path.is_file() and not BESIDE.match(path.name)


def _table_files(folder: Path) -> list[Path]:
    names = [p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith((".csv", ".csv.gz", ".json"))]
    # shards have an index, and networks of other tools their settings
    others = (".index.json", "config.json")
    return sorted((p for p in names if not p.name.lower().endswith(others)), key=natural_key)


def _of_table(folder: Path) -> Zoo | None:
    files = sorted((p for p in folder.rglob("*") if _is_network(p)), key=natural_key) if _table_files(folder) else []
    tables, unread = _tables(folder)
    named = [pair for rows in tables for pair in _named(rows, _names(folder, files))]
    for error in unread:
        warnings.warn(f"{error} It is left out.", stacklevel=4)
    if not named:
        return None
    known: dict[int, Row] = {i: {} for i, file in enumerate(files) if file.parent == folder}
    for place, row in named:
        if place is not None:
            known.setdefault(place, {}).update(row)
    places = sorted(known)
    rows = [known[place] for place in places]
    groups = [row.pop(RUN, f"file {place}") for place, row in zip(places, rows, strict=True)]
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    steps = [row.pop(STEP, None) for row in rows]
    unused = sum(place is None for place, _ in named)
    notes = {"rows_without_a_network": unused} if unused else {}
    return _zoo([files[i] for i in places], [order[group] for group in groups], steps, rows, **notes)


def _tables(folder: Path) -> tuple[list[list[Row]], list[InvalidInputError]]:
    """Return the rows of each table, and what is wrong with those that cannot be read."""
    tables, unread = [], []
    for path in _table_files(folder):
        try:
            tables.append(csv_rows(path) if ".csv" in path.name.lower() else json_rows(path))
        except InvalidInputError as error:
            unread.append(error)
    return tables, unread


def _named(rows: Sequence[Row], places: dict[str, int]) -> list[tuple[int | None, Row]]:
    """Return the positions of the networks that rows name, and the rows without the name; empty if they name few."""
    best: list[int | None] = []
    column = None
    for name in dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, str)):
        found = [_place(row.get(name), places) for row in rows]
        if sum(p is not None for p in found) > sum(p is not None for p in best):
            best, column = found, name
    if 2 * sum(p is not None for p in best) < len(rows):
        return []
    return [(place, {k: v for k, v in row.items() if k != column}) for place, row in zip(best, rows, strict=True)]


def _place(name: Any, places: dict[str, int]) -> int | None:
    """Return the position of the network that a text names by the end of its path; a text is never used as a path."""
    if not isinstance(name, str):
        return None
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return next((places[key] for i in range(len(parts)) if (key := "/".join(parts[i:])) in places), None)


def _names(folder: Path, files: Sequence[Path]) -> dict[str, int]:
    """Return names of each file that no other has: the ends of its path, without suffix, and the folders it is in."""
    owners: dict[str, set[int]] = {}
    for i, file in enumerate(files):
        whole = file.relative_to(folder).parts
        bare = (*whole[:-1], file.stem)
        for parts in (whole, bare, *(whole[:end] for end in range(1, len(whole)))):
            for start in range(len(parts)):
                owners.setdefault("/".join(parts[start:]), set()).add(i)
    return {name: owner.pop() for name, owner in owners.items() if len(owner) == 1}


ZOO_LAYOUTS: dict[str, ZooLayout] = {
    "matrix": ZooLayout(
        "weights.npy with a network in each row, layout.csv of its columns, metrics.csv of its rows", _of_matrix
    ),
    "runs": ZooLayout("a folder of each run with params.json, result.json and checkpoints", _of_runs),
    "table": ZooLayout("state dicts, and .csv or .json tables that name them", _of_table),
}
