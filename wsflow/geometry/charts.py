"""Charts: other coordinates for some of the weights, in which they lie on a manifold.

A chart replaces its columns in place and adds further coordinates behind the weights. Rows of weights stay runnable
networks; charts live inside the flow only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import Protocol

import torch
from torch import Tensor

from wsflow.architecture import Architecture, Block, Parameter
from wsflow.manifolds import Manifold, Sphere


class Chart(Protocol):
    """What a geometry needs of a chart."""

    @property
    def columns(self) -> Tensor:
        """LongTensor: the columns of weights that it replaces."""

    @property
    def n_extra(self) -> int:
        """How many coordinates it adds."""

    def factors(self, first: int) -> list[tuple[Manifold, Tensor]]:
        """Manifolds with their columns, where the added coordinates begin at column `first`."""

    def to_points(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """From weights (n, d) to weights with replaced columns, and the added coordinates (n, n_extra)."""

    def to_weights(self, points: Tensor, extra: Tensor) -> Tensor:
        """From replaced columns in (n, d) and added coordinates (n, n_extra) to weights (n, d)."""


@dataclass(frozen=True, eq=False)
class Polar:
    """A direction and a log-norm instead of a vector.

    Parameters
    ----------
    columns : LongTensor of shape (m,)

    Examples
    --------
    >>> import torch
    >>> from wsflow.geometry import Polar
    >>> direction, log_norm = Polar(torch.tensor([0, 1])).to_points(torch.tensor([[3.0, 4.0, 7.0]]))
    >>> direction, log_norm  # log 5
    (tensor([[0.6000, 0.8000, 7.0000]]), tensor([[1.6094]]))
    """

    columns: Tensor
    n_extra: int = 1

    def factors(self, first: int) -> list[tuple[Manifold, Tensor]]:
        """A sphere; the log-norm is left to the vector space.

        Parameters
        ----------
        first : int

        Returns
        -------
        list of (Manifold, LongTensor of shape (copies, size))
        """
        return [(Sphere(len(self.columns)), self.columns.unsqueeze(0))]

    def to_points(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """From weights to directions and log-norms.

        Parameters
        ----------
        weights : Tensor of shape (n, d)

        Returns
        -------
        points : Tensor of shape (n, d)
        extra : Tensor of shape (n, 1)
        """
        columns = self.columns.to(weights.device)
        vector = weights[:, columns]
        norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        return weights.index_copy(1, columns, vector / norm), norm.log()

    def to_weights(self, points: Tensor, extra: Tensor) -> Tensor:
        """The inverse of `to_points`.

        Parameters
        ----------
        points : Tensor of shape (n, d)
        extra : Tensor of shape (n, 1)

        Returns
        -------
        Tensor of shape (n, d)
        """
        columns = self.columns.to(points.device)
        return points.index_copy(1, columns, points[:, columns] * extra.exp())


@dataclass(frozen=True, eq=False)
class Phases:
    """Points of circles instead of the biases of periodic neurons: the angle of b is pi b / unit.

    With the half period `unit` of an activation a(z + unit) = -a(z), the bias b counts modulo 2 unit. A circle has no
    place where it is cut: from one end of the period to the other it is a short way.

    Parameters
    ----------
    columns : LongTensor of shape (m,)
        The biases.
    unit : float
        Half a period.

    Examples
    --------
    >>> import torch
    >>> from wsflow.geometry import Phases
    >>> chart = Phases(torch.tensor([0]), unit=torch.pi)
    >>> points = chart.to_points(torch.tensor([[3.0], [3.0 + 2 * torch.pi]]))
    >>> chart.to_weights(*points)
    tensor([[3.0000], [3.0000]])
    """

    columns: Tensor
    unit: float

    @property
    def n_extra(self) -> int:
        """One sine for each cosine."""
        return len(self.columns)

    def factors(self, first: int) -> list[tuple[Manifold, Tensor]]:
        """A circle for each bias: its cosine in the bias's place, its sine behind.

        Parameters
        ----------
        first : int

        Returns
        -------
        list of (Manifold, LongTensor of shape (copies, size))
        """
        return [(Sphere(2), torch.stack([self.columns, first + torch.arange(self.n_extra)], 1))]

    def to_points(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """From biases to cosines and sines of their angles.

        Parameters
        ----------
        weights : Tensor of shape (n, d)

        Returns
        -------
        points : Tensor of shape (n, d)
        extra : Tensor of shape (n, m)
        """
        columns = self.columns.to(weights.device)
        angle = weights[:, columns] * (pi / self.unit)
        return weights.index_copy(1, columns, angle.cos()), angle.sin()

    def to_weights(self, points: Tensor, extra: Tensor) -> Tensor:
        """From points of circles to biases within a period of zero; the same function as before.

        Parameters
        ----------
        points : Tensor of shape (n, d)
        extra : Tensor of shape (n, m)

        Returns
        -------
        Tensor of shape (n, d)
        """
        columns = self.columns.to(points.device)
        angle = torch.atan2(extra, points[:, columns])
        return points.index_copy(1, columns, angle * (self.unit / pi))


def phases_of(architecture: Architecture) -> tuple[list[Phases], Architecture]:
    """The charts of the biases that phases shift, and the layout of the points that they make.

    Parameters
    ----------
    architecture : Architecture

    Returns
    -------
    charts : list of Phases
    layout : Architecture
        Of the points: the architecture's parameters, and behind them one for the sines of each chart, with the
        same neuron groups on its axes. The architecture itself where there are no phases.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> charts, layout = phases_of(Architecture.mlp([1, 3, 1], "sine"))
    >>> [chart.columns.tolist() for chart in charts], layout.names
    ([[3, 4, 5]], ('0.weight', '0.bias', '2.weight', '2.bias', '0.bias.sine'))
    """
    charts: list[Phases] = []
    sines: list[Parameter] = []
    for parameter, block, columns in architecture.blocks:
        # two wires that shift one bias would need a common period
        if len(block.shifts) == 1:
            charts.append(Phases(torch.from_numpy(columns.reshape(-1)), block.shifts[0][2]))
            sines.append(Parameter(_free(f"{parameter.name}.sine", sines), block.extents, (Block(block.axes),)))
    if not charts:
        return [], architecture
    parameters = (*architecture.parameters, *sines)
    return charts, Architecture(parameters, architecture.wires, outputs=architecture.outputs)


def _free(name: str, taken: Sequence[Parameter]) -> str:
    """The name, numbered where a parameter has it: a parameter may have several blocks with phases."""
    return name if all(p.name != name for p in taken) else f"{name}.{len(taken)}"
