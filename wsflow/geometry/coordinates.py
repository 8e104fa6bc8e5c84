"""Coordinates of a population's points: units of those that differ, or principal components of networks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from wsflow.devices import placed
from wsflow.manifolds import Product


@dataclass(frozen=True, eq=False)
class Coordinates:
    """z = (p - centre) / scale for points p, and the weights that are equal in all networks."""

    centre: Tensor  # (size,), in float64
    scale: Tensor
    constant: Tensor  # (size,), whether a coordinate is equal in all networks: p is its centre, and z is zero
    columns: Tensor  # (k,), of the weights that are equal in all networks
    values: Tensor  # of these

    no_density = ""

    def apply(self, p: Tensor) -> Tensor:
        """From points (n, size) to coordinates; what is constant is zero, whatever the points have there."""
        z = (p - _like(self.centre, p)) / _like(self.scale, p)
        return z.masked_fill(placed(self.constant, p.device), 0.0)

    def invert(self, z: Tensor) -> Tensor:
        """From coordinates (n, size) to points."""
        return _like(self.centre, z) + _like(self.scale, z) * z

    def restore(self, weights: Tensor) -> Tensor:
        """Weights (n, d) with what is equal in all networks as it is there, bit for bit."""
        columns = placed(self.columns, weights.device)
        return weights.index_copy(1, columns, _like(self.values, weights).expand(len(weights), -1))

    def has_constants(self, weights: Tensor) -> Tensor:
        """Whether networks (n, d) have what is equal in all networks, up to the rounding of float32: (n,)."""
        found = weights[:, placed(self.columns, weights.device)]
        return torch.isclose(found, _like(self.values, weights), rtol=1e-6, atol=0.0).all(1)

    def log_det(self, manifold: Product) -> float:
        """The logarithm of the volume that a unit of volume in coordinates has among points."""
        parts = zip(manifold.factors, manifold.split(self.scale), strict=True)
        return sum(float(scale.log().sum()) * m.dimension / m.size for (m, _), scale in parts)

    def arrays(self) -> dict[str, Tensor]:
        """The fields, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, eq=False)
class PrincipalCoordinates:
    """z = basis (w - centre)."""

    centre: Tensor  # (d,), the mean of the networks
    basis: Tensor  # (components, d), orthonormal rows, by falling variance

    no_density = (
        "The networks of a latent flow lie in the span of those that it was fitted to, which has no volume among all "
        "networks, so they have no density. Use NetworkGeometry(latent=None)."
    )

    def apply(self, p: Tensor) -> Tensor:
        """From networks (n, d) to coordinates (n, components): of their projections to the span."""
        return (p - _like(self.centre, p)) @ _like(self.basis, p).T

    def invert(self, z: Tensor) -> Tensor:
        """From coordinates (n, components) to networks (n, d)."""
        return torch.addmm(_like(self.centre, z), z, _like(self.basis, z))

    def restore(self, weights: Tensor) -> Tensor:
        """The networks themselves."""
        return weights

    def log_det(self, manifold: Product) -> float:
        """Zero: lengths are those of weights."""
        return 0.0

    def arrays(self) -> dict[str, Tensor]:
        """The fields, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _like(table: Tensor, x: Tensor) -> Tensor:
    """Numbers that never change, on the device and in the precision of points."""
    return placed(table, x.device).to(x.dtype)
