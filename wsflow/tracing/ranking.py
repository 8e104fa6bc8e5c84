"""Rules for what depends on order: sorting, the largest k, positions, and choices by an index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, distinct
from wsflow.tracing.pointwise import pointwise
from wsflow.tracing.trace import Trace, scaleless


def ranked(t: Trace, input: AbstractTensor, dim: int = -1, **_: Any) -> Any:
    """Sort, or take the largest k, along a dimension, whose neurons are fixed: experts, where that routes."""
    dim %= max(1, len(input.shape))
    t.constraints.forbid_scaling(input)
    input = t.constraints.fix_on(input, [dim]).mixed([dim])
    labels = [own for own in input.labels if dim not in own.dims]
    if len(t.shape) == len(input.shape):
        values = AbstractTensor(tuple(t.shape), input.axes, (*labels, *distinct(t.shape, [dim])))
    else:
        place = {d: d - (d > dim) for d in range(len(input.shape))}
        axes = tuple(axis.renamed(place) for axis in input.axes)
        values = AbstractTensor(tuple(t.shape), axes, tuple(own.renamed(place) for own in labels))
    return [values, scaleless(values)] if t.n_results > 1 else values


def position(t: Trace, input: AbstractTensor, dim: int | None = None, **_: Any) -> AbstractTensor:
    """Take the position of a maximum: neurons along the dimension have numbers."""
    if dim is None:
        return t.opaque([input])
    result: AbstractTensor = ranked(t, input, dim)
    return scaleless(result)


def gather(t: Trace, input: AbstractTensor, dim: int, index: AbstractTensor, **_: Any) -> AbstractTensor:
    """Choose coordinates along a dimension, by an index with as many dimensions: all others go along."""
    dim %= len(input.shape)
    input = t.constraints.fix_on(input, [dim])
    for d, size in enumerate(index.shape):
        if d != dim and size < input.shape[d]:
            input = reshaping.take(t.constraints, input, d, np.arange(size))
    shape = (*input.shape[:dim], index.shape[dim], *input.shape[dim + 1 :])
    labels = tuple(own for own in input.mixed([dim]).labels if dim not in own.dims)
    chosen = replace(input.generic(), shape=shape, labels=(*labels, *distinct(shape, [dim])))
    return pointwise(t, [chosen, scaleless(index)], [1, 1])
