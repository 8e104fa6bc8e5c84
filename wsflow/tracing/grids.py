"""Rules for images, tables and graphs: pooling, shuffling, embeddings, gathering; and for new tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wsflow.tracing import shapes
from wsflow.tracing.labels import Label, Leg, contract
from wsflow.tracing.operations import pointwise
from wsflow.tracing.recording import Recorder


def spatial(t: Recorder, input: Label, **_: Any) -> Any:
    """Means and interpolations over pixels: linear, so that scales and signs pass."""
    return _resized(t, input, signs=True)


def max_pool(t: Recorder, input: Label, **_: Any) -> Any:
    """Maxima over pixels: positive scalings pass, signs do not."""
    result = _resized(t, input, signs=False)
    return [result, t.scaleless(result)] if t.n_results > 1 else result


def _resized(t: Recorder, input: Label, signs: bool) -> Label:
    shape = t.shape
    moved = [dim for dim in range(len(shape)) if shape[dim] != input.shape[dim] or dim >= 2]
    constant = input.constant - {dim for dim in moved if shape[dim] > 1}
    result = replace(input.plain(), shape=tuple(shape), constant=constant)
    if not signs:
        for leg in input.legs:
            t.ledger.still(leg, positive=False)
    if input.touching(moved):
        return replace(result, legs=_whole(t, t.ledger.settled(input), moved))
    return replace(result, legs=input.legs)


def _whole(t: Recorder, input: Label, moved: Sequence[int]) -> tuple[Leg, ...]:
    """Neurons that range over pixels have their places there, in channels that move as wholes."""
    others = [dim for dim in range(len(input.shape)) if dim not in moved]
    places = Label(tuple(input.shape[dim] for dim in moved))
    operands = [(input, range(len(input.shape))), (places, moved)]
    return tuple(leg.on(others) for leg in contract(t.ledger, operands, others, [1, 1]).legs)


def pixel_shuffle(t: Recorder, input: Label, upscale_factor: int) -> Label:
    """Channels to pixels."""
    *batch, channels, height, width = input.shape
    r, n = upscale_factor, len(batch)
    split = shapes.reshape(t.ledger, input, (*batch, channels // r**2, r, r, height, width))
    moved = shapes.permute(split, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return shapes.reshape(t.ledger, moved, (*batch, channels // r**2, height * r, width * r))


def pixel_unshuffle(t: Recorder, input: Label, downscale_factor: int) -> Label:
    """Pixels to channels."""
    *batch, channels, height, width = input.shape
    r, n = downscale_factor, len(batch)
    split = shapes.reshape(t.ledger, input, (*batch, channels, height // r, r, width // r, r))
    moved = shapes.permute(split, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return shapes.reshape(t.ledger, moved, (*batch, channels * r**2, height // r, width // r))


def embedding(t: Recorder, weight: Label, indices: Label, **_: Any) -> Label:
    """Rows of a table: the rows have their places, the columns may be neurons."""
    return gathered(t, weight, 0, indices)


def gathered(t: Recorder, input: Label, dim: int, index: Label) -> Label:
    """Rows chosen by an index that is computed or given."""
    dim %= len(input.shape)
    for leg in input.touching([dim]):
        t.ledger.pin(leg.atoms)
        t.ledger.still(leg)
    n = len(index.shape)
    kept = tuple(leg for leg in input.legs if dim not in leg.dims)
    place = [d if d < dim else d + n - 1 for d in range(len(input.shape))]
    legs = tuple(replace(leg, dims=tuple(place[d] for d in leg.dims)) for leg in kept)
    shape = (*input.shape[:dim], *index.shape, *input.shape[dim + 1 :])
    constant = frozenset(place[d] for d in input.constant if d != dim)
    return replace(input.plain(), shape=shape, legs=legs, constant=constant)


def index_select(t: Recorder, input: Label, dim: int, index: Label) -> Label:
    """Rows of a graph's nodes, or tokens."""
    return gathered(t, input, dim, index)


def indexing(t: Recorder, input: Label, indices: Sequence[Any]) -> Label:
    """x[:, i] with one tensor of indices; with several, no symmetry acts."""
    places = [dim for dim, index in enumerate(indices) if index is not None]
    if len(places) == 1:
        return gathered(t, input, places[0], indices[places[0]])
    return t.opaque([input, *(i for i in indices if i is not None)])


def scattered(
    t: Recorder, input: Label, dim: int, index: Label, src: Any = None, source: Any = None, **_: Any
) -> Label:
    """Sums (or means) into rows: what is added scales as what it is added to."""
    added = src if isinstance(src, Label) else source
    if not isinstance(added, Label):
        return t.opaque([input, index])
    dim %= len(input.shape)
    for label in (input, added):
        for leg in label.touching([dim]):
            t.ledger.pin(leg.atoms)
            t.ledger.still(leg)
    row = shapes.take(t.ledger, added, dim, np.zeros(1, dtype=np.int64))
    row = replace(row, legs=tuple(leg for leg in row.legs if dim not in leg.dims))
    return pointwise(t, [input, row], None).plain()


def fixed(t: Recorder, **_: Any) -> Label:
    """New numbers that have nothing to do with neurons: ranges, positions."""
    return Label(t.shape)


def constant(t: Recorder, **_: Any) -> Label:
    """Ones, or another number everywhere."""
    return Label(t.shape, constant=frozenset(range(len(t.shape))))


def zeros(t: Recorder, **_: Any) -> Label:
    """Zeros."""
    return replace(constant(t), zero=True)


def full(t: Recorder, fill_value: Any, **_: Any) -> Label:
    """A number everywhere."""
    return replace(constant(t), zero=fill_value == 0)


def fill(t: Recorder, input: Label, value: Any) -> Label:
    """A number everywhere, whatever was there."""
    return full(t, value) if not isinstance(value, Label) else constant(t)


def triangular(t: Recorder, input: Label, **_: Any) -> Label:
    """Half of a matrix: neurons on its axes keep their places."""
    rank = len(input.shape)
    for leg in input.touching([rank - 2, rank - 1]):
        t.ledger.pin(leg.atoms)
    return replace(input.plain(), constant=input.constant - {rank - 2, rank - 1})
