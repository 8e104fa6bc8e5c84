"""An orthonormal basis of the tangent space of a product at one point, without a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.manifolds import Euclidean, Manifold, Point, Product, Sphere


class Frame:
    """From tangent vectors at a point to coordinates in an orthonormal basis, and back.

    On a sphere the basis is the Householder reflection that takes the last axis to the point (or to its
    opposite), without its last column; on a vector space its axes, on any other manifold the range of its tangent
    projection.

    Parameters
    ----------
    manifold : Product
    point : Tensor of shape (size,)

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.frame import Frame
    >>> from wsflow.manifolds import Product, Sphere
    >>> sphere = Product([(Sphere(3), torch.tensor([[0, 1, 2]]))])
    >>> Frame(sphere, torch.tensor([0.0, 0.0, 1.0])).coordinates(torch.tensor([[3.0, 4.0, 0.0]]))
    tensor([[3., 4.]])
    """

    def __init__(self, manifold: Product, point: Tensor) -> None:
        self.manifold = manifold
        parts = zip(manifold.factors, manifold.split(point), strict=True)
        self._bases = [_basis(factor, part) for (factor, _), part in parts]

    def coordinates(self, v: Tensor) -> Tensor:
        """From tangent vectors (n, size) to coordinates (n, dimension)."""
        parts = zip(self.manifold.split(v), self._bases, strict=True)
        return torch.cat([basis.coordinates(part).flatten(1) for part, basis in parts], 1)

    def vectors(self, z: Tensor) -> Tensor:
        """From coordinates (n, dimension) to tangent vectors (n, size)."""
        sizes = [len(columns) * factor.dimension for factor, columns in self.manifold.factors]
        pieces = zip(self.manifold.factors, z.split(sizes, 1), self._bases, strict=True)
        return self.manifold.join(
            [
                basis.vectors(piece.reshape(len(z), len(columns), factor.dimension))
                for (factor, columns), piece, basis in pieces
            ]
        )


class _Axes:
    """Of a vector space: its axes."""

    def coordinates(self, v: Tensor) -> Tensor:
        return v

    def vectors(self, z: Tensor) -> Tensor:
        return z


class _None:
    """Of a single point: no directions at all."""

    def __init__(self, size: int) -> None:
        self._size = size

    def coordinates(self, v: Tensor) -> Tensor:
        return v[..., :0]

    def vectors(self, z: Tensor) -> Tensor:
        return z.new_zeros(*z.shape[:-1], self._size)


class _Mirror:
    """Of a sphere: the reflections that take the last axis to each of some points (copies, size), up to sign."""

    def __init__(self, point: Tensor) -> None:
        away = torch.where(point[:, -1:] >= 0, 1.0, -1.0).to(point)
        normal = point.clone()
        normal[:, -1:] += away
        self._normal = normal / torch.linalg.vector_norm(normal, dim=-1, keepdim=True)

    def coordinates(self, v: Tensor) -> Tensor:
        return self._reflected(v)[..., :-1]

    def vectors(self, z: Tensor) -> Tensor:
        return self._reflected(torch.nn.functional.pad(z, (0, 1)))

    def _reflected(self, v: Tensor) -> Tensor:
        normal = self._normal.to(v)
        return v - 2 * (v * normal).sum(-1, keepdim=True) * normal


class _Range:
    """Of any manifold: the range of the projection to the tangent space, by a singular value decomposition."""

    def __init__(self, factor: Manifold, point: Tensor) -> None:
        axes = torch.eye(factor.size).to(point).expand(len(point), -1, -1)
        images = factor.to_tangent(point.unsqueeze(1).expand_as(axes), axes)
        self._rows = torch.linalg.svd(images).Vh[:, : factor.dimension]

    def coordinates(self, v: Tensor) -> Tensor:
        return torch.einsum("nci,cdi->ncd", v, self._rows.to(v))

    def vectors(self, z: Tensor) -> Tensor:
        return torch.einsum("ncd,cdi->nci", z, self._rows.to(z))


# at some points of one factor, between parts (n, copies, size) and coordinates (n, copies, dimension)
_Basis = _Axes | _None | _Mirror | _Range


def _basis(factor: Manifold, point: Tensor) -> _Basis:
    if isinstance(factor, Sphere):
        return _Mirror(point)
    if isinstance(factor, Point):
        return _None(factor.size)
    return _Axes() if isinstance(factor, Euclidean) else _Range(factor, point)
