"""The consensus of a population: what its networks predict on average, as a loss without labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.flow.hints import GradientHints
from wsflow.geometry import Geometry
from wsflow.metanetworks.encoders import READ_HINTS, velocity_name
from wsflow.running import forward
from wsflow.task import Task

if TYPE_CHECKING:
    from wsflow.estimators.flow import WeightFlow

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
        """The same for networks of other hidden widths.

        Parameters
        ----------
        architecture : Architecture
        geometry : Geometry

        Returns
        -------
        Consensus
        """
        return replace(self, architecture=architecture, geometry=geometry)


def fit_consensus(
    task: Task,
    architecture: Architecture,
    geometry: Geometry,
    points: Tensor,
    n_inputs: int,
    generator: torch.Generator,
) -> Consensus:
    """The consensus of the networks at some points, on inputs of a task; its targets are not used.

    Parameters
    ----------
    task : Task
    architecture : Architecture
    geometry : Geometry
    points : Tensor of shape (n, size)
    n_inputs : int
        Inputs drawn from the task; all, where it has no more.
    generator : torch.Generator

    Returns
    -------
    Consensus
    """
    inputs = torch.from_numpy(task.X)
    inputs = inputs[torch.randperm(len(inputs), generator=generator)[:n_inputs]].float()
    total = torch.zeros(1)
    with torch.no_grad():
        for some in points.float().split(ROWS):
            outputs = forward(geometry.to_weights(some), architecture, inputs)
            total = total + (outputs.softmax(-1) if task.is_classification else outputs).sum(0)
    return Consensus(architecture, geometry, inputs, total / len(points), task.is_classification)


def has_hints(flow: WeightFlow) -> bool:
    """Whether a flow's velocity network sees gradients of the population's consensus.

    Parameters
    ----------
    flow : WeightFlow

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If hints are asked for and there is no task, the networks are not sequential, or the velocity cannot read them.
    """
    if flow.hints is None:
        return False
    reads = velocity_name(flow.velocity, flow.geometry_.layout) in READ_HINTS
    runs = flow.task is not None and flow.architecture_ is not None and bool(flow.architecture_.layers)
    if flow.hints == "gradient" and not (reads and runs):
        raise ValueError(
            f"hints='gradient' runs the networks: it needs task=Task(X, y), the architecture of a sequential network, "
            f"and a velocity network that reads hints ({' or '.join(map(repr, READ_HINTS))})."
        )
    return reads and runs


def consensus_of(flow: WeightFlow, points: Tensor, generator: torch.Generator) -> Consensus | None:
    """What the networks of a population predict on average, where the flow's velocity network has hints of it.

    Parameters
    ----------
    flow : WeightFlow
    points : Tensor of shape (n, size)
    generator : torch.Generator

    Returns
    -------
    Consensus or None
    """
    if not has_hints(flow) or flow.task is None or flow.architecture_ is None:
        return None
    return fit_consensus(flow.task, flow.architecture_, flow.geometry_, points, flow.hint_inputs, generator)


def restored_consensus(flow: WeightFlow, arrays: dict[str, Tensor], is_classification: bool) -> Consensus | None:
    """The consensus of a saved flow, whose task may be gone.

    Parameters
    ----------
    flow : WeightFlow
    arrays : dict from str to Tensor
        What it is made of; empty without one.
    is_classification : bool

    Returns
    -------
    Consensus or None
    """
    if not arrays or flow.architecture_ is None:
        return None
    return Consensus(flow.architecture_, flow.geometry_, **arrays, is_classification=is_classification)


def hints_of(flow: WeightFlow) -> GradientHints | None:
    """What the velocity network sees beside each point.

    Parameters
    ----------
    flow : WeightFlow
        With its `consensus_`.

    Returns
    -------
    GradientHints or None
    """
    if flow.consensus_ is None:
        return None
    return GradientHints(flow.consensus_, flow.geometry_.manifold, flow.prior_)
