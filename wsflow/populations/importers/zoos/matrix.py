"""Zoos with a network in each row of a matrix, as that of Unterthiner et al. 2020."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.memory import check_memory
from wsflow.populations.importers.damaged import intact
from wsflow.populations.importers.zoos.tables import Row, csv_rows
from wsflow.populations.readers import check_array_file

COLUMNS = ("varname", "start_idx", "end_idx", "shape")


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
