"""The consensus of a population: what its networks predict on average, as a loss without labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.devices import placed
from wsflow.geometry import Geometry
from wsflow.losses import LOSSES
from wsflow.running import forward, matched
from wsflow.running.gradient_memory import kept_for_gradients
from wsflow.running.metrics import mean
from wsflow.task import Task

# networks that run at once
ROWS = 32
# that networks that are differentiated at once keep
BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Consensus:
    """How far points are from the mean prediction of a population, on some inputs.

    Parameters
    ----------
    architecture : Architecture
    geometry : Geometry
    inputs : Tensor of shape (b, ...)
    targets : Tensor of shape (b, k)
        The moments of the networks' mean prediction: probabilities, or the outputs of a regression.
    loss : str
        A key of `wsflow.losses.LOSSES`, expected under the mean prediction: the cross-entropy to the mean
        probabilities, or the squared error to the mean outputs.
    """

    architecture: Architecture
    geometry: Geometry
    inputs: Tensor
    targets: Tensor
    loss: str

    def rows(self) -> int:
        """Return how many networks may be differentiated at once, at least one."""
        kept = len(self.inputs) * kept_for_gradients(self.architecture, self.inputs)
        return max(1, BYTES // max(1, kept))

    def __call__(self, points: Tensor) -> Tensor:
        """From points (n, size) to losses (n,)."""
        outputs = forward(
            self.geometry.to_weights(points), self.architecture, matched(placed(self.inputs, points.device), points)
        )
        return mean(LOSSES[self.loss].expected(outputs, placed(self.targets, points.device).to(points)))

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

    The task's targets are not used. Where its loss is a function of one's own, outputs are compared by squared errors.
    """
    loss = task.loss if isinstance(task.loss, str) else "mse"
    inputs = torch.from_numpy(task.X)
    total = torch.zeros(1, dtype=torch.float32)
    inputs = matched(inputs[torch.randperm(len(inputs), generator=generator)[:n_inputs]], total)
    with torch.no_grad():
        for chunk in points.split(ROWS):
            outputs = forward(geometry.to_weights(chunk.float()), architecture, inputs)
            total = total + LOSSES[loss].moments(outputs).sum(0)
    return Consensus(architecture, geometry, inputs, total / len(points), loss)
