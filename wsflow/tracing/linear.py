"""Rules for sums of products: linear maps, convolutions, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, distinct
from wsflow.tracing.contraction import contract
from wsflow.tracing.pointwise import ELEMENTWISE, add, biased, nonlinear, pointwise
from wsflow.tracing.reductions import reduction, softmax
from wsflow.tracing.stacking import joined
from wsflow.tracing.trace import Trace, UnknownOperation


def linear(
    t: Trace, input: AbstractTensor, weight: AbstractTensor, bias: AbstractTensor | None = None
) -> AbstractTensor:
    """Map y = W x + b."""
    rank = len(input.shape)
    vector = len(weight.shape) == 1
    input = t.absorb_flips(input, weight, bias, rank - 1, len(weight.shape) - 1)
    letters = [rank - 1] if vector else [rank, rank - 1]
    out = [*range(rank - 1), *([] if vector else [rank])]
    result = contract(t.constraints, [(input, range(rank)), (weight, letters)], out, [1, 1])
    return biased(t, result, bias, [rank - 1])


def convolution(
    t: Trace,
    input: AbstractTensor,
    weight: AbstractTensor,
    bias: AbstractTensor | None = None,
    padding: Any = 0,
    groups: int = 1,
    **_: Any,
) -> AbstractTensor:
    """Sum over input channels and kernel positions; with groups, each over the channels of its own group."""
    padded = padding == "same" or (padding != "valid" and bool(np.any(padding)))
    if padded or groups > 1:
        input = t.constraints.without_flips(input)
    else:
        input = t.absorb_flips(input, weight, bias, 1, 1)
    return biased(t, _convolved(t, input, weight, groups, transposed=False), bias, [1])


def transposed_convolution(
    t: Trace,
    input: AbstractTensor,
    weight: AbstractTensor,
    bias: AbstractTensor | None = None,
    groups: int = 1,
    **_: Any,
) -> AbstractTensor:
    """Convolve with a kernel that has its input channels first."""
    return biased(t, _convolved(t, input, weight, groups, transposed=True), bias, [1])


def _convolved(
    t: Trace, input: AbstractTensor, weight: AbstractTensor, groups: int, transposed: bool
) -> AbstractTensor:
    batch, channels, *space = input.shape
    rank = len(weight.shape) - 2
    group, example, entering, leaving = range(4)
    pixels, kernel = range(4, 4 + rank), range(4 + rank, 4 + 2 * rank)
    weight = t.grouped(weight, groups) if groups > 1 else reshaping.insert(weight, 0)
    first, second = (entering, leaving) if transposed else (leaving, entering)
    input = reshaping.reshape(t.constraints, input, (batch, groups, channels // groups, *space))
    if groups > 1 and channels == groups:
        input, weight = _depthwise(t, input, weight, 0 if transposed else 1)
    operands = [
        (input, [example, group, entering, *pixels]),
        (weight, [group, first, second, *kernel]),
        # pixels and kernel positions are fixed, and so are neurons that range over them
        (AbstractTensor((*space, *weight.shape[3:])), [*pixels, *kernel]),
    ]
    result = contract(t.constraints, operands, [example, group, leaving], [1, 1, 1])
    size = t.shape[2:]
    shape = (*result.shape, *size)
    result = replace(result, shape=shape, labels=(*result.labels, *distinct(shape, range(3, len(shape)))))
    return reshaping.reshape(t.constraints, result, (batch, groups * result.shape[2], *size))


def _depthwise(
    t: Trace, input: AbstractTensor, weight: AbstractTensor, entering: int
) -> tuple[AbstractTensor, AbstractTensor]:
    """Return input and weight of a depthwise kernel, which compensates its input's scale and sums over no channel."""
    axes = [axis for axis in weight.axes if axis.dims == (0,)]
    if not axes:
        return input, weight
    inner = axes[entering] if len(axes) > 1 else axes[0]
    scale = [term for axis in input.axes if axis.dims == (1,) for term in axis.terms]
    t.constraints.require_zero([*scale, *inner.terms], inner.atoms)
    inputs = tuple(replace(axis, terms=()) if axis.dims == (1,) else axis for axis in input.axes)
    weights = tuple(replace(axis, terms=()) if axis is inner else axis for axis in weight.axes)
    return replace(input, axes=inputs), replace(weight, axes=weights)


def matmul(t: Trace, input: AbstractTensor, other: AbstractTensor) -> AbstractTensor:
    """Multiply matrices, batched on the dimensions in front."""
    a, b = len(input.shape), len(other.shape)
    rank = max(a, b)
    inner, column = rank - 1, rank
    left = [inner] if a == 1 else [*range(rank - a, rank)]
    right = [inner] if b == 1 else [*range(rank - b, rank - 2), inner, column]
    summed = {inner} | (set() if a > 1 else {rank - 2}) | (set() if b > 1 else {column})
    out = [letter for letter in range(rank + 1) if letter not in summed]
    return contract(t.constraints, joined(t, [(input, left), (other, right)], out), out, [1, 1])


def addmm(t: Trace, input: AbstractTensor, mat1: AbstractTensor, other: AbstractTensor, **_: Any) -> AbstractTensor:
    """Map b + x W, batched or not."""
    return add(t, matmul(t, mat1, other), input)


def einsum(t: Trace, equation: str, tensors: Sequence[AbstractTensor], **_: Any) -> AbstractTensor:
    """Sum products in Einstein's notation."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    parts = inputs.split(",")
    # dimensions that an ellipsis stands for are aligned on their right
    hidden = [len(x.shape) - len(part.replace("...", "")) for x, part in zip(tensors, parts, strict=True)]
    names = "0123456789"[: max(hidden)]
    parts = [part.replace("...", names[len(names) - n :]) for part, n in zip(parts, hidden, strict=True)]
    output = output.replace("...", names)
    if not arrow or any(len(set(part)) < len(part) for part in parts):
        raise UnknownOperation("an einsum with a diagonal or without an arrow")
    operands = [(tensor, [ord(c) for c in part]) for tensor, part in zip(tensors, parts, strict=True)]
    out = [ord(c) for c in output]
    return contract(t.constraints, joined(t, operands, out), out, [1] * len(operands))


def bilinear(
    t: Trace, input1: AbstractTensor, input2: AbstractTensor, weight: AbstractTensor, bias: AbstractTensor | None = None
) -> AbstractTensor:
    """Map y = x1 W x2 + b, with a matrix for each output."""
    rank = len(input1.shape)
    batch, first, second, out = [*range(rank - 1)], rank - 1, rank, rank + 1
    operands = [(input1, [*batch, first]), (input2, [*batch, second]), (weight, [out, first, second])]
    return biased(t, contract(t.constraints, operands, [*batch, out], [1, 1, 1]), bias, [rank - 1])


def distances(t: Trace, x1: AbstractTensor, x2: AbstractTensor, **_: Any) -> AbstractTensor:
    """Take the distance of each row of one matrix to each row of another: |x1 - x2|, summed over the last dimension."""
    difference = pointwise(t, [reshaping.insert(x1, -2), reshaping.insert(x2, -3)], None)
    return reduction(t, nonlinear(t, difference, ELEMENTWISE["abs"]), -1)


def attention(
    t: Trace,
    query: AbstractTensor,
    key: AbstractTensor,
    value: AbstractTensor,
    attn_mask: AbstractTensor | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> AbstractTensor:
    """Attend: softmax(q k^T) v, on the last two dimensions."""
    if enable_gqa:
        dim, times = len(key.shape) - 3, query.shape[-3] // key.shape[-3]
        key, value = (reshaping.repeat(t.constraints, x, dim, times, blocks=True) for x in (key, value))
    rank = len(query.shape)
    batch, row, column, channel = [*range(rank - 2)], rank - 2, rank - 1, rank
    rows, columns, pairs = [*batch, row, channel], [*batch, column, channel], [*batch, row, column]
    scores = contract(t.constraints, [(query, rows), (key, columns)], pairs, [1, 1])
    if isinstance(attn_mask, AbstractTensor):
        scores = pointwise(t, [scores, attn_mask], None)
    return contract(t.constraints, [(softmax(t, scores, -1), pairs), (value, columns)], rows, [1, 1])
