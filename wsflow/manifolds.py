"""Manifolds as torch kernels that act on the last axis, batched over everything before it.

`Euclidean` and `Sphere` are single factors; `Product` lays many of them over the columns of a
vector, equal ones in one tensor operation. geomstats describes the same manifolds for everything
that is not hot (Frechet means, tangent PCA), and is the oracle of the tests.

References
----------
Absil, Mahony and Sepulchre 2008, "Optimization Algorithms on Matrix Manifolds"; Chen and Lipman
2024, "Flow Matching on General Geometries", arXiv:2302.03660 (geodesic paths).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lgamma, log, pi
from typing import Any, Protocol

import torch
from torch import Tensor


class Manifold(Protocol):
    """What the flow needs of a manifold embedded in R^size; points and vectors are (..., size) tensors."""

    @property
    def size(self) -> int:
        """Number of ambient coordinates."""

    @property
    def dimension(self) -> int:
        """Intrinsic dimension."""

    def projection(self, x: Tensor) -> Tensor:
        """The nearest point of the manifold."""

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """The tangent part at x of an ambient vector."""

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Where the geodesic from x with velocity v is at time 1."""

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector at x whose geodesic reaches y at time 1."""

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Point and velocity at time t (n,) of the geodesic from x (n, size) to y."""

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Whether each point is on the manifold, up to atol."""


def _at(t: Tensor, x: Tensor) -> Tensor:
    """t of shape (n,), shaped to multiply x of shape (n, ..., size)."""
    return t.reshape(*t.shape, *(1,) * (x.dim() - t.dim()))


@dataclass(frozen=True)
class Euclidean:
    """The vector space R^size.

    Parameters
    ----------
    size : int
    """

    size: int

    @property
    def dimension(self) -> int:
        """Intrinsic dimension."""
        return self.size

    def projection(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """v itself."""
        return v

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """x + v."""
        return x + v

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """y - x."""
        return y - x

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - t) x + t y, and y - x."""
        return x + _at(t, x) * (y - x), y - x

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Whether the coordinates are finite."""
        return x.isfinite().all(-1)

    def geomstats(self) -> Any:
        """The same manifold in geomstats."""
        from geomstats.geometry.euclidean import Euclidean as GeomstatsEuclidean

        return GeomstatsEuclidean(self.size)


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
        """Intrinsic dimension."""
        return self.size - 1

    @property
    def log_volume(self) -> float:
        """Logarithm of the surface area, 2 pi^(m/2) / Gamma(m/2) in R^m."""
        return log(2) + self.size / 2 * log(pi) - lgamma(self.size / 2)

    def projection(self, x: Tensor) -> Tensor:
        """x / |x|."""
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """v - <x, v> x."""
        return v - (x * v).sum(-1, keepdim=True) * x

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """cos|v| x + sin|v| v/|v|, put back on the sphere against rounding."""
        angle = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        return self.projection(angle.cos() * x + torch.sinc(angle / pi) * v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """theta p/|p| with p = y - <x, y> x and theta = atan2(|p|, <x, y>).

        arccos would lose all digits near 0. At antipodal points every direction is a shortest one:
        a fixed one is taken.
        """
        cosine = (x * y).sum(-1, keepdim=True)
        p = y - cosine * x
        antipodal = (cosine < 0) & (torch.linalg.vector_norm(p, dim=-1, keepdim=True) < 8 * torch.finfo(x.dtype).eps)
        if antipodal.any():
            p = torch.where(antipodal, self._some_direction(x), p)
        sine = torch.linalg.vector_norm(p, dim=-1, keepdim=True)
        angle = torch.where(antipodal, torch.full_like(sine, pi), torch.atan2(sine, cosine))
        near = (sine < torch.finfo(x.dtype).eps ** 0.5) & (cosine > 0)
        # theta / sin(theta) = 1 + theta^2 / 6 + ...: the quotient has no gradient at coincident points
        ratio = angle / torch.where(near, torch.ones_like(sine), sine)
        return torch.where(near, torch.ones_like(sine), ratio) * p

    def _some_direction(self, x: Tensor) -> Tensor:
        axis = torch.zeros_like(x).scatter_(-1, x.detach().abs().argmin(-1, keepdim=True), 1.0)
        return self.projection(self.to_tangent(x, axis))

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """exp_x(t v) and its derivative -theta sin(t theta) x + cos(t theta) v, with v = log_x(y)."""
        v = self.log(x, y)
        angle = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        t = _at(t, x)
        turned = t * angle
        point = turned.cos() * x + torch.sinc(turned / pi) * t * v
        return self.projection(point), turned.cos() * v - angle * turned.sin() * x

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Whether the norm is 1."""
        return (torch.linalg.vector_norm(x, dim=-1) - 1).abs() <= atol

    def geomstats(self) -> Any:
        """The same manifold in geomstats."""
        from geomstats.geometry.hypersphere import Hypersphere

        return Hypersphere(self.dimension)


@dataclass(frozen=True, eq=False)
class Product:
    """A product of manifolds laid over the columns of a vector.

    Parameters
    ----------
    factors : sequence of (Euclidean or Sphere, LongTensor of shape (copies, size))
        Each manifold with the columns of its copies; together they cover every column once.

    Examples
    --------
    Two circles, on columns 0, 2 and 1, 3:

    >>> import torch
    >>> from wsflow.manifolds import Product, Sphere
    >>> torus = Product([(Sphere(2), torch.tensor([[0, 2], [1, 3]]))])
    >>> torus.dimension
    2
    """

    factors: Sequence[tuple[Euclidean | Sphere, Tensor]]

    def __post_init__(self) -> None:
        columns = self.order.sort().values
        if not torch.equal(columns, torch.arange(len(columns))):
            raise ValueError("The factors of a Product must cover every column once.")

    @cached_property
    def order(self) -> Tensor:
        """LongTensor of shape (size,): the columns, factor after factor."""
        return torch.cat([columns.reshape(-1) for _, columns in self.factors])

    @cached_property
    def _back(self) -> Tensor:
        return self.order.argsort()

    @property
    def size(self) -> int:
        """Number of ambient coordinates."""
        return len(self.order)

    @property
    def dimension(self) -> int:
        """Intrinsic dimension."""
        return sum(manifold.dimension * len(columns) for manifold, columns in self.factors)

    @cached_property
    def is_flat(self) -> bool:
        """Whether all factors are Euclidean."""
        return all(isinstance(manifold, Euclidean) for manifold, _ in self.factors)

    def split(self, x: Tensor) -> list[Tensor]:
        """The coordinates of each factor.

        Parameters
        ----------
        x : Tensor of shape (..., size)

        Returns
        -------
        list of Tensor of shape (..., copies, factor size)
        """
        sizes = [columns.numel() for _, columns in self.factors]
        parts = x.index_select(-1, self.order.to(x.device)).split(sizes, -1)
        return [
            part.unflatten(-1, tuple(columns.shape)) for part, (_, columns) in zip(parts, self.factors, strict=True)
        ]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`.

        Parameters
        ----------
        parts : sequence of Tensor of shape (..., copies, factor size)

        Returns
        -------
        Tensor of shape (..., size)
        """
        flat = torch.cat([part.flatten(-2) for part in parts], -1)
        return flat.index_select(-1, self._back.to(flat.device))

    def _map(self, name: str, *arguments: Tensor) -> Tensor:
        pieces = zip(self.factors, *(self.split(a) for a in arguments), strict=True)
        return self.join([getattr(manifold, name)(*xs) for (manifold, _), *xs in pieces])

    def projection(self, x: Tensor) -> Tensor:
        """The nearest point of the product."""
        return x if self.is_flat else self._map("projection", x)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """The tangent part at x of an ambient vector."""
        return v if self.is_flat else self._map("to_tangent", x, v)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """Where the geodesic from x with velocity v is at time 1."""
        return x + v if self.is_flat else self._map("exp", x, v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The tangent vector at x whose geodesic reaches y at time 1."""
        return y - x if self.is_flat else self._map("log", x, y)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Point and velocity at time t (n,) of the geodesic from x (n, size) to y."""
        pieces = zip(self.factors, self.split(x), self.split(y), strict=True)
        points, velocities = zip(*(manifold.geodesic(a, b, t) for (manifold, _), a, b in pieces), strict=True)
        return self.join(points), self.join(velocities)

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Whether each point (..., size) is on the product, up to atol."""
        inside = [m.belongs(p, atol).all(-1) for (m, _), p in zip(self.factors, self.split(x), strict=True)]
        return torch.stack(inside).all(0)

    def geomstats(self) -> Any:
        """The same manifold as a geomstats ProductManifold; its points are columns in `order`."""
        from geomstats.geometry.product_manifold import ProductManifold

        factors = [manifold.geomstats() for manifold, columns in self.factors for _ in columns]
        return ProductManifold(factors, point_ndim=1)
