"""The condition of a WeightFlow: what `fit` takes as y, and what `sample` is asked for, as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.exceptions import InvalidInputError
from wsflow.models.options import LabelCondition, ScalarCondition


def read_conditions(options: ScalarCondition | None, y: Any, n: int) -> tuple[Tensor | None, np.ndarray | None]:
    """The conditions (n,) of n rows as numbers, and the sorted labels where they are positions of these.

    A ValueError says that y is missing, an InvalidInputError that it has another length or is not finite.
    """
    if options is None:
        return None, None
    if y is None:
        raise ValueError(
            f"WeightFlow(condition={options.kind!r}) learns the law of networks given y: call fit(X, y) with the "
            "condition of each row, or leave condition=None."
        )
    values = np.asarray(y)
    if values.shape != (n,):
        raise InvalidInputError(f"The conditions y of {n} networks have the shape ({n},), got {values.shape}.")
    if isinstance(options, LabelCondition):
        labels, positions = np.unique(values, return_inverse=True)
        return torch.from_numpy(positions).float(), labels
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise InvalidInputError("A scalar condition is a finite number for each network. Use condition='label'.")
    return torch.from_numpy(values.astype(np.float32)), None


def condition_value(options: ScalarCondition | None, labels: np.ndarray | None, condition: Any) -> float:
    """The number that stands for a condition of samples; a ValueError says that a flow has none, or none like this."""
    if options is None:
        raise ValueError(
            "This flow was fitted without a condition. Fit WeightFlow(condition='scalar') or 'label' with fit(X, y)."
        )
    if labels is not None:
        found = np.flatnonzero(labels == condition)
        if not len(found):
            raise ValueError(f"The 'condition' of a sample is one of the labels {labels.tolist()}, got {condition!r}.")
        return float(found[0])
    if not np.isfinite(float(condition)):
        raise ValueError(f"The 'condition' of a sample is a finite number, got {condition!r}.")
    return float(condition)
