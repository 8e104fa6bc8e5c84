"""Rules for sums of products: linear maps, convolutions, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wsflow.tracing import shapes
from wsflow.tracing.axes import softmax
from wsflow.tracing.labels import Label, contract
from wsflow.tracing.operations import add, biased, pointwise
from wsflow.tracing.recording import Recorder


def linear(t: Recorder, input: Label, weight: Label, bias: Label | None = None) -> Label:
    """y = W x + b."""
    rank = len(input.shape)
    letters, out = [*range(rank)], [*range(rank - 1), rank]
    flat = len(weight.shape) == 1
    rows = [rank - 1] if flat else [rank, rank - 1]
    input = t.consume(input, weight, bias, [rank - 1], [len(weight.shape) - 1])
    result = contract(t.ledger, [(input, letters), (weight, rows)], out[:-1] if flat else out, [1, 1])
    return biased(t, result, bias, [rank - 1])


def convolution(
    t: Recorder, input: Label, weight: Label, bias: Label | None = None, padding: Any = 0, groups: int = 1, **_: Any
) -> Label:
    """A sum over input channels and taps; with groups, channels of one group see each other only."""
    padded = padding == "same" or (padding != "valid" and bool(np.any(padding)))
    plain = not padded and groups == 1
    input = t.consume(input, weight, bias, [1], [1]) if plain else t.ledger.settled(input)
    return biased(t, _convolved(t, input, weight, groups, transposed=False), bias, [1])


def transposed_convolution(
    t: Recorder, input: Label, weight: Label, bias: Label | None = None, groups: int = 1, **_: Any
) -> Label:
    """As a convolution, whose kernel has its input channels first."""
    return biased(t, _convolved(t, input, weight, groups, transposed=True), bias, [1])


def _convolved(t: Recorder, input: Label, weight: Label, groups: int, transposed: bool) -> Label:
    batch, channels, *space = input.shape
    taps = len(weight.shape) - 2
    group, example, entering, leaving = range(4)
    pixels, kernel, new = range(4, 4 + taps), range(4 + taps, 4 + 2 * taps), range(4 + 2 * taps, 4 + 3 * taps)
    if groups > 1:
        weight = t.grouped(weight, groups)
    else:
        weight = shapes.insert(weight, 0)
    first, second = (entering, leaving) if transposed else (leaving, entering)
    input = shapes.reshape(t.ledger, input, (batch, groups, channels // groups, *space))
    if groups > 1 and channels == groups:
        input, weight = _each_alone(t, input, weight, 0 if transposed else 1)
    places = Label((*space, *weight.shape[3:]))
    operands = [
        (input, [example, group, entering, *pixels]),
        (weight, [group, first, second, *kernel]),
        # pixels and taps have places, and so have neurons that range over them
        (places, [*pixels, *kernel]),
    ]
    result = contract(t.ledger, operands, [example, group, leaving], [1, 1, 1])
    shape = t.shape[2:]
    result = replace(result, shape=(*result.shape, *shape), constant=frozenset(result.constant - set(new)))
    return shapes.reshape(t.ledger, result, (batch, groups * result.shape[2], *shape))


def _each_alone(t: Recorder, input: Label, weight: Label, entering: int) -> tuple[Label, Label]:
    """A depthwise kernel: what a channel is scaled by is made up for at once, and not summed over."""
    legs = [leg for leg in weight.legs if leg.dims == (0,)]
    if not legs:
        return input, weight
    inner = legs[entering] if len(legs) > 1 else legs[0]
    own = [leg for leg in input.legs if leg.dims == (1,)]
    t.ledger.vanish([*(term for leg in own for term in leg.terms), *inner.terms], inner.atoms)
    kept = tuple(replace(leg, terms=()) if leg.dims == (1,) else leg for leg in input.legs)
    alone = tuple(replace(leg, terms=()) if leg is inner else leg for leg in weight.legs)
    return replace(input, legs=kept), replace(weight, legs=alone)


def matmul(t: Recorder, input: Label, other: Label) -> Label:
    """The product of matrices, batched on the axes in front."""
    a, b = len(input.shape), len(other.shape)
    if b == 1:
        return contract(t.ledger, [(input, range(a)), (other, [a - 1])], range(a - 1), [1, 1])
    if a == 1:
        return contract(t.ledger, [(input, [b - 2]), (other, range(b))], [*range(b - 2), b - 1], [1, 1])
    rank = max(a, b)
    left = [*range(rank - a, rank)]
    right = [*range(rank - b, rank - 2), rank - 1, rank]
    return contract(t.ledger, [(input, left), (other, right)], [*range(rank - 1), rank], [1, 1])


def addmm(t: Recorder, input: Label, mat1: Label, other: Label, **_: Any) -> Label:
    """b + x W."""
    return add(t, matmul(t, mat1, other), input)


def baddbmm(t: Recorder, input: Label, batch1: Label, batch2: Label, **_: Any) -> Label:
    """b + x W, batched."""
    return add(t, matmul(t, batch1, batch2), input)


def einsum(t: Recorder, equation: str, tensors: Sequence[Label], **_: Any) -> Label:
    """Einstein's sum of products."""
    equation = equation.replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    parts = inputs.split(",")
    if "." in equation or not arrow or any(len(set(part)) < len(part) for part in parts):
        t.refuse("an einsum with an ellipsis, a diagonal or without an arrow")
    operands = [(label, [ord(c) for c in part]) for label, part in zip(tensors, parts, strict=True)]
    return contract(t.ledger, operands, [ord(c) for c in output], [1] * len(operands))


def attention(
    t: Recorder,
    query: Label,
    key: Label,
    value: Label,
    attn_mask: Label | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> Label:
    """softmax(q k^T) v, on the last two axes."""
    if enable_gqa:
        key, value = (_repeated(t, label, query.shape[-3]) for label in (key, value))
    rank = len(query.shape)
    batch, row, column, channel = [*range(rank - 2)], rank - 2, rank - 1, rank
    scores = contract(
        t.ledger, [(query, [*batch, row, channel]), (key, [*batch, column, channel])], [*batch, row, column], [1, 1]
    )
    if isinstance(attn_mask, Label):
        scores = pointwise(t, [scores, attn_mask], None)
    weights = softmax(t, scores, -1)
    return contract(
        t.ledger, [(weights, [*batch, row, column]), (value, [*batch, column, channel])], [*batch, row, channel], [1, 1]
    )


def _repeated(t: Recorder, label: Label, heads: int) -> Label:
    dim = len(label.shape) - 3
    wide = shapes.insert(label, dim + 1)
    wide = shapes.expand(wide, [*label.shape[: dim + 1], heads // label.shape[dim], *label.shape[dim + 1 :]])
    return shapes.reshape(t.ledger, wide, (*label.shape[:dim], heads, *label.shape[dim + 1 :]))
