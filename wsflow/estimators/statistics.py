"""Running statistics around a flow, which models weights alone: left out before it, recomputed behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators.validation import viewed
from wsflow.evaluation.repair import STATISTICS_INPUTS, recompute_batch_norm
from wsflow.exceptions import InvalidInputError
from wsflow.mapped import chunks, empty_like
from wsflow.running.without_statistics import without_statistics
from wsflow.task import Task
from wsflow.weights import WeightArray


def modelled(architecture: Architecture | None) -> Architecture | None:
    """The architecture of what a flow models: the weights without the statistics."""
    return None if architecture is None else without_statistics(architecture)


def weights_alone(values: np.ndarray, architecture: Architecture | None) -> Tensor:
    """The columns of networks (n, d) that are no statistics: (n, weights), of the same memory where these are all."""
    if architecture is None or not len(architecture.statistic_columns):
        return viewed(values)
    columns = _weight_columns(architecture).numpy()
    alone = empty_like(values, (len(values), len(columns)))
    for rows in chunks(*values.shape):
        alone[rows] = values[rows, columns]
    return viewed(alone)


def check_statistics(architecture: Architecture | None, task: Task | None) -> None:
    """Refuse to draw networks whose statistics cannot be computed without a task."""
    if task is None and architecture is not None and len(architecture.statistic_columns):
        raise InvalidInputError(
            "Sampled networks get the running statistics of their batch norms from inputs, and this flow has no task. "
            "Pass sample(task=Task(X, y)), whose X are inputs such as the networks were trained on (--task on the "
            "command line)."
        )


def with_statistics(weights: WeightArray | np.ndarray, architecture: Architecture, task: Task | None) -> WeightArray:
    """Networks (n, d) from their weights alone, with statistics computed over inputs of a task, where they have some.

    These are `wsflow.evaluation.STATISTICS_INPUTS` inputs at most, evenly spaced.
    """
    if not len(architecture.statistic_columns):
        return WeightArray(weights, architecture, aligned=True)
    rows = np.zeros((len(weights), architecture.n_weights), dtype=weights.dtype)
    rows[:, _weight_columns(architecture).numpy()] = weights
    networks = WeightArray(rows, architecture, aligned=True)
    return networks if task is None else recompute_batch_norm(networks, task, max_inputs=STATISTICS_INPUTS)


def guided_task(guidance: Any) -> Task | None:
    """The task that a guidance descends, or None where it is no task."""
    found = getattr(guidance, "task", guidance)
    return found if isinstance(found, Task) else None


def _weight_columns(architecture: Architecture) -> Tensor:
    kept = torch.ones(architecture.n_weights, dtype=torch.bool)
    kept[torch.from_numpy(architecture.statistic_columns)] = False
    return kept.nonzero().squeeze(1)
