"""Products of manifolds over the columns of a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from wsflow.devices import placed
from wsflow.manifolds.kernels import Euclidean, Manifold


@dataclass(frozen=True, eq=False)
class Product:
    """A product of manifolds over the columns of a vector; the methods of `Manifold` act factor by factor.

    Parameters
    ----------
    factors : sequence of (Manifold, LongTensor of shape (copies, size))
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

    factors: Sequence[tuple[Manifold, Tensor]]

    @classmethod
    def of(cls, *manifolds: Manifold) -> Product:
        """The product of manifolds that lie side by side, each on the columns after those of the one before.

        Examples
        --------
        >>> from wsflow.manifolds import Euclidean, Product, Sphere
        >>> Product.of(Sphere(3), Euclidean(2)).size
        5
        """
        starts = accumulate((manifold.size for manifold in manifolds), initial=0)
        return cls([(m, torch.arange(a, a + m.size).unsqueeze(0)) for m, a in zip(manifolds, starts, strict=False)])

    def __post_init__(self) -> None:
        columns = self.order.sort().values
        if not torch.equal(columns, torch.arange(len(columns))):
            raise ValueError("The factors of a Product must cover every column once.")

    @cached_property
    def order(self) -> Tensor:
        """The columns (size,), factor after factor."""
        return torch.cat([columns.reshape(-1) for _, columns in self.factors])

    @property
    def varying(self) -> Tensor:
        """The columns (k,) of factors whose dimension is not zero, factor after factor."""
        return torch.cat([columns.reshape(-1) for manifold, columns in self.factors if manifold.dimension])

    @cached_property
    def _back(self) -> Tensor:
        return self.order.argsort()

    @property
    def size(self) -> int:
        return len(self.order)

    @property
    def dimension(self) -> int:
        return sum(manifold.dimension * len(columns) for manifold, columns in self.factors)

    @cached_property
    def is_flat(self) -> bool:
        """Whether all factors are Euclidean."""
        return all(isinstance(manifold, Euclidean) for manifold, _ in self.factors)

    def split(self, x: Tensor) -> list[Tensor]:
        """Return the coordinates (..., copies, factor size) of each factor, from x (..., size)."""
        sizes = [columns.numel() for _, columns in self.factors]
        parts = x.index_select(-1, placed(self.order, x.device)).split(sizes, -1)
        return [
            part.unflatten(-1, tuple(columns.shape)) for part, (_, columns) in zip(parts, self.factors, strict=True)
        ]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the inverse of `split`, of shape (..., size)."""
        flat = torch.cat([part.flatten(-2) for part in parts], -1)
        return flat.index_select(-1, placed(self._back, flat.device))

    def _map(self, name: str, *arguments: Tensor) -> Tensor:
        pieces = zip(self.factors, *(self.split(a) for a in arguments), strict=True)
        return self.join([getattr(manifold, name)(*xs) for (manifold, _), *xs in pieces])

    def projection(self, x: Tensor) -> Tensor:
        return x if self.is_flat else self._map("projection", x)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v if self.is_flat else self._map("to_tangent", x, v)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v if self.is_flat else self._map("exp", x, v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x if self.is_flat else self._map("log", x, y)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        pieces = zip(self.factors, self.split(x), self.split(y), strict=True)
        points, velocities = zip(*(manifold.geodesic(a, b, t) for (manifold, _), a, b in pieces), strict=True)
        return self.join(points), self.join(velocities)

    def belongs(self, x: Tensor, atol: float) -> Tensor:
        """Return whether each point (..., size) is on the product, up to atol."""
        inside = [m.belongs(p, atol).all(-1) for (m, _), p in zip(self.factors, self.split(x), strict=True)]
        return torch.stack(inside).all(0)

    def geomstats(self) -> Any:
        """Return the same manifold as a geomstats ProductManifold; its points are the columns `varying`."""
        from geomstats.geometry.product_manifold import ProductManifold

        factors = [manifold.geomstats() for manifold, columns in self.factors if manifold.dimension for _ in columns]
        return ProductManifold(factors, point_ndim=1)
