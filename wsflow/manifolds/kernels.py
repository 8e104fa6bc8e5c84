"""The methods that a flow needs of a manifold, and two manifolds with fast ones: vector spaces and spheres.

All of them act on the last axis, batched over everything before it. geomstats has the same maps, and the tests hold
these to them; its product manifolds loop over factors in Python, which is 60 times slower for 42 spheres, and its
gradients at coincident points are not finite.

References
----------
Absil, Mahony and Sepulchre 2008, "Optimization Algorithms on Matrix Manifolds"; Chen and Lipman
2024, "Flow Matching on General Geometries", arXiv:2302.03660 (geodesic paths).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Any, Protocol

import torch
from torch import Tensor


class Manifold(Protocol):
    """A manifold embedded in R^size, with the methods that a flow needs; points and vectors are (..., size) tensors."""

    @property
    def size(self) -> int:
        """The number of ambient coordinates."""

    @property
    def dimension(self) -> int:
        """The intrinsic dimension."""

    def projection(self, x: Tensor) -> Tensor:
        """Return the nearest point of the manifold."""

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the tangent part at x of an ambient vector."""

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Return the point at time 1 of the geodesic from x with velocity v."""

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the tangent vector at x whose geodesic reaches y at time 1."""

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return point and velocity at time t (n,) of the geodesic from x (n, ..., size) to y."""

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Return whether each point is on the manifold, up to atol."""

    def geomstats(self) -> Any:
        """Return the same manifold in geomstats."""


def at(t: Tensor, x: Tensor) -> Tensor:
    """Return t of shape (n,), reshaped to multiply x of shape (n, ..., size)."""
    return t.reshape(*t.shape, *(1,) * (x.dim() - t.dim()))


@dataclass(frozen=True)
class Euclidean:
    """The vector space R^size."""

    size: int

    @property
    def dimension(self) -> int:
        return self.size

    def projection(self, x: Tensor) -> Tensor:
        return x

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x + at(t, x) * (y - x), y - x

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Return whether the coordinates are finite."""
        return x.isfinite().all(-1)

    def geomstats(self) -> Any:
        from geomstats.geometry.euclidean import Euclidean as GeomstatsEuclidean

        return GeomstatsEuclidean(self.size)


@dataclass(frozen=True)
class Point:
    """The origin of R^size alone, of dimension 0: coordinates that do not vary."""

    size: int

    @property
    def dimension(self) -> int:
        return 0

    def projection(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), torch.zeros_like(x)

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Return whether the coordinates are zero."""
        return (x.abs() <= atol).all(-1)

    def geomstats(self) -> Any:
        raise TypeError("geomstats has no manifold of one point.")


@dataclass(frozen=True)
class Sphere:
    """The unit sphere in R^size.

    Parameters
    ----------
    size : int
        Number of ambient coordinates; the sphere has one dimension less.

    Examples
    --------
    >>> import torch
    >>> from wsflow.manifolds import Sphere
    >>> x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> Sphere(2).log(x, y)
    tensor([0.0000, 1.5708])
    """

    size: int

    @property
    def dimension(self) -> int:
        return self.size - 1

    @property
    def log_volume(self) -> float:
        """The logarithm of the surface area, 2 pi^(m/2) / Gamma(m/2) in R^m."""
        return log(2) + self.size / 2 * log(pi) - lgamma(self.size / 2)

    def projection(self, x: Tensor) -> Tensor:
        """Return x / |x|."""
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """Return v - <x, v> x."""
        return v - (x * v).sum(-1, keepdim=True) * x

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Return cos|v| x + sin|v| v/|v|, put back on the sphere against rounding."""
        angle = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        return self.projection(angle.cos() * x + torch.sinc(angle / pi) * v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """Return theta p/|p| with p = y - <x, y> x and theta = atan2(|p|, <x, y>).

        arccos would lose all digits near 0. At antipodal points every direction is a shortest one:
        a fixed one is taken. On the sphere of two points there is none, and the vector is zero.
        """
        cosine = (x * y).sum(-1, keepdim=True)
        p = y - cosine * x
        antipodal = (cosine < 0) & (torch.linalg.vector_norm(p, dim=-1, keepdim=True) < 8 * torch.finfo(x.dtype).eps)
        # elsewhere than on the CPU, to ask would take longer than to choose
        if x.device.type != "cpu" or antipodal.any():
            p = torch.where(antipodal, self._some_direction(x), p)
        sine = torch.linalg.vector_norm(p, dim=-1, keepdim=True)
        angle = torch.where(antipodal, torch.full_like(sine, pi), torch.atan2(sine, cosine))
        near = (sine < torch.finfo(x.dtype).eps ** 0.5) & (cosine > 0)
        # theta / sin(theta) = 1 + theta^2 / 6 + ...: the quotient has no gradient at coincident points
        ratio = angle / torch.where(near | (sine == 0), torch.ones_like(sine), sine)
        return torch.where(near, torch.ones_like(sine), ratio) * p

    def _some_direction(self, x: Tensor) -> Tensor:
        axis = torch.zeros_like(x).scatter_(-1, x.detach().abs().argmin(-1, keepdim=True), 1.0)
        return self.projection(self.to_tangent(x, axis))

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return exp_x(t v) and its derivative -theta sin(t theta) x + cos(t theta) v, with v = log_x(y)."""
        v = self.log(x, y)
        angle = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        t = at(t, x)
        turned = t * angle
        point = turned.cos() * x + torch.sinc(turned / pi) * t * v
        return self.projection(point), turned.cos() * v - angle * turned.sin() * x

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Return whether the norm is 1."""
        return (torch.linalg.vector_norm(x, dim=-1) - 1).abs() <= atol

    def geomstats(self) -> Any:
        from geomstats.geometry.hypersphere import Hypersphere

        return Hypersphere(self.dimension)
