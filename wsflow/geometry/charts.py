"""Charts: other coordinates for a few of the weights, in which they lie on a manifold.

A chart replaces its columns in place and adds further coordinates behind the weights. Rows of weights stay runnable
networks; charts live inside the flow only. The points lie on a product of manifolds, whose factors are manifolds with
the columns (copies, size) that are points of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import pi, prod
from typing import Any, Protocol

import torch
from torch import Tensor

from wsflow.architecture import Architecture, Block, Parameter
from wsflow.devices import placed
from wsflow.manifolds import Bridge, Euclidean, Manifold, Product, Sphere

Factor = tuple[Manifold, Tensor]


class Chart(Protocol):
    """What a geometry needs of a chart."""

    @property
    def columns(self) -> Tensor:
        """The columns of weights that the chart replaces."""

    @property
    def n_extra(self) -> int:
        """The number of coordinates that the chart adds."""

    def factors(self, first: int) -> list[tuple[Manifold, Tensor]]:
        """Return manifolds with columns (copies, size), where the added coordinates begin at column `first`."""

    def to_points(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (n, d) with the columns replaced, and the added coordinates (n, n_extra)."""

    def to_weights(self, points: Tensor, extra: Tensor) -> Tensor:
        """Return weights (n, d), the inverse of `to_points`."""

    def without(self, same: Tensor) -> Chart:
        """Return the chart for networks that are equal in the columns (d,) where `same` is true."""


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
        """Return a sphere with its columns (1, m); the log-norm is left to the vector space."""
        return [(Sphere(len(self.columns)), self.columns.unsqueeze(0))]

    def to_points(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (n, d) with directions in place of the vectors, and log-norms (n, 1)."""
        columns = placed(self.columns, weights.device)
        vector = weights[:, columns]
        norm = torch.linalg.vector_norm(vector, dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        return weights.index_copy(1, columns, vector / norm), norm.log()

    def to_weights(self, points: Tensor, extra: Tensor) -> Tensor:
        """Return weights (n, d), the inverse of `to_points`."""
        columns = placed(self.columns, points.device)
        return points.index_copy(1, columns, points[:, columns] * extra.exp())

    def without(self, same: Tensor) -> Polar:
        """Return the chart of the other columns: what is equal in all networks has no part in the direction."""
        rest = self.columns[~same[self.columns]]
        return Polar(rest) if len(rest) else self


@dataclass(frozen=True, eq=False)
class Phases:
    """Points of circles instead of the biases of periodic neurons: the angle of b is pi b / unit.

    With the half period `unit` of an activation a(z + unit) = -a(z), the bias b counts modulo 2 unit. On a circle
    the two ends of the period are neighbours.

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
        """The number of sines, one for each cosine."""
        return len(self.columns)

    def factors(self, first: int) -> list[tuple[Manifold, Tensor]]:
        """Return a circle with the columns (m, 2) of each bias: its cosine in the bias's place, its sine behind."""
        return [(Sphere(2), torch.stack([self.columns, first + torch.arange(self.n_extra)], 1))]

    def to_points(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (n, d) with the cosines of angles in place of biases, and their sines (n, m)."""
        columns = placed(self.columns, weights.device)
        angle = weights[:, columns] * (pi / self.unit)
        return weights.index_copy(1, columns, angle.cos()), angle.sin()

    def to_weights(self, points: Tensor, extra: Tensor) -> Tensor:
        """Return weights (n, d) with biases within a period of zero; the same function as before."""
        columns = placed(self.columns, points.device)
        angle = torch.atan2(extra, points[:, columns])
        return points.index_copy(1, columns, angle * (self.unit / pi))

    def without(self, same: Tensor) -> Phases:
        """Return the chart itself: a bias that is equal in all networks is one point of its circle."""
        return self


def phases_of(architecture: Architecture) -> tuple[list[Phases], Architecture]:
    """Return the charts of the biases that phases shift, and an architecture that describes the points they make.

    Behind the architecture's parameters it has one for the sines of each chart, with the same neuron groups on its
    axes, so that velocity networks see them as features of the neurons.
    """
    charts: list[Phases] = []
    sines: list[Parameter] = []
    for parameter, block, columns in architecture.blocks:
        # two wires that shift one bias would need a common period
        if len(block.shifts) == 1:
            charts.append(Phases(torch.from_numpy(columns.reshape(-1)), block.shifts[0][2]))
            # numbered where it is taken: a parameter may have several blocks with phases
            name = f"{parameter.name}.sine"
            name = f"{name}.{len(sines)}" if any(p.name == name for p in sines) else name
            sines.append(Parameter(name, block.extents, (Block(block.axes),)))
    if not charts:
        return [], architecture
    parameters = (*architecture.parameters, *sines)
    return charts, Architecture(parameters, architecture.wires, outputs=architecture.outputs)


def product_of(n_weights: int, factors: Sequence[Factor], charts: Sequence[Chart]) -> Product:
    """Return the product of factors, of the charts' factors, and of a vector space for all other columns."""
    found, size = list(factors), n_weights
    for chart in charts:
        found += chart.factors(size)
        size += chart.n_extra
    covered = torch.zeros(size, dtype=torch.bool)
    for _, columns in found:
        covered[columns.reshape(-1)] = True
    rest = (~covered).nonzero().squeeze(1)
    return Product([*found, (Euclidean(len(rest)), rest.unsqueeze(0))] if len(rest) else found)


def polar_of(architecture: Architecture, last_layer: str) -> list[Polar]:
    """Return the chart of the output layer, or none where `last_layer` is "euclidean"."""
    return [Polar(torch.from_numpy(architecture.output_columns))] if last_layer == "polar" else []


def factors_of(architecture: Architecture, manifolds: Mapping[str, Any]) -> Iterator[Factor]:
    """Yield the factors of the parameters that have a manifold of their own, by name."""
    for name, manifold in manifolds.items():
        parameter = next((p for p in architecture.parameters if p.name == name), None)
        if parameter is None:
            raise ValueError(
                f"The geometry names the parameter {name!r}, which this architecture does not have: it has "
                f"{', '.join(architecture.names)}."
            )
        factor: Manifold = manifold if hasattr(manifold, "geodesic") else Bridge(manifold)
        shape = factor.shape if isinstance(factor, Bridge) else (factor.size,)
        if parameter.shape[-len(shape) :] != shape:
            raise ValueError(
                f"The parameter {name!r} has the shape {parameter.shape}, which does not end with that of a point of "
                f"its {type(manifold).__name__}, {shape}. Use a manifold whose points are its last axes."
            )
        columns = architecture.slices[name]
        yield factor, torch.arange(columns.start, columns.stop).reshape(-1, prod(shape))
