"""The source of a WeightFlow: fitted, drawn, restored, or for another hidden width."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators.exchangeable import exchangeable_of_width, fit_exchangeable, restore_exchangeable
from wsflow.flow.covariance import covariance_of
from wsflow.flow.priors import Drawn, Isotropic, Prior, WrappedGaussian
from wsflow.geometry import GEOMETRIES, Geometry
from wsflow.metanetworks.encoders import knows_names
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.symmetry.canonical import canonical_action

if TYPE_CHECKING:
    from wsflow.estimators.flow import WeightFlow


def is_named(flow: WeightFlow) -> bool:
    """Whether a flow tells neurons apart by their names.

    Parameters
    ----------
    flow : WeightFlow
        With its geometry.

    Returns
    -------
    bool
    """
    return knows_names(flow.velocity, flow.geometry_.layout, flow.identity)


def prior_of(flow: WeightFlow, points: Tensor) -> Prior:
    """The source of a flow, fitted to points where it is one that is fitted.

    Parameters
    ----------
    flow : WeightFlow
    points : Tensor of shape (n, size)

    Returns
    -------
    Prior
    """
    kind, manifold, named = flow.prior, flow.geometry_.manifold, is_named(flow)
    if kind == "auto":
        kind = "gaussian" if named else "isotropic"
    if kind == "gaussian" and not named:
        raise ValueError(
            "prior='gaussian' knows each neuron by name, identity=None none of them. "
            "Use prior='isotropic', 'exchangeable' or 'initialisation', or identity='learned'."
        )
    if kind == "gaussian":
        return WrappedGaussian.fit(manifold, points, flow.shrinkage)
    if kind == "exchangeable":
        return fit_exchangeable(flow.geometry_, points, flow.shrinkage)
    if kind == "isotropic":
        return Isotropic(manifold, _pooled_scale(flow.geometry_.layout, points))
    if kind == "standard":
        return Isotropic(manifold, torch.ones(manifold.size, dtype=torch.float64))
    if flow.architecture_ is None:
        raise ValueError("prior='initialisation' draws networks, so it needs an architecture: fit a WeightArray.")
    draw = functools.partial(
        _initial_points,
        architecture=flow.architecture_,
        geometry=flow.geometry_,
        scheme=flow.initialisation,
        bias=flow.bias,
    )
    return Drawn(manifold, draw)


def restored_prior(flow: WeightFlow, arrays: dict[str, Tensor]) -> Prior:
    """The source of a saved flow.

    Parameters
    ----------
    flow : WeightFlow
    arrays : dict from str to Tensor
        What it is made of.

    Returns
    -------
    Prior
    """
    manifold = flow.geometry_.manifold
    if flow.prior == "exchangeable":
        return restore_exchangeable(flow.geometry_, arrays)
    if "mean" in arrays:
        mean = arrays.pop("mean")
        return WrappedGaussian(manifold, mean, covariance_of(arrays))
    if "scale" in arrays:
        return Isotropic(manifold, arrays["scale"])
    return prior_of(flow, torch.empty(0))


def _pooled_scale(layout: Architecture | None, points: Tensor) -> Tensor:
    """Root mean square of each parameter, the same for all its columns."""
    square = points.square().mean(0)
    for columns in layout.slices.values() if layout is not None else (slice(None),):
        square[columns] = square[columns].mean()
    return square.sqrt().clamp_min(1e-6)


def _initial_points(
    n: int, generator: torch.Generator, *, architecture: Architecture, geometry: Geometry, scheme: str, bias: Any
) -> Tensor:
    """Networks as they look before training, on the manifold."""
    weights = INITIALISATIONS[scheme](architecture, n, generator).double()
    if geometry.name in GEOMETRIES and geometry.name != "euclidean":
        weights = canonical_action(weights, architecture, bias)(weights)
    return geometry.target.projection(geometry.to_points(weights))


def prior_of_width(flow: WeightFlow, fitted: WeightFlow) -> Prior:
    """The source for another hidden width.

    Parameters
    ----------
    flow : WeightFlow
        Of the other width.
    fitted : WeightFlow

    Returns
    -------
    Prior
    """
    manifold, layout, known = flow.geometry_.manifold, flow.geometry_.layout, fitted.geometry_.layout
    if isinstance(fitted.prior_, WrappedGaussian):
        return exchangeable_of_width(fitted.prior_, fitted.geometry_, flow.geometry_)
    if layout is None or known is None or not isinstance(fitted.prior_, Isotropic):
        return prior_of(flow, torch.empty(0))
    scale = fitted.prior_.scale.new_ones(manifold.size)
    for name, columns in layout.slices.items():
        scale[columns] = fitted.prior_.scale[known.slices[name]].mean()
    scale[layout.n_weights :] = fitted.prior_.scale[known.n_weights :]
    return Isotropic(manifold, scale)
