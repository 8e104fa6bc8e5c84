"""The table of tasks: scikit-learn's small bundled data sets by name, and the user's own files by path.

The split is that of Erdogan 2025: 80% for training, 10% for validation, 10% for the test, by two calls of
``train_test_split``; inputs (and the targets of a regression) are standardized with the statistics of the training
part only. This file imports neither torch nor scikit-learn before a task is loaded: it feeds the CLI's choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.readers import READERS, Table
from wsflow.task import LOSSES, Task

MINIMUM = 10


@dataclass(frozen=True)
class Dataset:
    """One row of the table.

    Parameters
    ----------
    loader : str
        Name of the function in ``sklearn.datasets``.
    loss : {"cross_entropy", "mse"}
    """

    loader: str
    loss: str

    def load(self) -> Table:
        """Inputs and targets, as scikit-learn has them."""
        import sklearn.datasets

        return getattr(sklearn.datasets, self.loader)(return_X_y=True)


DATASETS: dict[str, Dataset] = {
    "breast_cancer": Dataset("load_breast_cancer", "cross_entropy"),
    "diabetes": Dataset("load_diabetes", "mse"),
    "digits": Dataset("load_digits", "cross_entropy"),
    "iris": Dataset("load_iris", "cross_entropy"),
    "linnerud": Dataset("load_linnerud", "mse"),
    "wine": Dataset("load_wine", "cross_entropy"),
}
TASKS: tuple[str, ...] = tuple(DATASETS)


def load_task(
    name_or_path: str | Path, *, seed: int = 42, target: str | int | None = None, loss: str | None = None
) -> Task:
    """A task by its name, or from a file of one's own.

    Parameters
    ----------
    name_or_path : str or Path
        One of `TASKS`, or a file: ``.csv`` (one row an example, with or without a header) or ``.npz`` (arrays ``X``
        and ``y``). The targets of a csv file are its last column. Labels are encoded in sorted order.
    seed : int
        Random state of the split.
    target : str or int, optional
        Another column of a csv file: its name in the header, or its index.
    loss : {"cross_entropy", "mse"}, optional
        Of a file. By default numbers with many different values are a regression, everything else are classes.

    Returns
    -------
    Task
        The training part, with ``validation`` and ``test``; float32.

    Raises
    ------
    InvalidInputError
        If there is no such task, or the file is not what it should be.
    ValueError
        If `target` or `loss` do not go with the task.

    References
    ----------
    Erdogan 2025, "Geometric Flow Models over Neural Network Weights", for the split.

    Examples
    --------
    >>> from wsflow.populations import load_task
    >>> task = load_task("breast_cancer")
    >>> task.X.shape, len(task.validation.X), len(task.test.X), task.n_outputs
    ((455, 30), 57, 57, 2)
    """
    if loss is not None and loss not in LOSSES:
        raise ValueError(f"The 'loss' of a task is one of {', '.join(LOSSES)}, got {loss!r}.")
    name = str(name_or_path)
    if name in DATASETS:
        if target is not None or loss is not None:
            raise ValueError(f"'target' and 'loss' are for files; {name!r} has its own.")
        row = DATASETS[name]
        return split_task(*row.load(), row.loss, seed=seed, source={"name": name, "seed": seed})
    path = Path(name)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidInputError(
            f"There is no task {name!r}. Choose one of {', '.join(TASKS)}, or give a file ending in "
            f"{' or '.join(READERS)}."
        )
    X, y = reader(path, target)
    y, loss = _targets(y, loss, path)
    source = {"path": str(path.absolute()), "seed": seed, "target": target, "loss": loss}
    try:
        return split_task(X, y, loss, seed=seed, source=source)
    except ValueError as error:
        raise InvalidInputError(f"{path}: {error}") from error


def task_from_source(source: Mapping[str, Any], checksum: str | None = None) -> Task:
    """Load a task again.

    Parameters
    ----------
    source : mapping
        The ``source`` of a task of `load_task`.
    checksum : str, optional
        The task's ``checksum``, which the data must still have.

    Returns
    -------
    Task

    Raises
    ------
    InvalidInputError
        If the data are gone, or are not what they were.

    Examples
    --------
    >>> from wsflow.populations.datasets import load_task, task_from_source
    >>> task = load_task("iris")
    >>> task_from_source(task.source, task.checksum).checksum == task.checksum
    True
    """
    name = source.get("path", source.get("name"))
    keywords = {key: source[key] for key in ("seed", "target", "loss") if key in source}
    if not isinstance(name, str) or ("name" in source and name not in DATASETS):
        raise InvalidInputError(f"The task {name!r} is not one that wsflow can load: give the task itself.")
    task = load_task(name, **keywords)
    if checksum is not None and task.checksum != checksum:
        raise InvalidInputError(
            f"The data of the task {name!r} are not what they were: the checksum differs. "
            "Restore the data, or give the task itself."
        )
    return task


def split_task(X: Any, y: Any, loss: str, *, seed: int = 42, source: Mapping[str, Any] | None = None) -> Task:
    """Split 80/10/10 and standardize with the statistics of the training part.

    Parameters
    ----------
    X : array-like of shape (b, p)
    y : array-like of shape (b,) or (b, k)
    loss : {"cross_entropy", "mse"}
    seed : int
    source : mapping, optional
        What the task says about its origin.

    Returns
    -------
    Task

    Raises
    ------
    InvalidInputError
        If there are fewer than 10 examples, or values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.populations.datasets import split_task
    >>> task = split_task(np.arange(40.0).reshape(20, 2), np.arange(20.0), "mse")
    >>> task.X.shape, bool(abs(task.X.mean()) < 1e-6)
    ((16, 2), True)
    """
    from sklearn.model_selection import train_test_split

    X, y = np.asarray(X, dtype=np.float64), np.asarray(y)
    if len(X) < MINIMUM:
        raise InvalidInputError(f"A task needs at least {MINIMUM} examples for its three parts, got {len(X)}.")
    if not (np.isfinite(X).all() and np.isfinite(y).all()):
        raise InvalidInputError("Some inputs or targets are not finite numbers: impute or drop them first.")
    training, rest = train_test_split(np.arange(len(X)), test_size=0.2, random_state=seed)
    validation, test = train_test_split(rest, test_size=0.5, random_state=seed)
    X = _standardized(X, training)
    y = _standardized(y.astype(np.float64), training) if loss == "mse" else y
    held_out = {"validation": Task(X[validation], y[validation], loss), "test": Task(X[test], y[test], loss)}
    return Task(X[training], y[training], loss, source=dict(source or {}), **held_out)


def _standardized(values: np.ndarray, training: np.ndarray) -> np.ndarray:
    rows = values[training]
    constant = rows.max(axis=0) == rows.min(axis=0)
    deviation = np.where(constant, 1.0, rows.std(axis=0))
    # a column that never varies in training has no scale, so whatever it does later is not passed on
    return np.where(constant, 0.0, (values - rows.mean(axis=0)) / deviation).astype(np.float32)


def _targets(y: np.ndarray, loss: str | None, path: Path) -> tuple[np.ndarray, str]:
    numeric = y.dtype.kind in "fiub"
    if loss == "mse" and not numeric:
        raise InvalidInputError(
            f"{path}: the targets are labels such as {str(y.flat[0])!r}, and loss='mse' needs numbers. "
            "Choose another target, or loss='cross_entropy'."
        )
    if numeric and not np.isfinite(y).all():
        raise InvalidInputError(f"{path}: some targets are not finite numbers. Impute or drop them first.")
    values = np.unique(y)
    if loss is None:
        few = len(values) <= 20 and 2 * len(values) <= len(y)
        loss = "cross_entropy" if y.ndim == 1 and (few or not numeric) else "mse"
    if loss == "mse":
        return y, loss
    if y.ndim != 1 or len(values) < 2:
        raise InvalidInputError(
            f"{path}: a classification needs one column of targets with at least two classes, got shape {y.shape} "
            f"with {len(values)}. Choose another target, or loss='mse'."
        )
    return np.searchsorted(values, y), loss
