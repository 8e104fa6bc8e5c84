"""The one boundary: from what users pass to arrays with a known architecture, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _get_feature_names,
    check_array,
    check_random_state,
    column_or_1d,
    validate_data,
)
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.architecture.fixed_entries import difference
from wsflow.estimators.inputs import as_networks
from wsflow.exceptions import InvalidInputError
from wsflow.running import forward
from wsflow.running.example_inputs import example_inputs
from wsflow.running.metrics import deviation
from wsflow.weights import WeightArray

FLOATS = [np.float64, np.float32]


def architecture_of(estimator: Any, X: Any) -> Architecture | None:
    """The architecture that X carries, or the estimator's own parameter.

    An InvalidInputError says that both are there and differ.
    """
    own = estimator.architecture
    carried = X.architecture if isinstance(X, WeightArray) else None
    if own is not None and carried is not None and own != carried:
        raise InvalidInputError(
            f"The 'architecture' of {type(estimator).__name__} is {own}, but X holds networks {carried}. "
            "Leave architecture=None to take the one that X carries."
        )
    return carried or own


def fit_array(estimator: Any, X: Any, ensure_min_samples: int = 1) -> np.ndarray:
    """X (n, d) as a validated plain array; sets `n_features_in_` and `architecture_`."""
    X = as_networks(estimator, X)
    architecture = architecture_of(estimator, X)
    with of_input():
        values = validate_data(
            estimator, _plain(X), dtype=FLOATS, ensure_min_samples=ensure_min_samples, ensure_all_finite=False
        )
    _check_columns(estimator, architecture, values)
    _check_finite(values, architecture)
    estimator.architecture_ = architecture
    return values


def later_array(estimator: Any, X: Any) -> np.ndarray:
    """X (n, d) as a validated plain array that fits what the estimator was fitted to, the names of columns included."""
    X = as_networks(estimator, X)
    if isinstance(X, WeightArray):
        # its architecture names the columns
        return returned_array(estimator, X)
    with of_input():
        values = validate_data(estimator, X, dtype=FLOATS, reset=False, ensure_all_finite=False)
    _check_finite(values, estimator.architecture_)
    return values


def returned_array(estimator: Any, X: Any) -> np.ndarray:
    """X (n, d) as `later_array`, but it may have no names: what transformers return and flows sample has none."""
    fitted = estimator.architecture_
    if isinstance(X, WeightArray) and fitted is not None and X.architecture != fitted:
        raise InvalidInputError(
            f"{type(estimator).__name__} was fitted to networks {fitted}, but X holds networks {X.architecture}. "
            f"Fit it again, or pass networks of the same architecture.{difference(fitted, X.architecture)}"
        )
    with of_input():
        if _get_feature_names(X) is not None:
            _check_feature_names(estimator, X, reset=False)
        values = check_array(_plain(X), dtype=FLOATS, ensure_all_finite=False, estimator=estimator, input_name="X")
        _check_n_features(estimator, values, reset=False)
    _check_finite(values, fitted)
    return values


def wrapped(estimator: Any, values: np.ndarray, X: Any, *, aligned: bool | None = None) -> Any:
    """Values (n, d) as a WeightArray with the runs and steps of X, where the architecture is known."""
    if isinstance(X, WeightArray):
        return X.like(values, aligned=aligned)
    if estimator.architecture_ is None:
        return values
    return WeightArray(values, estimator.architecture_, aligned=bool(aligned))


def torch_generator(random_state: Any) -> torch.Generator:
    """A torch generator from whatever scikit-learn takes as `random_state`."""
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    return torch.Generator().manual_seed(seed)


def output_change(before: np.ndarray, after: np.ndarray, architecture: Architecture | None) -> float:
    """The largest change of an output that a transform caused on normal inputs, over its network's largest output.

    The rows of `run_rows` are run, in float64. It is not a number where the architecture does not say how to run its
    networks.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = None if architecture is None else example_inputs(architecture, 32, generator)
    if architecture is None or inputs is None or len(inputs) != 1:
        return float("nan")
    rows = run_rows(len(before))
    first, second = (forward(tensor(np.asarray(w)[rows]).double(), architecture, *inputs) for w in (before, after))
    return float(deviation(first, second).max()) if isinstance(first, Tensor) else float("nan")


def run_rows(n: int) -> slice:
    """Every k-th of n rows: all of them if there are few, never more than 31."""
    return slice(None, None, max(1, n // 16))


def tensor(values: np.ndarray) -> Tensor:
    """A tensor of its own memory."""
    return torch.from_numpy(np.array(values))


def viewed(values: np.ndarray) -> Tensor:
    """A tensor of the same memory, which is not to be written to; a copy of what may not be, or is read backwards."""
    # torch warns of memory that may not be written to
    return torch.from_numpy(values) if values.flags.writeable and min(values.strides) >= 0 else tensor(values)


def description(estimator: Any) -> dict[str, Any]:
    """What every fitted estimator knows of its input, as values that are saved."""
    architecture, names = estimator.architecture_, getattr(estimator, "feature_names_in_", None)
    known = {"n_features": estimator.n_features_in_, "architecture": architecture}
    return known if names is None else {**known, "feature_names": names.tolist()}


def restore_description(estimator: Any, data: dict[str, Any]) -> None:
    """The inverse of `description`."""
    estimator.n_features_in_ = data["n_features"]
    known = data["architecture"]
    # a text in files of 0.1
    estimator.architecture_ = Architecture.from_json(known) if isinstance(known, str) else known
    _check_width(estimator, data)
    if "feature_names" in data:
        estimator.feature_names_in_ = np.array(data["feature_names"], dtype=object)


def _check_width(estimator: Any, data: dict[str, Any]) -> None:
    n, names = estimator.n_features_in_, data.get("feature_names")
    d = n if estimator.architecture_ is None else estimator.architecture_.n_weights
    if d != n or (names is not None and len(names) != n):
        raise InvalidInputError(
            f"A {type(estimator).__name__} of {n} columns has an architecture of {d} weights, or other "
            "names of columns."
        )


@contextmanager
def of_input() -> Iterator[None]:
    """Turn what scikit-learn says of an array into an error of the input, which is no wrong use of a parameter."""
    try:
        yield
    except ValueError as error:
        raise InvalidInputError(str(error)) from error


def _plain(X: Any) -> Any:
    return np.asarray(X) if isinstance(X, WeightArray) else X


def _check_columns(estimator: Any, architecture: Architecture | None, values: np.ndarray) -> None:
    if architecture is not None and architecture.n_weights != values.shape[1]:
        raise InvalidInputError(
            f"The 'architecture' of {type(estimator).__name__} describes {architecture.n_weights} weights, but X has "
            f"{values.shape[1]} columns. Build one that fits, such as Architecture.mlp([30, 16, 16, 2])."
        )


def _check_finite(values: np.ndarray, architecture: Architecture | None) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            # the sum may overflow, but it is never finite where a value is not
            return
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    row, column = (int(i) for i in np.argwhere(bad)[0])
    where = f"column {column}" if architecture is None else "parameter {!r} at {}".format(*architecture.locate(column))
    kind = "NaN" if np.isnan(values[row, column]) else "infinity"
    raise InvalidInputError(
        f"Input X contains {kind}: network {row} has it in {where}. {int(bad.any(1).sum())} of {len(values)} networks "
        "are not finite: drop them first."
    )


def runs_of(X: Any, groups: Any, n: int) -> np.ndarray:
    """The run (n,) of each row: in `groups`, or by default in the `WeightArray` X; other rows are runs of their own."""
    runs = X.runs if isinstance(X, WeightArray) and groups is None else groups
    runs = np.arange(n) if runs is None else np.asarray(runs)
    if runs.shape != (n,):
        raise ValueError(f"The groups of {n} rows are {n} labels, got shape {runs.shape}.")
    return runs


def check_targets(estimator: Any, y: Any, n: int) -> np.ndarray:
    """y as a plain array (n,), one value for each network."""
    name = type(estimator).__name__
    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None: one value for each network.")
    with of_input():
        values = column_or_1d(y, warn=True)
    if len(values) != n:
        raise InvalidInputError(f"{name} takes one y for each network, got {len(values)} for {n} networks.")
    return values


def held_out_rows(runs: np.ndarray, fraction: float, generator: torch.Generator) -> Tensor:
    """Which rows (n,) are for validation, by their runs (n,): a fraction of the runs, as whole runs."""
    labels = np.unique(runs)
    chosen = labels[torch.randperm(len(labels), generator=generator)[: int(fraction * len(labels))].numpy()]
    return torch.from_numpy(np.isin(runs, chosen))
