"""Products without the columns that are equal in all networks."""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.manifolds import Euclidean, Manifold, Point, Product, Sphere


def restricted(product: Product, constant: Tensor) -> Product:
    """The product with a point in place of the constant columns (size,).

    Points of a sphere that agree in some coordinates lie on a sphere of the others. Where one coordinate is left, it is
    a number: no flow moves on a sphere of two points.
    """
    if not constant.any():
        return product
    factors: list[tuple[Manifold, Tensor]] = []
    flat: list[Tensor] = []
    for manifold, columns in product.factors:
        rows = [row[~constant[row]] for row in columns]
        if isinstance(manifold, Sphere):
            sizes = sorted({len(row) for row in rows} - {0, 1})
            factors += [(Sphere(size), torch.stack([row for row in rows if len(row) == size])) for size in sizes]
            flat += [row for row in rows if len(row) == 1]
        elif isinstance(manifold, Euclidean):
            flat += rows
        else:
            kept = torch.tensor([len(row) > 0 for row in rows])
            factors += [(manifold, columns[kept])] if kept.any() else []
    free = torch.cat([torch.empty(0, dtype=torch.long), *flat]).sort().values
    if len(free):
        factors.append((Euclidean(len(free)), free.unsqueeze(0)))
    fixed = constant.nonzero().squeeze(1)
    return Product([*factors, (Point(len(fixed)), fixed.unsqueeze(0))])


def separable(product: Product, constant: Tensor) -> Tensor:
    """The constant columns (size,) without those of a manifold whose points have other columns that are not.

    Spheres and vector spaces can do without some of their coordinates, other manifolds cannot.
    """
    constant = constant.clone()
    for manifold, columns in product.factors:
        if not isinstance(manifold, (Euclidean, Sphere)):
            constant[columns[~constant[columns].all(1)]] = False
    return constant


def flat_columns(product: Product) -> Tensor:
    """The columns (k,) that lie in a vector space, in order."""
    found = [columns.reshape(-1) for manifold, columns in product.factors if isinstance(manifold, Euclidean)]
    return torch.cat([torch.empty(0, dtype=torch.long), *found]).sort().values
