"""Rules for tables and graphs (embeddings, gathering, scattering), images (pooling, interpolation) and new tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch

from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, NeuronAxis, distinct, merged
from wsflow.tracing.contraction import contract
from wsflow.tracing.pointwise import nonlinear, pointwise
from wsflow.tracing.trace import Trace, scaleless


def embedding(t: Trace, weight: AbstractTensor, indices: AbstractTensor, **_: Any) -> AbstractTensor:
    """Look up rows of a table: the rows are fixed, the columns may be neurons."""
    return gather(t, weight, 0, indices)


def embedding_bag(
    t: Trace,
    weight: AbstractTensor,
    indices: AbstractTensor,
    offsets: AbstractTensor,
    mode: int = 0,
    per_sample_weights: AbstractTensor | None = None,
    **_: Any,
) -> list[AbstractTensor]:
    """Add up rows of a table (mode 2: take maxima, which no sign passes): rows are fixed, columns may be neurons."""
    weight = t.constraints.fix_on(weight, [0])
    if mode == 2:
        t.constraints.forbid_scaling(weight, positive=False)
    if per_sample_weights is not None:
        t.constraints.freeze(per_sample_weights)
    bags = replace(weight.generic(), shape=tuple(t.shape), labels=distinct(t.shape, [0]))
    return [bags] + [AbstractTensor(()) for _ in range(t.n_results - 1)]


def gather(t: Trace, input: AbstractTensor, dim: int, index: AbstractTensor) -> AbstractTensor:
    """Choose coordinates of a dimension, by an index that is a constant, or is computed or given."""
    dim %= len(input.shape)
    shape = (*input.shape[:dim], *index.shape, *input.shape[dim + 1 :])
    if index.value is not None and not index.value.is_floating_point() and index.value.dtype != torch.bool:
        chosen = index.value.numpy().reshape(-1) % input.shape[dim]
        if len(np.unique(chosen)) < input.shape[dim]:
            # what is left out here is in use for other inputs, as positions are in longer sequences
            input = t.constraints.fix_on(input, [dim])
        return reshaping.reshape(t.constraints, reshaping.take(t.constraints, input, dim, chosen), shape)
    input = t.constraints.fix_on(input, [dim]).mixed([dim])
    place = {d: d if d < dim else d + len(index.shape) - 1 for d in range(len(input.shape)) if d != dim}
    axes = tuple(axis.renamed(place) for axis in input.axes)
    labels = [own.renamed(place) for own in input.labels if dim not in own.dims]
    labels += [own.renamed([dim + d for d in range(len(index.shape))]) for own in index.labels]
    return replace(input.generic(), shape=shape, axes=axes, labels=merged(labels))


def take_along(t: Trace, input: AbstractTensor, dim: int, index: AbstractTensor, **_: Any) -> AbstractTensor:
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


def index_tensors(t: Trace, input: AbstractTensor, indices: Sequence[Any]) -> AbstractTensor:
    """Index x[:, i] with one tensor of indices, or with several that are constants; else, no symmetry acts."""
    indexed = [dim for dim, index in enumerate(indices) if index is not None]
    if len(indexed) == 1:
        return gather(t, input, indexed[0], indices[indexed[0]])
    given = [indices[dim] for dim in indexed]
    if any(index.value is None or index.value.dtype == torch.bool for index in given):
        return t.opaque([input, *given])
    sizes = [input.shape[dim] for dim in indexed]
    numbers = np.broadcast_arrays(*(index.value.numpy() % n for index, n in zip(given, sizes, strict=True)))
    # as in NumPy: where the indexed dimensions lie together, and else in front
    first = indexed[0] if indexed[-1] - indexed[0] == len(indexed) - 1 else 0
    rest = [dim for dim in range(len(input.shape)) if dim not in indexed]
    joined = reshaping.permute(input, [*rest[:first], *indexed, *rest[first:]])
    joined = reshaping.reshape(
        t.constraints, joined, (*joined.shape[:first], prod(sizes), *joined.shape[first + len(indexed) :])
    )
    flat = torch.from_numpy(np.ravel_multi_index(tuple(numbers), sizes))
    return gather(t, joined, first, AbstractTensor(tuple(flat.shape), value=flat))


def unfold(t: Trace, input: AbstractTensor, dimension: int, size: int, step: int) -> AbstractTensor:
    """Cut a dimension into windows, whose elements are a new last dimension."""
    dim, last = dimension % len(input.shape), len(input.shape)
    starts = np.arange(0, input.shape[dim] - size + 1, step)
    windows = torch.from_numpy(starts[:, None] + np.arange(size))
    wide = gather(t, input, dim, AbstractTensor(tuple(windows.shape), value=windows))
    return reshaping.permute(wide, [d for d in range(last + 1) if d != dim + 1] + [dim + 1])


def scatter(
    t: Trace, input: AbstractTensor, dim: int, index: AbstractTensor, src: Any = None, source: Any = None, **_: Any
) -> AbstractTensor:
    """Add (or average) rows into rows, which scale alike."""
    added = src if isinstance(src, AbstractTensor) else source
    if not isinstance(added, AbstractTensor):
        return t.opaque([input, index])
    dim %= len(input.shape)
    input, added = (t.constraints.fix_on(tensor, [dim]).mixed([dim]) for tensor in (input, added))
    row = reshaping.take(t.constraints, added, dim, np.zeros(1, dtype=np.int64))
    result = pointwise(t, [input, row], None).generic()
    return replace(result, labels=merged([*result.labels, *distinct(result.shape, [dim])]))


def resize(t: Trace, input: AbstractTensor, **_: Any) -> AbstractTensor:
    """Average or interpolate pixels: linear, so that scales and signs pass."""
    moved = [dim for dim, size in enumerate(t.shape) if size != input.shape[dim] or dim >= 2]
    axes = _on_pixels(t, t.constraints.without_flips(input), moved) if input.axes_on(moved) else input.axes
    labels = [own for own in input.mixed(moved).labels if not set(own.dims) & set(moved)]
    labels += distinct(t.shape, moved)
    return replace(input.generic(), shape=tuple(t.shape), labels=tuple(labels), axes=axes)


def max_pool(t: Trace, input: AbstractTensor, **_: Any) -> Any:
    """Take maxima over pixels: positive scalings pass, signs do not."""
    t.constraints.forbid_scaling(input, positive=False)
    result = resize(t, input)
    return [result, scaleless(result)] if t.n_results > 1 else result


def _on_pixels(t: Trace, input: AbstractTensor, moved: Sequence[int]) -> tuple[NeuronAxis, ...]:
    """Return the neuron axes of channels that move as wholes, where neurons that range over pixels are fixed."""
    others = [dim for dim in range(len(input.shape)) if dim not in moved]
    pixels = AbstractTensor(tuple(input.shape[dim] for dim in moved))
    operands = [(input, range(len(input.shape))), (pixels, moved)]
    return tuple(axis.renamed(others) for axis in contract(t.constraints, operands, others, [1, 1]).axes)


def pixel_shuffle(t: Trace, input: AbstractTensor, upscale_factor: int) -> AbstractTensor:
    """Move channels to pixels."""
    *batch, channels, height, width = input.shape
    r, n = upscale_factor, len(batch)
    split = reshaping.reshape(t.constraints, input, (*batch, channels // r**2, r, r, height, width))
    moved = reshaping.permute(split, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return reshaping.reshape(t.constraints, moved, (*batch, channels // r**2, height * r, width * r))


def pixel_unshuffle(t: Trace, input: AbstractTensor, downscale_factor: int) -> AbstractTensor:
    """Move pixels to channels."""
    *batch, channels, height, width = input.shape
    r, n = downscale_factor, len(batch)
    split = reshaping.reshape(t.constraints, input, (*batch, channels, height // r, r, width // r, r))
    moved = reshaping.permute(split, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return reshaping.reshape(t.constraints, moved, (*batch, channels * r**2, height // r, width // r))


def fold(t: Trace, input: AbstractTensor, kernel_size: Sequence[int], **_: Any) -> AbstractTensor:
    """Add patches (channels times kernel positions, one for each place) into images: linear, on whole channels."""
    *batch, channels = t.shape[:-2]
    n, places = len(batch), input.shape[-1]
    size = prod(kernel_size)
    split = reshaping.reshape(t.constraints, input, (*batch, channels, size, places))
    patches = AbstractTensor((size, places))
    operands = [(split, range(n + 3)), (patches, [n + 1, n + 2])]
    result = contract(t.constraints, operands, range(n + 1), [1, 1])
    return replace(result, shape=t.shape, labels=(*result.labels, *distinct(t.shape, [n + 1, n + 2])))


def triangular(t: Trace, input: AbstractTensor, **_: Any) -> AbstractTensor:
    """Take half of a matrix, along whose dimensions neurons are fixed."""
    rank = len(input.shape)
    for axis in input.axes_on([rank - 2, rank - 1]):
        t.constraints.fix(axis.atoms)
    return replace(input.generic(), labels=merged([*input.labels, *distinct(input.shape, [rank - 2, rank - 1])]))


def fixed(t: Trace, **_: Any) -> AbstractTensor:
    """Make numbers that have nothing to do with neurons: ranges, positions."""
    return AbstractTensor(t.shape)


def constant(t: Trace, **_: Any) -> AbstractTensor:
    """Make a tensor with one number everywhere."""
    return AbstractTensor(t.shape, labels=())


def drawn(t: Trace, input: Any = None, p: float | None = None, **_: Any) -> AbstractTensor:
    """Draw zeros and ones of one law, as if they were one number everywhere, or by probabilities that are computed."""
    return nonlinear(t, input) if isinstance(input, AbstractTensor) and p is None else constant(t)


def normal(t: Trace, mean: Any, std: Any = 1, **_: Any) -> AbstractTensor:
    """Draw normal numbers, by means and deviations that are computed, if given."""
    computed = [value for value in (mean, std) if isinstance(value, AbstractTensor)]
    return pointwise(t, computed, None) if computed else constant(t)


def full(t: Trace, fill_value: Any, **_: Any) -> AbstractTensor:
    """Make a tensor with this number everywhere."""
    return replace(constant(t), zero=fill_value == 0)


def fill(t: Trace, input: AbstractTensor, value: Any) -> AbstractTensor:
    """Write a number everywhere."""
    return full(t, value) if not isinstance(value, AbstractTensor) else constant(t)
