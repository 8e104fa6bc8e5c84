"""The source of a flow over networks: fitted, drawn, restored, or for another hidden width."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.flow.covariance import covariance_of
from wsflow.flow.sources import Drawn, Isotropic, Source, WrappedGaussian
from wsflow.geometry import GEOMETRIES, Geometry
from wsflow.mapped import chunks
from wsflow.models.exchangeable import exchangeable_of_width, fit_exchangeable, restore_exchangeable
from wsflow.models.options import ExchangeableSource, GaussianSource, InitialSource, IsotropicSource, NetworkGeometry
from wsflow.options import Options
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.symmetry.canonical import canonical_action


def fit_source(options: Options, geometry: Geometry, space: NetworkGeometry, points: Tensor) -> Source:
    """Return the source at t = 0 of a parameter object, fitted to points (n, size) where it has something to fit."""
    manifold = geometry.manifold
    if isinstance(options, ExchangeableSource):
        return fit_exchangeable(geometry, points, options.shrinkage)
    if isinstance(options, GaussianSource):
        return WrappedGaussian.fit(manifold, points, options.shrinkage)
    if isinstance(options, IsotropicSource):
        is_fitted = options.scale == "fitted"
        scale = _pooled_scale(geometry, points) if is_fitted else torch.ones(manifold.size, dtype=torch.float64)
        return Isotropic(manifold, scale)
    if not isinstance(options, InitialSource):
        raise TypeError(f"No source is made of {options!r}.")
    if geometry.architecture is None:
        raise ValueError("source='initialisation' draws networks, so it needs an architecture: fit a WeightArray.")
    draw = functools.partial(
        _initial_points,
        architecture=geometry.architecture,
        geometry=geometry,
        scheme=options.scheme,
        bias=space.bias,
    )
    return Drawn(manifold, draw)


def restored_source(options: Options, geometry: Geometry, space: NetworkGeometry, arrays: dict[str, Tensor]) -> Source:
    """Restore a source from its `Source.arrays`."""
    if isinstance(options, ExchangeableSource):
        return restore_exchangeable(geometry, arrays)
    if "mean" in arrays:
        covariance = {name: array for name, array in arrays.items() if name != "mean"}
        return WrappedGaussian(geometry.manifold, arrays["mean"], covariance_of(covariance))
    if "scale" in arrays:
        return Isotropic(geometry.manifold, arrays["scale"])
    return fit_source(options, geometry, space, torch.empty(0))


def source_of_width(
    options: Options, fitted: Source, known: Geometry, geometry: Geometry, space: NetworkGeometry
) -> Source:
    """Return the source for the same layers with other hidden widths."""
    if isinstance(fitted, WrappedGaussian):
        return exchangeable_of_width(fitted, known, geometry)
    if geometry.layout is None or known.layout is None or not isinstance(fitted, Isotropic):
        return fit_source(options, geometry, space, torch.empty(0))
    scale = fitted.scale.new_ones(geometry.manifold.size)
    for name, columns in geometry.layout.slices.items():
        scale[columns] = fitted.scale[known.layout.slices[name]].mean()
    scale[geometry.layout.n_weights :] = fitted.scale[known.layout.n_weights :]
    return Isotropic(geometry.manifold, scale)


def _pooled_scale(geometry: Geometry, points: Tensor) -> Tensor:
    """Root mean square of each parameter, the same for all its columns; those that do not vary are left out."""
    square = torch.stack([points[rows].square().sum(0) for rows in chunks(*points.shape)]).sum(0) / len(points)
    varies = torch.zeros(geometry.manifold.size, dtype=torch.bool)
    varies[geometry.manifold.varying] = True
    for columns in geometry.layout.slices.values() if geometry.layout is not None else (slice(None),):
        square[columns] = square[columns][varies[columns]].mean().nan_to_num()
    return square.sqrt().clamp_min(1e-6)


def _initial_points(
    n: int, generator: torch.Generator, *, architecture: Architecture, geometry: Geometry, scheme: str, bias: Any
) -> Tensor:
    """Networks as they look before training, on the manifold."""
    weights = INITIALISATIONS[scheme](architecture, n, generator).double()
    if geometry.name in GEOMETRIES and geometry.name != "euclidean":
        weights = canonical_action(weights, architecture, bias)(weights)
    return geometry.target.projection(geometry.to_points(weights))
