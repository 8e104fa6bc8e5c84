"""Manifolds as torch kernels that act on the last axis, batched over everything before it.

`Euclidean`, `Sphere` and `Point` are single factors; `Product` lays many of them over the columns of a vector, equal
ones in one tensor operation; `Bridge` takes any other manifold from geomstats, slowly. geomstats describes the same
manifolds for everything that need not be fast (Frechet means, tangent PCA), and is the oracle of the tests.
"""

from wsflow.manifolds.bridge import Bridge
from wsflow.manifolds.kernels import Euclidean, Manifold, Point, Sphere
from wsflow.manifolds.product import Product

__all__ = ["Bridge", "Euclidean", "Manifold", "Point", "Product", "Sphere"]
