"""Where the flow meets the function of its points: the metric of the loss, and guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.flow.training import Metric
from wsflow.geometry import Geometry
from wsflow.networks import forward, losses
from wsflow.task import Task


@dataclass(frozen=True)
class Guidance:
    """Sampling that descends a task's loss.

    Parameters
    ----------
    task : Task
        Its inputs and targets.
    strength : float
        Factor of the gradient.
    clip : float
        Longest guidance step relative to the flow's own velocity.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Guidance, Task
    >>> Guidance(Task(np.eye(2), [0, 1]), strength=0.5).strength
    0.5
    """

    task: Task
    strength: float = 1.0
    clip: float = 1.0


def function_metric(task: Task, architecture: Architecture, geometry: Geometry, n_inputs: int) -> Metric:
    """The pull-back metric at x: v -> J(x) v, the change of the outputs on inputs of a task.

    J is the Jacobian of the outputs at the point x itself, on a fresh draw of inputs at each call.
    Outputs of a classification are logits, which mean the same when all of them move together, so
    their mean is taken off. Only inputs are used, no targets.

    Parameters
    ----------
    task : Task
    architecture : Architecture
    geometry : Geometry
    n_inputs : int

    Returns
    -------
    callable
        ``metric(x, v, generator)``: Tensor of shape (n, inputs * outputs).
    """
    inputs = torch.from_numpy(task.X)
    centred = task.is_classification

    def metric(x: Tensor, v: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(inputs), (n_inputs,), generator=generator)
        batch = inputs[rows].to(x)

        def outputs(points: Tensor) -> Tensor:
            return forward(geometry.to_weights(points), architecture, batch)

        change: Tensor = torch.func.jvp(outputs, (x,), (v,))[1]
        return (change - change.mean(-1, keepdim=True) if centred else change).flatten(1)

    return metric


def task_loss(task: Task, architecture: Architecture, geometry: Geometry) -> Callable[[Tensor], Tensor]:
    """The loss of networks on a task, as a function of points.

    Parameters
    ----------
    task : Task
    architecture : Architecture
    geometry : Geometry

    Returns
    -------
    callable
        From points (n, size) to losses (n,).
    """
    inputs, targets = torch.from_numpy(task.X), torch.from_numpy(task.y)

    def loss(points: Tensor) -> Tensor:
        weights = geometry.to_weights(geometry.target.projection(points))
        outputs = forward(weights, architecture, inputs.to(points))
        return losses(outputs, targets if task.is_classification else targets.to(points), task.loss)

    return loss
