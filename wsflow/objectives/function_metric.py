"""The function of networks on inputs of a task: the metric that it induces on weights, and predictions.

References
----------
Amari 1998, "Natural gradient works efficiently in learning"; Martens 2020, arXiv:1412.1193 (the Gauss-Newton matrix
J^T J as a metric).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.flow.energy import Predictions
from wsflow.flow.loss import Metric
from wsflow.geometry import Geometry
from wsflow.losses import Loss
from wsflow.running import forward, matched
from wsflow.running.metrics import mean
from wsflow.task import Task

# inputs on which predictions are compared in each step of energy matching
PREDICTED = 256


def function_metric(task: Task, architecture: Architecture, geometry: Geometry, n_inputs: int) -> Metric:
    """The pull-back metric at x: v -> J(x) v, the change of the outputs on inputs of a task.

    J is the Jacobian of the outputs at the point x itself, on a fresh draw of inputs at each call. How a change of
    outputs is measured depends on the loss, see `wsflow.losses.Loss.change`: logits of several classes mean the same
    when all of them move together, so their mean is taken off. Only inputs are used, no targets.

    ``metric(x, v, generator)`` is of shape (n, inputs * outputs).
    """
    inputs = torch.from_numpy(task.X)
    criterion = task.criterion

    def metric(x: Tensor, v: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(inputs), (n_inputs,), generator=generator)
        batch = matched(inputs[rows], x)

        def outputs(points: Tensor) -> Tensor:
            return forward(geometry.to_weights(points), architecture, batch)

        found, change = torch.func.jvp(outputs, (x,), (v,))[:2]
        return criterion.change(found, change).flatten(1)

    return metric


def prediction_divergence(outputs: Tensor, others: Tensor, criterion: Loss) -> Tensor:
    """Return the mean over inputs of KL(p || q), for the predictions p and q of outputs (n, b, k) and of others: (n,).

    Of numbers, whose predictions have no variance, it is the squared error. The first outputs have no gradient.
    """
    outputs = outputs.detach()
    moments = criterion.moments(outputs)
    return mean(criterion.expected(others, moments) - criterion.expected(outputs, moments))


def predictions_of(task: Task, architecture: Architecture, geometry: Geometry) -> Predictions:
    """What networks predict on inputs of a task, drawn anew by each generator; its targets are not used.

    Of a classification these are the square roots of the probabilities, whose distances are those of Hellinger; see
    `wsflow.losses.Loss.coordinates` for other losses.
    """
    inputs = torch.from_numpy(task.X)

    def drawn(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        rows = torch.randint(len(inputs), (PREDICTED,), generator=generator)

        def predicted(points: Tensor) -> Tensor:
            outputs = forward(geometry.to_weights(points), architecture, matched(inputs[rows], points))
            return task.criterion.coordinates(outputs)

        return predicted

    return drawn
