"""Batch norms of new networks: the running statistics of merged or sampled networks are not theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from wsflow.evaluation.predictive import MODULE_NETWORKS
from wsflow.running.batch_statistics import ModuleRunner, batch_statistics
from wsflow.task import Task
from wsflow.weights import WeightArray

BATCH_SIZE = 512
# over which the statistics of samples and of nulls are computed: there are many networks, and statistics of 2,048
# inputs are as good as those that training leaves behind, which are those of its last ten batches or so
STATISTICS_INPUTS = 2048


def recompute_batch_norm(
    weights: WeightArray,
    task: Task,
    *,
    module: Any = None,
    batch_size: int = BATCH_SIZE,
    max_inputs: int | None = None,
) -> WeightArray:
    """Recompute the statistics of the networks' batch norms over the inputs of a task (Jordan et al. 2023).

    Parameters
    ----------
    module : torch.nn.Module, optional
        What runs the networks (default: the architecture's module).
    batch_size : int
        Of the batches whose means and unbiased variances are averaged.
    max_inputs : int, optional
        Of the task's inputs at most so many are used, evenly spaced (default: all).
    """
    if not len(weights.architecture.statistic_columns):
        return weights
    runner, inputs = ModuleRunner.of(weights.architecture, module), torch.from_numpy(_inputs(task, max_inputs))
    rows = [
        batch_statistics(
            torch.from_numpy(np.array(weights[start : start + MODULE_NETWORKS])), runner, inputs, batch_size
        )
        for start in range(0, len(weights), MODULE_NETWORKS)
    ]
    return weights.like(torch.cat(rows).numpy())


def _inputs(task: Task, count: int | None) -> np.ndarray:
    n = len(task.X)
    return task.X if count is None else task.X[np.linspace(0, n - 1, min(n, count)).astype(int)]
