"""Examples (b, ...) and targets of estimators that train networks themselves, rather than read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from wsflow.architecture import Architecture
from wsflow.estimators.validation import FLOATS, of_input
from wsflow.losses import LOSSES
from wsflow.running.example_inputs import declared_input


def classifies(estimator: Any) -> bool:
    """Return whether the loss of an estimator is one of classes, or of labels."""
    loss = estimator.loss
    return isinstance(loss, str) and loss in LOSSES and "classification" in LOSSES[loss].kinds


def fit_examples(estimator: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return validated examples and targets, those of one column as (b,)."""
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None.")
    with of_input():
        X, y = validate_data(
            estimator, X, y, **_reading(estimator), multi_output=True, y_numeric=not classifies(estimator)
        )
    return X, _column(y)


def later_examples(estimator: Any, X: Any, y: Any = None) -> Any:
    """Return validated examples of a fitted estimator, with their targets where these are given."""
    check_is_fitted(estimator)
    with of_input():
        if y is None:
            return validate_data(estimator, X, reset=False, **_reading(estimator))
        X, y = validate_data(estimator, X, y, reset=False, **_reading(estimator), multi_output=True)
    return X, _column(y)


def classes_of(estimator: Any, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of targets (b,), and their positions; or the numbers of several labels (b, m), and these."""
    check_classification_targets(y)
    if y.ndim == 2:
        return np.arange(y.shape[1]), y
    classes, positions = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs two classes or more, and all of y is one class, {classes.tolist()[0]!r}."
        )
    return classes, positions


def _reading(estimator: Any) -> dict[str, Any]:
    """Return how X is validated: other architectures than perceptrons may read images, or tokens."""
    architecture = estimator.architecture
    known = declared_input(architecture) if isinstance(architecture, Architecture) else None
    reads_tokens = known is not None and known.dtype != "weights"
    return {"dtype": [np.int64, np.int32] if reads_tokens else FLOATS, "allow_nd": architecture is not None}


def _column(y: np.ndarray) -> np.ndarray:
    """Return targets (b, 1) as (b,), with scikit-learn's warning, and others as they are."""
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
