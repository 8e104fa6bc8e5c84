"""The consensus of a population: what its networks predict on average, as a loss without labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.geometry import Geometry
from wsflow.running import forward
from wsflow.task import Task

# networks that run at once
ROWS = 32


@dataclass(frozen=True, eq=False)
class Consensus:
    """How far points are from the mean prediction of a population, on some inputs.

    Parameters
    ----------
    architecture : Architecture
    geometry : Geometry
    inputs : Tensor of shape (b, p)
    targets : Tensor of shape (b, k)
        The mean of the networks' probabilities, or of their outputs for a regression.
    is_classification : bool
        Whether the loss is the cross-entropy to the mean probabilities, or the mean squared error.
    """

    architecture: Architecture
    geometry: Geometry
    inputs: Tensor
    targets: Tensor
    is_classification: bool

    def __call__(self, points: Tensor) -> Tensor:
        """From points (n, size) to losses (n,)."""
        outputs = forward(self.geometry.to_weights(points), self.architecture, self.inputs.to(points))
        targets = self.targets.to(points)
        if self.is_classification:
            return -(targets * outputs.log_softmax(-1)).sum(-1).mean(-1)
        return (outputs - targets).square().mean((-2, -1))

    def of_width(self, architecture: Architecture, geometry: Geometry) -> Consensus:
        """The same for networks of other hidden widths."""
        return replace(self, architecture=architecture, geometry=geometry)


def fit_consensus(
    task: Task,
    architecture: Architecture,
    geometry: Geometry,
    points: Tensor,
    n_inputs: int,
    generator: torch.Generator,
) -> Consensus:
    """The consensus of the networks at points (n, size), on `n_inputs` inputs drawn from a task, or all it has.

    The task's targets are not used.
    """
    inputs = torch.from_numpy(task.X)
    inputs = inputs[torch.randperm(len(inputs), generator=generator)[:n_inputs]].float()
    total = torch.zeros(1, dtype=torch.float32)
    with torch.no_grad():
        for chunk in points.float().split(ROWS):
            outputs = forward(geometry.to_weights(chunk), architecture, inputs)
            total = total + (outputs.softmax(-1) if task.is_classification else outputs).sum(0)
    return Consensus(architecture, geometry, inputs, total / len(points), task.is_classification)
