"""Manifolds of one's own, by name of the parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch

from wsflow.architecture import Architecture, Parameter
from wsflow.geometry.products import Factor
from wsflow.manifolds import Bridge, Manifold


def factors_of_blocks(architecture: Architecture, blocks: Mapping[str, Any]) -> Iterator[Factor]:
    """Manifolds with the columns of the parameters that are points of them.

    Parameters
    ----------
    architecture : Architecture
    blocks : mapping from str to manifold
        By name of the parameter: a space of geomstats, or a `Manifold`.

    Yields
    ------
    manifold : Manifold
    columns : LongTensor of shape (copies, size)

    Raises
    ------
    ValueError
        If there is no such parameter, or its shape does not end with that of a point.
    """
    for name, manifold in blocks.items():
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


def check_apart(architecture: Architecture, blocks: Mapping[str, Any]) -> None:
    """Refuse manifolds of one's own in an output layer that is on a sphere already.

    Parameters
    ----------
    architecture : Architecture
    blocks : mapping from str to manifold

    Raises
    ------
    ValueError
    """
    twice = [name for name in blocks if name in architecture.outputs]
    if twice:
        raise ValueError(
            f"The parameter {twice[0]!r} has a manifold of its own, and is part of the output layer, which "
            "last_layer='polar' puts on a sphere. Use last_layer='euclidean'."
        )
