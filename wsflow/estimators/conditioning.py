"""The condition of a WeightFlow: what `fit` takes as y, and what `sample` is asked for."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from wsflow.exceptions import InvalidInputError
from wsflow.metanetworks.conditions import CONDITIONS

if TYPE_CHECKING:
    from wsflow.estimators.flow import WeightFlow


def embedding_of(flow: WeightFlow) -> Callable[[int], nn.Module] | None:
    """What embeds the condition of a flow in its velocity network.

    Parameters
    ----------
    flow : WeightFlow
        With `labels_`, where the condition is a label.

    Returns
    -------
    callable or None
        From the width to a module.
    """
    if flow.condition is None:
        return None
    n_labels = len(flow.labels_) if flow.condition == "label" else 0
    return functools.partial(CONDITIONS[flow.condition], n_labels=n_labels)


def read_conditions(flow: WeightFlow, y: Any, n: int) -> Tensor | None:
    """The conditions of n rows as numbers; sets `labels_` where they are labels.

    Parameters
    ----------
    flow : WeightFlow
    y : array-like of shape (n,), or anything where the flow has no condition
    n : int

    Returns
    -------
    Tensor of shape (n,) or None

    Raises
    ------
    ValueError
        If y is missing.
    InvalidInputError
        If y has another length, or is a number that is not finite.
    """
    if flow.condition is None:
        return None
    if y is None:
        raise ValueError(
            f"WeightFlow(condition={flow.condition!r}) learns the law of networks given y: call fit(X, y) with the "
            "condition of each row, or leave condition=None."
        )
    values = np.asarray(y)
    if values.shape != (n,):
        raise InvalidInputError(f"The conditions y of {n} networks have the shape ({n},), got {values.shape}.")
    if flow.condition == "label":
        flow.labels_, positions = np.unique(values, return_inverse=True)
        return torch.from_numpy(positions).float()
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise InvalidInputError("A scalar condition is a finite number for each network. Use condition='label'.")
    return torch.from_numpy(values.astype(np.float32))


def under(flow: WeightFlow, condition: Any, scale: float) -> WeightFlow:
    """The same flow with its velocity under a condition.

    Parameters
    ----------
    flow : fitted WeightFlow
    condition : float, or a label, or None
        None leaves the flow as it is: its law over all conditions.
    scale : float
        Of classifier-free guidance.

    Returns
    -------
    WeightFlow

    Raises
    ------
    ValueError
        If the flow has no condition, or none like this.
    """
    if condition is None:
        return flow
    if flow.condition is None:
        raise ValueError(
            "This flow was fitted without a condition. Fit WeightFlow(condition='scalar') or 'label' with fit(X, y)."
        )
    value = _position(flow, condition) if flow.condition == "label" else float(condition)
    if not np.isfinite(value):
        raise ValueError(f"The 'condition' of a sample is a finite number, got {condition!r}.")
    other: Any = copy.copy(flow)
    other.velocity_ = flow.velocity_.given(torch.tensor(float(value)), scale).eval()
    return other


def _position(flow: WeightFlow, label: Any) -> float:
    found = np.flatnonzero(flow.labels_ == label)
    if not len(found):
        raise ValueError(f"The 'condition' of a sample is one of the labels {flow.labels_.tolist()}, got {label!r}.")
    return float(found[0])
