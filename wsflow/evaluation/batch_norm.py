"""Statistics of batch norms, estimated anew by a pass over data: those of merged or sampled networks are not theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from wsflow.evaluation.predictive import MODULE_NETWORKS
from wsflow.running.batch_statistics import ModuleRunner, batch_statistics
from wsflow.task import Task
from wsflow.weights import WeightArray

BATCH_SIZE = 512


def reestimate_batch_norm(
    weights: WeightArray, task: Task, *, module: Any = None, batch_size: int = BATCH_SIZE
) -> WeightArray:
    """Estimate the statistics of the networks' batch norms anew, over the inputs of a task (Jordan et al. 2023).

    Parameters
    ----------
    module : torch.nn.Module, optional
        What runs the networks (default: the architecture's module).
    batch_size : int
        Of the batches whose means and unbiased variances are averaged.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.architecture.parameters import fixed_parameter
    >>> from wsflow.evaluation import reestimate_batch_norm
    >>> table = [fixed_parameter(f"running_{name}", (2,), "statistic") for name in ("mean", "var")]
    >>> networks = WeightArray(np.zeros((1, 4)), Architecture(table, module=nn.BatchNorm1d(2, affine=False)))
    >>> np.asarray(reestimate_batch_norm(networks, Task([[0.0, 5.0], [2.0, 9.0]], [0, 1])))
    array([[1., 7., 2., 8.]])
    """
    if not len(weights.architecture.statistic_columns):
        return weights
    runner, inputs = ModuleRunner.of(weights.architecture, module), torch.from_numpy(task.X)
    rows = [
        batch_statistics(
            torch.from_numpy(np.array(weights[start : start + MODULE_NETWORKS])), runner, inputs, batch_size
        )
        for start in range(0, len(weights), MODULE_NETWORKS)
    ]
    return weights.like(torch.cat(rows).numpy())
