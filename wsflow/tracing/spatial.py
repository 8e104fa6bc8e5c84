"""Rules for images: pooling, interpolation, pixel shuffling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, NeuronAxis, distinct
from wsflow.tracing.contraction import contract
from wsflow.tracing.trace import Trace, scaleless


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
