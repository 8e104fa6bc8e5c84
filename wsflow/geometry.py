"""Geometries: on which manifold the networks of an architecture lie.

Each row of the table makes, from an architecture, a manifold and the charts between weights and
its points. Every row of weights stays a runnable network; charts live only inside the flow.

References
----------
Erdogan 2025, "Geometric Flow Models over Neural Network Weights" (Euclidean, Normalized, Geometric).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsflow.activations import POSITIVE
from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.manifolds import Euclidean, Product, Sphere
from wsflow.symmetry.canonical import Bias, incoming_columns

LastLayer = Literal["euclidean", "polar"]


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
    polar : ndarray of int
        Columns that are stored as a direction, with their log-norm as a further coordinate.
    remedy : str
        What to do about rows that are not on the target.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.geometry import GEOMETRIES
    >>> geometry = GEOMETRIES["geometric"](Architecture.mlp([30, 16, 16, 2]))
    >>> [(type(factor).__name__, factor.size, len(copies)) for factor, copies in geometry.manifold.factors]
    [('Sphere', 31, 16), ('Sphere', 17, 16), ('Euclidean', 34, 1)]
    """

    name: str
    manifold: Product
    target: Product
    polar: np.ndarray
    remedy: str = ""

    @property
    def has_density(self) -> bool:
        """Whether samples have a density on the flow's manifold."""
        return self.manifold is self.target

    def to_points(self, weights: Tensor) -> Tensor:
        """From networks to points of the manifold.

        Parameters
        ----------
        weights : Tensor of shape (n, d)

        Returns
        -------
        Tensor of shape (n, manifold size)
        """
        if not len(self.polar):
            return weights
        norm = torch.linalg.vector_norm(weights[:, self.polar], dim=1, keepdim=True)
        norm = norm.clamp_min(torch.finfo(weights.dtype).tiny)
        points = weights.clone()
        points[:, self.polar] = weights[:, self.polar] / norm
        return torch.cat([points, norm.log()], 1)

    def to_weights(self, points: Tensor) -> Tensor:
        """From points of the manifold to networks; the inverse of `to_points` on the target.

        Parameters
        ----------
        points : Tensor of shape (n, manifold size)

        Returns
        -------
        Tensor of shape (n, d)
        """
        if not len(self.polar):
            return points
        scale = torch.ones_like(points[:, :-1])
        scale[:, self.polar] = points[:, -1:].exp()
        return points[:, :-1] * scale

    def _has_dead_neuron(self, point: Tensor) -> bool:
        parts = zip(self.target.factors, self.target.split(point), strict=True)
        return any(bool((part == 0).all(-1).any()) for (factor, _), part in parts if isinstance(factor, Sphere))

    def check(self, weights: Tensor, atol: float) -> None:
        """Refuse networks that are not on the manifold.

        Parameters
        ----------
        weights : Tensor of shape (n, d)
        atol : float

        Raises
        ------
        InvalidInputError
            Naming the first row that is not, and the remedy.
        """
        points = self.to_points(weights)
        outside = ~self.target.belongs(points, atol)
        if outside.any():
            row = int(outside.nonzero()[0])
            if self._has_dead_neuron(points[row]):
                raise InvalidInputError(
                    f"Network {row} has a dead neuron: all its incoming weights are zero, so it has no direction in "
                    f"the {self.name} geometry. Drop the network, or use geometry='euclidean'."
                )
            raise InvalidInputError(
                f"{int(outside.sum())} of {len(weights)} rows, the first of them row {row}, do not lie on the manifold "
                f"of the {self.name} geometry: {self.remedy}"
            )


def euclidean(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """All weights in a vector space.

    Parameters
    ----------
    architecture : Architecture
    last_layer : {"euclidean", "polar"}
    bias : {"inside", "outside"}
        Not used.

    Returns
    -------
    Geometry
    """
    manifold = _product(architecture, [], last_layer)
    return Geometry("euclidean", manifold, manifold, _polar(architecture, last_layer))


def geometric(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """A sphere for the incoming weights of each neuron that has positive scalings, a vector space for the rest.

    Parameters
    ----------
    architecture : Architecture
    last_layer : {"euclidean", "polar"}
    bias : {"inside", "outside"}
        Whether a neuron's sphere includes its bias.

    Returns
    -------
    Geometry
    """
    manifold = _product(architecture, _spheres(architecture, bias), last_layer)
    return Geometry("geometric", manifold, manifold, _polar(architecture, last_layer), _remedy(bias))


def normalized(architecture: Architecture, last_layer: LastLayer = "euclidean", bias: Bias = "inside") -> Geometry:
    """A vector space around the spheres of the geometric geometry; samples are projected to them.

    Parameters
    ----------
    architecture : Architecture
    last_layer : {"euclidean", "polar"}
    bias : {"inside", "outside"}

    Returns
    -------
    Geometry
    """
    target = _product(architecture, _spheres(architecture, bias), last_layer)
    flat = Product([(Euclidean(target.size), torch.arange(target.size).unsqueeze(0))])
    return Geometry("normalized", flat, target, _polar(architecture, last_layer), _remedy(bias))


GEOMETRIES: dict[str, Callable[..., Geometry]] = {
    "euclidean": euclidean,
    "normalized": normalized,
    "geometric": geometric,
}


def vectors(n_features: int) -> Geometry:
    """Plain vectors without an architecture: a vector space without symmetries.

    Parameters
    ----------
    n_features : int

    Returns
    -------
    Geometry
    """
    manifold = Product([(Euclidean(n_features), torch.arange(n_features).unsqueeze(0))])
    return Geometry("euclidean", manifold, manifold, np.arange(0))


def _spheres(architecture: Architecture, bias: Bias) -> list[tuple[Sphere, Tensor]]:
    spheres = []
    for wire in architecture.wires:
        if POSITIVE in wire.scalings:
            columns = incoming_columns(architecture, wire, bias)
            # a neuron with a single incoming weight has S^0, two points: no flow moves on it
            if columns.shape[1] > 1:
                spheres.append((Sphere(columns.shape[1]), columns))
    return spheres


def _polar(architecture: Architecture, last_layer: LastLayer) -> np.ndarray:
    return architecture.output_columns if last_layer == "polar" else np.arange(0)


def _product(architecture: Architecture, spheres: list[tuple[Sphere, Tensor]], last_layer: LastLayer) -> Product:
    factors: list[tuple[Euclidean | Sphere, Tensor]] = list(spheres)
    size = architecture.n_weights
    if last_layer == "polar":
        output = torch.from_numpy(architecture.output_columns)
        factors.append((Sphere(len(output)), output.unsqueeze(0)))
        size += 1
    taken = torch.zeros(size, dtype=torch.bool)
    for _, columns in factors:
        taken[columns.reshape(-1)] = True
    rest = (~taken).nonzero().squeeze(1)
    if len(rest):
        factors.append((Euclidean(len(rest)), rest.unsqueeze(0)))
    return Product(factors)


def _remedy(bias: Bias) -> str:
    other = {"inside": "outside", "outside": "inside"}[bias]
    return (
        f"each hidden neuron needs incoming weights of unit norm, bias {bias}. Put ScaleCanonicalizer(bias={bias!r}) "
        f"before WeightFlow (or say bias={other!r} in both), or use geometry='euclidean'."
    )
