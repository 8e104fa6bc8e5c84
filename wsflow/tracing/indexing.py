"""Rules for tables and graphs (embeddings, gathering, scattering), and for new tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor
from wsflow.tracing.pointwise import pointwise
from wsflow.tracing.trace import Trace


def embedding(t: Trace, weight: AbstractTensor, indices: AbstractTensor, **_: Any) -> AbstractTensor:
    """Look up rows of a table: the rows are fixed, the columns may be neurons."""
    return gather(t, weight, 0, indices)


def gather(t: Trace, input: AbstractTensor, dim: int, index: AbstractTensor) -> AbstractTensor:
    """Choose coordinates of a dimension by an index that is computed or given."""
    dim %= len(input.shape)
    t.constraints.fix_on(input, [dim])
    place = {d: d if d < dim else d + len(index.shape) - 1 for d in range(len(input.shape)) if d != dim}
    axes = tuple(axis.renamed(place) for axis in input.axes if dim not in axis.dims)
    shape = (*input.shape[:dim], *index.shape, *input.shape[dim + 1 :])
    constant = frozenset(place[d] for d in input.constant if d != dim)
    return replace(input.generic(), shape=shape, axes=axes, constant=constant)


def index_tensors(t: Trace, input: AbstractTensor, indices: Sequence[Any]) -> AbstractTensor:
    """Index x[:, i] with one tensor of indices; with several, no symmetry acts."""
    indexed = [dim for dim, index in enumerate(indices) if index is not None]
    if len(indexed) == 1:
        return gather(t, input, indexed[0], indices[indexed[0]])
    return t.opaque([input, *(index for index in indices if index is not None)])


def scatter(
    t: Trace, input: AbstractTensor, dim: int, index: AbstractTensor, src: Any = None, source: Any = None, **_: Any
) -> AbstractTensor:
    """Add (or average) rows into rows, which scale alike."""
    added = src if isinstance(src, AbstractTensor) else source
    if not isinstance(added, AbstractTensor):
        return t.opaque([input, index])
    dim %= len(input.shape)
    for tensor in (input, added):
        t.constraints.fix_on(tensor, [dim])
    row = reshaping.take(t.constraints, added, dim, np.zeros(1, dtype=np.int64))
    row = replace(row, axes=tuple(axis for axis in row.axes if dim not in axis.dims))
    return pointwise(t, [input, row], None).generic()


def triangular(t: Trace, input: AbstractTensor, **_: Any) -> AbstractTensor:
    """Take half of a matrix, along whose dimensions neurons are fixed."""
    rank = len(input.shape)
    for axis in input.axes_on([rank - 2, rank - 1]):
        t.constraints.fix(axis.atoms)
    return replace(input.generic(), constant=input.constant - {rank - 2, rank - 1})


def fixed(t: Trace, **_: Any) -> AbstractTensor:
    """Make numbers that have nothing to do with neurons: ranges, positions."""
    return AbstractTensor(t.shape)


def constant(t: Trace, **_: Any) -> AbstractTensor:
    """Make a tensor with one number everywhere."""
    return AbstractTensor(t.shape, constant=frozenset(range(len(t.shape))))


def zeros(t: Trace, **_: Any) -> AbstractTensor:
    """Make zeros."""
    return replace(constant(t), zero=True)


def full(t: Trace, fill_value: Any, **_: Any) -> AbstractTensor:
    """Make a tensor with this number everywhere."""
    return replace(constant(t), zero=fill_value == 0)


def fill(t: Trace, input: AbstractTensor, value: Any) -> AbstractTensor:
    """Write a number everywhere."""
    return full(t, value) if not isinstance(value, AbstractTensor) else constant(t)
