"""A geometry: a manifold for the networks of an architecture, and its charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.devices import placed
from wsflow.exceptions import InvalidInputError
from wsflow.geometry.charts import Chart, factors_of, polar_of, product_of
from wsflow.geometry.coordinates import Coordinates, PrincipalCoordinates
from wsflow.geometry.representatives import Representatives
from wsflow.manifolds import Euclidean, Point, Product, Sphere
from wsflow.mapped import chunks
from wsflow.representation import in_a_line


@in_a_line
@dataclass(frozen=True, eq=False)
class Geometry:
    """A manifold for networks, with its charts.

    Parameters
    ----------
    name : str
        The key of the table.
    manifold : Product
        Where the flow lives.
    target : Product
        Where the networks lie; a flow on a larger manifold (normalized) is projected to it at the end.
    charts : tuple of Chart
        Between weights and points, on columns of their own; the coordinates that they add follow the weights.
    layout : Architecture, optional
        Describes the coordinates of a point, but for the last ones, which belong to no neuron; velocity networks are
        made for it. None for plain vectors.
    architecture : Architecture, optional
        Of the networks.
    remedy : str
        What to do about rows that are not on the target.
    coordinates : Coordinates or PrincipalCoordinates, optional
        Those of the manifolds, where they are not the points of the charts: see `fit_coordinates`, `fit_principal`.
    base : Geometry, optional
        The geometry before its coordinates were fitted to a population.
    """

    name: str
    manifold: Product
    target: Product
    charts: tuple[Chart, ...] = ()
    layout: Architecture | None = None
    architecture: Architecture | None = None
    remedy: str = ""
    coordinates: Coordinates | PrincipalCoordinates | None = None
    base: Geometry | None = None

    @classmethod
    def from_manifolds(
        cls, architecture: Architecture, manifolds: Mapping[str, Any], last_layer: str = "euclidean"
    ) -> Geometry:
        """Make a geometry from manifolds for the named parameters; all other weights are in a vector space.

        Parameters
        ----------
        manifolds : mapping from a parameter's name to a space of geomstats with a metric, or a `Manifold`
            The last axes of the parameter are a point; the axes before count copies.
        last_layer : {"euclidean", "polar"}

        Raises
        ------
        ValueError
            If a parameter does not exist, its shape does not end with that of a point, or columns are used twice.

        Examples
        --------
        Unit vectors as the first layer's incoming weights, and a rotation behind them:

        >>> from geomstats.geometry.hypersphere import Hypersphere
        >>> from geomstats.geometry.special_orthogonal import SpecialOrthogonal
        >>> from wsflow import Architecture
        >>> from wsflow.geometry import Geometry
        >>> architecture = Architecture.mlp([2, 3, 3, 1], "tanh")
        >>> manifolds = {"0.weight": Hypersphere(1), "2.weight": SpecialOrthogonal(3)}
        >>> geometry = Geometry.from_manifolds(architecture, manifolds)
        >>> geometry.manifold.dimension, architecture.n_weights
        (16, 25)
        """
        charts = tuple(polar_of(architecture, last_layer))
        if charts and (twice := [name for name in manifolds if name in architecture.outputs]):
            raise ValueError(
                f"The parameter {twice[0]!r} has a manifold of its own, and is part of the output layer, which "
                "last_layer='polar' puts on a sphere. Use last_layer='euclidean'."
            )
        manifold = product_of(architecture.n_weights, list(factors_of(architecture, manifolds)), charts)
        remedy = (
            f"each of {', '.join(map(repr, manifolds))} is a point of its own manifold. Train networks that are "
            "parametrized so, or project them, or leave the parameter out of geometry=."
        )
        return cls("custom", manifold, manifold, charts, architecture, architecture, remedy)

    @property
    def has_density(self) -> bool:
        """Whether samples have a density on the flow's manifold."""
        return not self.no_density

    @property
    def no_density(self) -> str:
        """Why there is no density, as a sentence with the remedy; empty where there is one."""
        if self.coordinates is not None and self.coordinates.no_density:
            return self.coordinates.no_density
        if self.manifold is not self.target:
            return (
                f"The {self.name} geometry has no density: its networks lie on spheres, which have no volume in the "
                "space in which it flows. Use geometry='geometric' or 'euclidean'."
            )
        if not all(isinstance(factor, (Euclidean, Sphere, Point)) for factor, _ in self.manifold.factors):
            return (
                "Densities are those of vector spaces and spheres, and some of these parameters lie on others. "
                "Use geometry='geometric' or 'euclidean', or wsflow.manifolds.Sphere for these parameters."
            )
        return ""

    @property
    def n_extra(self) -> int:
        """The number of coordinates of a point behind its layout, which belong to no neuron."""
        return self.manifold.size - (self.manifold.size if self.layout is None else self.layout.n_weights)

    @property
    def n_weights(self) -> int:
        """The number of weights of a network, or of columns of a plain vector."""
        return self.manifold.size if self.architecture is None else self.architecture.n_weights

    @property
    def log_det(self) -> float:
        """The logarithm of the volume that a unit of volume of the manifold has among the points of the charts."""
        return 0.0 if self.coordinates is None else self.coordinates.log_det(self.manifold)

    def charts_without(self, same: Tensor) -> tuple[Chart, ...]:
        """Return the charts for networks that are equal in the columns (d,) where `same` is true."""
        return tuple(chart.without(same) for chart in self.charts)

    def to_points(self, weights: Tensor) -> Tensor:
        """Return the points (n, manifold size) of networks (n, d)."""
        added = []
        for chart in self.charts:
            weights, extra = chart.to_points(weights)
            added.append(extra)
        points = torch.cat([weights, *added], 1) if added else weights
        return points if self.coordinates is None else self.coordinates.apply(points)

    def to_weights(self, points: Tensor) -> Tensor:
        """Return the networks (n, d), the inverse of `to_points` on the target up to whole periods."""
        if self.coordinates is None:
            return self._uncharted(points)
        return self.coordinates.restore(self._uncharted(self.coordinates.invert(points)))

    def _uncharted(self, points: Tensor) -> Tensor:
        if not self.charts:
            return points
        sizes = [chart.n_extra for chart in self.charts]
        weights, *added = points.split([points.shape[1] - sum(sizes), *sizes], 1)
        for chart, extra in zip(self.charts, added, strict=True):
            weights = chart.to_weights(weights, extra)
        return weights

    @cached_property
    def _representatives(self) -> Representatives | None:
        if self.architecture is None:
            return None
        if self.base is not None:
            return self.base._representatives
        return Representatives(self.architecture, self.target, self.charts)

    def nearest(self, x: Tensor, y: Tensor) -> Tensor:
        """Return, of all points (n, size) that are y's functions by signs, flips and phases, those nearest to x.

        A flow whose pairs are joined so takes its paths modulo these changes, as on a projective space, and learns the
        law of networks up to them, which is useful where no aligner has chosen signs. Each neuron's incoming and
        outgoing weights change together. Distances are ambient; with several hidden layers the minimum is local.

        Examples
        --------
        The sine's half period changes the sign of the outgoing weight, so that b = 1.5 and b = -1.5 are neighbours.

        >>> import torch
        >>> from wsflow import Architecture
        >>> from wsflow.geometry import GEOMETRIES
        >>> geometry = GEOMETRIES["geometric"](Architecture.mlp([1, 1, 1], "sine"))
        >>> x, y = geometry.to_points(torch.tensor([[1.0, 1.5, 2.0, 0.0], [1.0, -1.5, -2.0, 0.0]])).split(1)
        >>> geometry.to_weights(geometry.nearest(x, y))
        tensor([[1.0000, 1.6416, 2.0000, 0.0000]])
        """
        if self._representatives is None:
            return y
        return self.moved(self._representatives.nearest, x, y)

    def moved(self, nearest: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Return y (n, size) as `nearest` moves it towards x among the points of the charts.

        A point that would leave what is equal in all networks stays.
        """
        if not isinstance(self.coordinates, Coordinates):
            return nearest(x, y)
        points = nearest(self.coordinates.invert(x), self.coordinates.invert(y))
        kept = torch.isclose(points, placed(self.coordinates.centre, points.device).to(points), rtol=1e-5, atol=0.0)
        inside = (kept | ~placed(self.coordinates.constant, points.device)).all(1, keepdim=True)
        return torch.where(inside, self.coordinates.apply(points), y)

    def check(self, weights: Tensor, atol: float) -> None:
        """Refuse networks (n, d) that are not on the manifold, up to `atol`, naming the first row and the remedy."""
        if self.base is not None:
            return self.base.check(weights, atol)
        outside: list[int] = []
        for rows in chunks(*weights.shape):
            points = self.to_points(weights[rows].double())
            found = (~self.target.belongs(points, atol)).nonzero()[:, 0].tolist()
            if found and not outside:
                own = zip(self.target.factors, self.target.split(points[found[0]]), strict=True)
                if any(bool((x == 0).all(-1).any()) for (factor, _), x in own if isinstance(factor, Sphere)):
                    raise InvalidInputError(
                        f"Network {rows.start + found[0]} has a dead neuron: all its incoming weights are zero, so it "
                        f"has no direction in the {self.name} geometry. Drop the network, or use geometry='euclidean'."
                    )
            outside += [rows.start + row for row in found]
        if outside:
            raise InvalidInputError(
                f"{len(outside)} of {len(weights)} rows, the first of them row {outside[0]}, do not lie on the "
                f"manifold of the {self.name} geometry: {self.remedy}"
            )
