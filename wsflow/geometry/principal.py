"""Principal components as coordinates: a flow in the span of its training networks, for networks of many weights.

Of n networks with d weights, n - 1 components describe all differences. They are found from the n x n matrix of scalar
products where n is smaller than d, so that no d x d matrix is made. The components are orthonormal: lengths are those
of weights.

References
----------
Turk and Pentland 1991, "Eigenfaces for recognition" (components from scalar products); DeepWeightFlow, ICLR 2026 (flows
over weights in principal components).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from wsflow.exceptions import InvalidInputError
from wsflow.geometry.coordinates import Coordinates, PrincipalCoordinates
from wsflow.geometry.fitting import column_mean, with_coordinates
from wsflow.geometry.geometry import Geometry
from wsflow.manifolds import Euclidean, Product
from wsflow.mapped import chunks
from wsflow.memory import check_memory

# numbers of the columns that are in double precision at once
CHUNK_NUMBERS = 2**22
# of the largest standard deviation: what is smaller is rounding of the scalar products
SMALLEST = 1e-6


def fit_principal(geometry: Geometry, weights: Tensor, n_components: int) -> Geometry:
    """Return a Euclidean geometry in the principal components of networks (n, d), as many as they have at most."""
    centre = column_mean(weights[rows].double() for rows in chunks(*weights.shape))
    rounding = 4 * torch.finfo(weights.dtype).eps * torch.linalg.vector_norm(centre)
    basis = _components(weights, centre, n_components, float(len(weights) * rounding**2))
    if not len(basis):
        raise InvalidInputError(
            f"All {len(weights)} networks are equal: there is no distribution to learn. Pass different networks."
        )
    return with_principal(geometry, PrincipalCoordinates(centre, basis))


def with_principal(geometry: Geometry, coordinates: PrincipalCoordinates) -> Geometry:
    """Return a Euclidean geometry in given components."""
    k = len(coordinates.basis)
    manifold = Product([(Euclidean(k), torch.arange(k).unsqueeze(0))])
    return replace(geometry, manifold=manifold, target=manifold, layout=None, coordinates=coordinates, base=geometry)


def with_arrays(geometry: Geometry, arrays: Mapping[str, Tensor]) -> Geometry:
    """Return a geometry in the coordinates of which `arrays` are the fields."""
    if "basis" in arrays:
        # in memory of torch's own, whose products have the same bits
        return with_principal(geometry, PrincipalCoordinates(**{name: array.clone() for name, array in arrays.items()}))
    return with_coordinates(geometry, Coordinates(**arrays))


def _columns(weights: Tensor, centre: Tensor) -> Iterator[Tensor]:
    """Yield all columns of weights (n, d) in double precision, a few at a time, from a centre (d,)."""
    size = max(1, CHUNK_NUMBERS // len(weights))
    for start in range(0, weights.shape[1], size):
        yield weights[:, start : start + size].double() - centre[start : start + size]


def _components(weights: Tensor, centre: Tensor, n_components: int, smallest: float) -> Tensor:
    """The first principal components (components, d), in single precision."""
    n, d = weights.shape
    if n > d:
        scatter = torch.zeros(d, d, dtype=torch.float64)
        for rows in chunks(n, d):
            away = weights[rows].double() - centre
            scatter += away.T @ away
        return _leading(scatter, min(n_components, d), smallest)[1].T.float().contiguous()
    check_memory(
        f"The scalar products of {n} networks",
        2 * 8 * n**2,
        "Fit the components to fewer networks, with weights[::10].",
    )
    products = torch.zeros(n, n, dtype=torch.float64)
    for part in _columns(weights, centre):
        products += part @ part.T
    values, vectors = _leading(products, min(n_components, n - 1), smallest)
    mix = (vectors / values.sqrt()).T
    return torch.cat([(mix @ part).float() for part in _columns(weights, centre)], 1)


def _leading(symmetric: Tensor, count: int, smallest: float) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues (k,) and their vectors (size, k), without those that are rounding."""
    values, vectors = torch.linalg.eigh(symmetric)
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    kept = values > max(smallest, SMALLEST**2 * float(values[0]))
    return values[kept], vectors[:, kept]
