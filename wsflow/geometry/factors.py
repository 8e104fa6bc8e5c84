"""The factors of a product manifold: manifolds with the columns (copies, size) that are points of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture, Parameter
from wsflow.geometry.charts import Chart, Polar
from wsflow.manifolds import Bridge, Euclidean, Manifold, Product

Factor = tuple[Manifold, Tensor]


def product_of(n_weights: int, factors: Sequence[Factor], charts: Sequence[Chart]) -> Product:
    """Return the product of factors, of the charts' factors, and of a vector space for all other columns."""
    found, size = list(factors), n_weights
    for chart in charts:
        found += chart.factors(size)
        size += chart.n_extra
    covered = torch.zeros(size, dtype=torch.bool)
    for _, columns in found:
        covered[columns.reshape(-1)] = True
    rest = (~covered).nonzero().squeeze(1)
    return Product([*found, (Euclidean(len(rest)), rest.unsqueeze(0))] if len(rest) else found)


def polar_of(architecture: Architecture, last_layer: str) -> list[Polar]:
    """Return the chart of the output layer, or none where `last_layer` is "euclidean"."""
    return [Polar(torch.from_numpy(architecture.output_columns))] if last_layer == "polar" else []


def factors_of(architecture: Architecture, manifolds: Mapping[str, Any]) -> Iterator[Factor]:
    """Yield the factors of the parameters that have a manifold of their own, by name.

    Raises
    ------
    ValueError
        If there is no such parameter, or its shape does not end with that of a point.
    """
    for name, manifold in manifolds.items():
        parameter = next((p for p in architecture.parameters if p.name == name), None)
        if parameter is None:
            raise ValueError(
                f"The geometry names the parameter {name!r}, which this architecture does not have: it has "
                f"{', '.join(architecture.names)}."
            )
        factor: Manifold = manifold if hasattr(manifold, "geodesic") else Bridge(manifold)
        shape = factor.shape if isinstance(factor, Bridge) else (factor.size,)
        _check_shape(parameter, manifold, shape)
        columns = architecture.slices[name]
        yield factor, torch.arange(columns.start, columns.stop).reshape(-1, prod(shape))


def _check_shape(parameter: Parameter, manifold: Any, shape: tuple[int, ...]) -> None:
    if parameter.shape[-len(shape) :] != shape:
        raise ValueError(
            f"The parameter {parameter.name!r} has the shape {parameter.shape}, which does not end with that of a "
            f"point of its {type(manifold).__name__}, {shape}. Use a manifold whose points are its last axes."
        )


def check_outputs(architecture: Architecture, manifolds: Mapping[str, Any]) -> None:
    """Refuse manifolds for parameters of an output layer that is on a sphere already."""
    twice = [name for name in manifolds if name in architecture.outputs]
    if twice:
        raise ValueError(
            f"The parameter {twice[0]!r} has a manifold of its own, and is part of the output layer, which "
            "last_layer='polar' puts on a sphere. Use last_layer='euclidean'."
        )
