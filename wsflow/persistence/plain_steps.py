"""Steps of scikit-learn whose fitted state is plain: numbers and arrays by name, without code and without pickle.

A row has a version, that of its list of names. A file has it too, so that another list can be told from this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError


@dataclass(frozen=True)
class PlainStep:
    """A row of the table: the module of a class, and the attributes that its ``fit`` sets."""

    home: str
    fitted: tuple[str, ...]
    version: int = 1


PREPROCESSING, DECOMPOSITION = "sklearn.preprocessing", "sklearn.decomposition"
VARIANCES = ("explained_variance_", "explained_variance_ratio_", "singular_values_")
PLAIN_STEPS: dict[str, PlainStep] = {
    "MaxAbsScaler": PlainStep(PREPROCESSING, ("scale_", "max_abs_", "n_samples_seen_")),
    "MinMaxScaler": PlainStep(
        PREPROCESSING, ("min_", "scale_", "data_min_", "data_max_", "data_range_", "n_samples_seen_")
    ),
    "PCA": PlainStep(
        DECOMPOSITION, ("components_", "mean_", "n_components_", "n_samples_", "noise_variance_", *VARIANCES)
    ),
    "RobustScaler": PlainStep(PREPROCESSING, ("center_", "scale_")),
    "StandardScaler": PlainStep(PREPROCESSING, ("mean_", "scale_", "var_", "n_samples_seen_")),
    "TruncatedSVD": PlainStep(DECOMPOSITION, ("components_", *VARIANCES)),
}
# every fitted estimator has the first, and those that were fitted to a data frame the second
COUNT, NAMES = "n_features_in_", "feature_names_in_"


def is_plain(step: Any) -> bool:
    """Return whether a step is of a class in the table, and not of a subclass or a namesake."""
    row = PLAIN_STEPS.get(type(step).__name__)
    return row is not None and type(step) is getattr(import_module(row.home), type(step).__name__)


def plain_state(step: Any) -> dict[str, Any]:
    """Return what `fit` made, with the version of the row."""
    row = PLAIN_STEPS[type(step).__name__]
    state = {name: getattr(step, name) for name in (*row.fitted, COUNT)}
    names = getattr(step, NAMES, None)
    # products of matrices in another order of memory may be rounded otherwise
    by_columns = [name for name, x in state.items() if isinstance(x, np.ndarray) and not x.flags.c_contiguous]
    known = {"version": row.version, "state": state if names is None else {**state, NAMES: names.tolist()}}
    return known | {"by_columns": by_columns} if by_columns else known


def restored(kind: str, params: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    """Return the step of which these are the parameters and the `plain_state`."""
    row = PLAIN_STEPS[kind]
    state = dict(data["state"])
    if data["version"] != row.version or not {*row.fitted, COUNT} <= state.keys() <= {*row.fitted, COUNT, NAMES}:
        raise InvalidInputError(f"a {kind} of version {data['version']}, and this wsflow reads version {row.version}.")
    step = getattr(import_module(row.home), kind)(**params)
    names = state.pop(NAMES, None)
    by_columns = data.get("by_columns", ())
    for name, value in state.items():
        setattr(step, name, np.asfortranarray(value) if name in by_columns else value)
    # what does not fit together is noticed now, and not when it is used
    if not np.isfinite(step.transform(np.zeros((1, step.n_features_in_)))).all():
        raise InvalidInputError(f"a {kind} whose numbers are not finite. Fit it again.")
    if names is not None:
        setattr(step, NAMES, np.array(names, dtype=object))
    return step
