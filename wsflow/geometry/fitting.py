"""Coordinates that are fitted to a population.

A flow that learns numbers of very different sizes learns the large ones. Plain vectors are therefore standardized,
column by column. Networks keep the metric of their weights, in which spheres have the radius 1, as long as the means
and standard deviations of all columns are within a factor of `RANGE` of each other and of 1: a trained velocity is
wrong by about a thousandth of its largest values. Beyond it, columns that lie in a vector space are standardized too,
or get the unit of their parameter, where neurons have no names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from wsflow.exceptions import InvalidInputError
from wsflow.geometry.coordinates import Coordinates
from wsflow.geometry.geometry import Geometry
from wsflow.manifolds import Euclidean, Manifold, Point, Product, Sphere
from wsflow.mapped import chunks

RANGE = 1024.0
# rows (m, k) of a whole that need not fit into memory, from the first ones at each call
Parts = Callable[[], Iterator[Tensor]]


def fit_coordinates(geometry: Geometry, weights: Tensor, is_named: bool = True) -> Geometry:
    """Return the geometry in coordinates that are fitted to networks.

    It is the geometry itself where no weight is equal in all networks, and the scales of networks are within the range.
    Weights of networks that differ by the rounding of their dtype are equal, to those of the first one.

    Parameters
    ----------
    geometry : Geometry
    weights : Tensor of shape (n, d)
    is_named : bool
        Whether the flow tells neurons apart.

    Examples
    --------
    >>> import torch
    >>> from wsflow.geometry import fit_coordinates, vectors
    >>> rows = torch.tensor([[7.0, -1000.0], [7.0, 1000.0]], dtype=torch.float64)
    >>> geometry = fit_coordinates(vectors(2), rows)
    >>> geometry.to_points(rows).tolist(), geometry.manifold.dimension
    ([[0.0, -1.0], [0.0, 1.0]], 1)
    """
    # networks that were moved in their orbits are equal up to rounding
    rounding = 0.0 if geometry.architecture is None else 4 * torch.finfo(weights.dtype).eps
    same = _equal(_parts(weights), rounding)
    if same.all():
        raise InvalidInputError(
            f"All {len(weights)} networks are equal: there is no distribution to learn. Pass different networks."
        )
    points = _parts(weights, replace(geometry, charts=geometry.charts_without(same)))
    first = next(points())[0]
    constant = _separable(geometry.target, _equal(points, rounding))
    same &= constant[: len(same)]
    centre, scale = torch.zeros_like(first), _radii(geometry.target, points, first, constant)
    spaces = [x.reshape(-1) for m, x in _restricted(geometry.target, constant).factors if isinstance(m, Euclidean)]
    flat = torch.cat([torch.empty(0, dtype=torch.long), *spaces]).sort().values
    centre[flat], scale[flat] = _units(points, flat, geometry, is_named)
    centre[constant] = first[constant]
    if not constant.any() and (scale == 1).all() and (centre == 0).all():
        return geometry
    columns = same.nonzero().squeeze(1)
    return with_coordinates(geometry, Coordinates(centre, scale, constant, columns, weights[0].double()[columns]))


def with_coordinates(geometry: Geometry, coordinates: Coordinates) -> Geometry:
    """Return a geometry in given coordinates."""
    same = torch.zeros(geometry.n_weights, dtype=torch.bool)
    same[coordinates.columns] = True
    target = _restricted(geometry.target, coordinates.constant)
    is_one = geometry.manifold is geometry.target
    return replace(
        geometry,
        manifold=target if is_one else _restricted(geometry.manifold, coordinates.constant),
        target=target,
        charts=geometry.charts_without(same),
        coordinates=coordinates,
        base=geometry,
    )


def with_coordinates_of(geometry: Geometry, fitted: Geometry) -> Geometry:
    """Return a geometry in the coordinates of another one for the same layers with other hidden widths.

    A ValueError says that some weights are equal in all networks, which does not say what they are at another width.
    """
    known = fitted.coordinates
    if not isinstance(known, Coordinates) or fitted.layout is None or geometry.layout is None:
        return geometry
    size = geometry.manifold.size
    centre, scale, constant = known.centre.new_zeros(size), known.scale.new_ones(size), torch.zeros(size).bool()
    before, after = (slice(g.manifold.size - g.n_extra, g.manifold.size) for g in (fitted, geometry))
    pairs = [(name, fitted.layout.slices[name], new) for name, new in geometry.layout.slices.items()]
    for name, old, new in [*pairs, ("the output layer's norm", before, after)]:
        for found, given in ((centre, known.centre), (scale, known.scale), (constant, known.constant)):
            found[new] = _of_width(given[old], new.stop - new.start, name)
    columns = constant[: geometry.n_weights].nonzero().squeeze(1)
    return with_coordinates(geometry, Coordinates(centre, scale, constant, columns, centre[columns]))


def _parts(weights: Tensor, geometry: Geometry | None = None) -> Parts:
    """All networks (n, d) in double precision, a few at a time, or their points in a geometry."""

    def parts() -> Iterator[Tensor]:
        for rows in chunks(*weights.shape):
            part = weights[rows].double()
            yield part if geometry is None else geometry.to_points(part)

    return parts


def _equal(parts: Parts, rounding: float) -> Tensor:
    """Which columns (k,) are equal in all rows, up to rounding."""
    ranges = [(part.amin(0), part.amax(0)) for part in parts()]
    low, high = (torch.stack(ends) for ends in zip(*ranges, strict=True))
    smallest, largest = low.amin(0), high.amax(0)
    return largest - smallest <= rounding * torch.maximum(largest.abs(), smallest.abs())


def _of_width(values: Tensor, size: int, name: str) -> Tensor:
    if len(values) == size:
        return values
    if (values == values[0]).all():
        return values[:1].expand(size)
    raise ValueError(
        f"Some weights of {name!r} are equal in all networks that the flow was fitted to, which does not say what they "
        "are at another width. Sample networks of the flow's own width."
    )


def _radii(target: Product, points: Parts, first: Tensor, constant: Tensor) -> Tensor:
    """The scale (size,) of the columns on spheres: what is left of the radius 1 where other columns are constant."""
    scale = torch.ones_like(first)
    for manifold, columns in target.factors:
        for row in columns if isinstance(manifold, Sphere) else ():
            rest = row[~constant[row]]
            if len(rest) > 1 and (first[row[constant[row]]] != 0).any():
                lengths = (torch.linalg.vector_norm(part[:, rest], dim=1, keepdim=True) for part in points())
                scale[rest] = column_mean(lengths)
    return scale


def _units(points: Parts, flat: Tensor, geometry: Geometry, is_named: bool) -> tuple[Tensor, Tensor]:
    """The centre and the scale of the columns `flat` (k,) of a vector space."""
    mean, deviation = moments(lambda: (part[:, flat] for part in points()))
    if geometry.layout is None:
        return mean, deviation
    if not is_named:
        mean, deviation = torch.zeros_like(mean), _pooled(torch.hypot(mean, deviation), flat, geometry)
    one = mean.new_ones(1)
    if torch.cat([deviation, mean.abs(), one]).max() <= RANGE * torch.cat([deviation, one]).min():
        return torch.zeros_like(mean), torch.ones_like(mean)
    return mean, deviation


def _pooled(rms: Tensor, flat: Tensor, geometry: Geometry) -> Tensor:
    """The root mean square of the columns of each parameter, from those of each column."""
    sizes = [] if geometry.layout is None else [parameter.size for parameter in geometry.layout.parameters]
    sizes += [1] * geometry.n_extra
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[flat]
    total = rms.new_zeros(len(sizes)).index_add_(0, owner, rms.square())
    return (total / torch.bincount(owner, minlength=len(sizes)))[owner].sqrt()


def moments(parts: Parts) -> tuple[Tensor, Tensor]:
    """Return the means and standard deviations of columns (k,), without squares that leave the range of numbers.

    A standard deviation is at least the rounding of the column's largest number.
    """
    size = _largest(parts())
    limits = torch.finfo(size.dtype)
    mean = column_mean(part / size for part in parts())
    largest = _largest(part / size - mean for part in parts())
    variance = column_mean(((part / size - mean) / largest).square() for part in parts())
    return size * mean, size * (largest * variance.sqrt()).clamp_min(limits.eps)


def column_mean(parts: Iterable[Tensor]) -> Tensor:
    """Return the means (k,) of columns."""
    sums, n = [], 0
    for part in parts:
        sums.append(part.sum(0))
        n += len(part)
    return torch.stack(sums).sum(0) / n


def _largest(parts: Iterable[Tensor]) -> Tensor:
    """The largest absolute value (k,) of columns, above zero."""
    found = torch.stack([part.abs().amax(0) for part in parts]).amax(0)
    return found.clamp_min(torch.finfo(found.dtype).tiny)


def _restricted(product: Product, constant: Tensor) -> Product:
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


def _separable(product: Product, constant: Tensor) -> Tensor:
    """The constant columns (size,) without those of a manifold whose points have other columns that are not.

    Spheres and vector spaces can do without some of their coordinates, other manifolds cannot.
    """
    constant = constant.clone()
    for manifold, columns in product.factors:
        if not isinstance(manifold, (Euclidean, Sphere)):
            constant[columns[~constant[columns].all(1)]] = False
    return constant
