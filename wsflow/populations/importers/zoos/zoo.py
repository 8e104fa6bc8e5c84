"""A zoo: its networks, the run and the step of each, and what is known of them.

The networks are files, or the rows of a matrix, as in that of Unterthiner et al. 2020.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.memory import check_memory
from wsflow.populations.importers.damaged import intact
from wsflow.populations.importers.zoos.tables import Columns, Row, columns_of, csv_rows
from wsflow.populations.readers import check_array_file

COLUMNS = ("varname", "start_idx", "end_idx", "shape")  # of the layout of a matrix
# names under which tables say the activation of a network
ACTIVATION = re.compile(r"(^|[.:_])(activation|nlin|nonlinearity)$", re.IGNORECASE)


@dataclass(frozen=True)
class Matrix:
    """Weights (n, d) whose columns are in the order of their own, and where each parameter has its columns."""

    path: Path
    values: np.ndarray
    columns: Mapping[str, np.ndarray]

    def of(self, kept: Sequence[bool]) -> Matrix:
        """Return some of the networks."""
        return replace(self, values=self.values[np.asarray(kept)])

    def rows(self, order: np.ndarray) -> np.ndarray:
        """Return the weights with their columns in another order."""
        values = self.values[:, np.asarray(order, dtype=np.int64)]
        return values.astype(np.float32) if values.dtype == np.float16 else values


@dataclass(frozen=True)
class Zoo:
    """The networks of a zoo, a file each or the rows of a matrix, and what is known of each of them.

    Steps may be None, labels may be missing, and rows may have different names.
    """

    networks: Sequence[Path] | Matrix
    runs: Sequence[int]
    steps: Sequence[int | None]
    measured: Sequence[Row]
    drawn: Sequence[Row]  # hyperparameters
    labels: Sequence[Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.runs)

    def of_activation(self, activation: str | None) -> Zoo:
        """Return the networks of an activation, where tables say which each of them has."""
        name = next((key for row in self.drawn[:1] for key in row if ACTIVATION.search(key)), None)
        if name is None:
            return self
        known = [str(row.get(name, "")).lower() for row in self.drawn]
        kinds = ", ".join(map(repr, sorted(set(known))))
        if activation is None and len(set(known)) > 1:
            raise InvalidInputError(
                f"The networks of this zoo have the activations {kinds}. Pass activation= with one of them, beside the "
                "module= that it is in."
            )
        if activation is None or set(known) == {activation}:
            return self
        if activation not in known:
            raise InvalidInputError(f"No network of this zoo has the activation {activation!r}, but {kinds}. Choose.")
        kept = [kind == activation for kind in known]
        notes = {**self.notes, "of_other_activations": len(kept) - sum(kept)}
        rows = {name: getattr(self, name) for name in ("runs", "steps", "measured", "drawn", "labels")}
        chosen: dict[str, Any] = {name: x if x is None else list(compress(x, kept)) for name, x in rows.items()}
        own = self.networks
        networks = own.of(kept) if isinstance(own, Matrix) else list(compress(own, kept))
        return Zoo(networks, notes=notes, **chosen)

    def placed(self, runs: Any, steps: Any) -> Zoo:
        """Return the zoo with these runs and steps instead of its own, if they are given, and with steps of all."""
        for name, given in (("runs", runs), ("steps", steps)):
            if given is not None and len(given) != len(self):
                raise InvalidInputError(f"The {name!r} are {len(given)}, and the zoo has {len(self)} networks.")
        own = [int(run) for run in (self.runs if runs is None else runs)]
        known = _whole(self.steps if steps is None else steps, own)
        pairs = list(zip(own, known, strict=True))
        if len(set(pairs)) < len(pairs):
            run, step = next(pair for pair in pairs if pairs.count(pair) > 1)
            raise InvalidInputError(
                f"Two networks of run {run} have the step {step}. Give the runs and steps of all networks."
            )
        return replace(self, runs=own, steps=known)

    def provenance(self) -> dict[str, Any]:
        """Return what is known of the networks as JSON data for the provenance, once they have runs and steps."""
        keys: Columns = {"run": list(self.runs), "step": list(self.steps)}
        first = np.unique(self.runs, return_index=True)[1].tolist()
        drawn = columns_of([self.drawn[i] for i in first])
        varying = {name: values for name, values in drawn.items() if len({str(value) for value in values}) > 1}
        runs: Columns = {"run": [int(self.runs[i]) for i in first]}
        label: Columns = {"label": [self.labels[i] for i in first]} if self.labels is not None else {}
        measured = columns_of(self.measured)
        found: dict[str, Columns] = {
            "hyperparameters": runs | varying if varying else {},
            "labels": runs | label if label else {},
            "properties": keys | measured if measured else {},
        }
        settings = {name: values[0] for name, values in drawn.items() if name not in varying}
        others = {"settings": settings, "zoo": self.notes}
        return {name: value for name, value in {**found, **others}.items() if value}


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number of 64 bits."""
    return isinstance(value, (int, float, np.integer)) and bool(-(2**63) < value < 2**63 and value == int(value))


def _whole(steps: Sequence[Any], runs: Sequence[int]) -> list[int]:
    """Return steps as whole numbers, those of a run in the order of its networks where they are not known."""
    if all(is_whole(step) for step in steps):
        return [int(step) for step in steps]
    counts: dict[int, int] = {}
    found = []
    for run in runs:
        found.append(counts.get(run, 0))
        counts[run] = found[-1] + 1
    return found


def read_matrix(folder: Path) -> tuple[Matrix, list[Row]]:
    """Read the weights of a folder, the layout of their columns, and a row of what is known of each network."""
    path, *others = sorted(folder.glob("*weights*.npy"))
    if others:
        raise InvalidInputError(f"{folder}: there are {path.name} and {others[0].name}. Leave one of them.")
    values = _values(path)
    columns = _columns(folder / "layout.csv", values.shape[1])
    tables = [p for p in folder.glob("*metrics*.csv*") if p.name.lower().endswith((".csv", ".csv.gz"))]
    rows = csv_rows(tables[0]) if tables else [{} for _ in values]
    if len(rows) != len(values):
        raise InvalidInputError(
            f"{tables[0]}: there are {len(rows)} rows, and {len(values)} networks in {path.name}. Restore both."
        )
    return Matrix(path, values, columns), rows


def _values(path: Path) -> np.ndarray:
    check_memory(f"{path}: the weights", path.stat().st_size, "Pass the rows of fewer networks.")
    with intact(path, "array of NumPy", "Write it with numpy.save."):
        check_array_file(path)
        values = np.load(path, allow_pickle=False)
    if values.ndim != 2 or values.dtype.kind != "f" or not values.size:
        raise InvalidInputError(
            f"{path}: expected a matrix of real numbers, a network in each row, got {values.dtype} of shape "
            f"{values.shape}."
        )
    return np.asarray(values)


def _columns(path: Path, width: int) -> dict[str, np.ndarray]:
    """Return the positions of the columns of each parameter, in its shape."""
    rows = csv_rows(path)
    if not rows or set(COLUMNS) - set(rows[0]):
        raise InvalidInputError(f"{path}: expected the columns {', '.join(COLUMNS)}. Restore it from a copy.")
    found: dict[str, np.ndarray] = {}
    with intact(path, "layout of weights", "Restore it from a copy."):
        for row in rows:
            name, start, end = str(row["varname"]), int(row["start_idx"]), int(row["end_idx"])
            shape = _shape(row["shape"])
            if not 0 <= start < end <= width or prod(shape) != end - start or name in found:
                raise ValueError(f"{name!r} of shape {shape} does not go with the columns {start} to {end}")
            # whole numbers of double precision, as which they go through the order of the axes of torch
            found[name] = np.arange(start, end, dtype=np.float64).reshape(shape)
        taken = np.concatenate([columns.ravel() for columns in found.values()])
        if len(np.unique(taken)) != len(taken) or len(taken) != width:
            raise ValueError(f"its parameters have {len(taken)} columns, and the matrix {width}")
    return found


def _shape(value: object) -> tuple[int, ...]:
    shape = ast.literal_eval(value) if isinstance(value, str) else (value,)
    shape = shape if isinstance(shape, tuple) else (shape,)
    if not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"{value!r} is no shape")
    return shape
