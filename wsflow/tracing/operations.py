"""Rules for operations that compute: one function for each, in one table by the operation's name.

A rule takes the labels of an operation's tensors under the names of its arguments, and returns the result's label.
To teach the tracer an operation, add a function and a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wsflow.tracing import shapes
from wsflow.tracing.elementwise import KEEPS_NOTHING, Elementwise, elementwise
from wsflow.tracing.labels import Bias, Label, contract
from wsflow.tracing.recording import Recorder

Rule = Callable[..., Any]


def pointwise(t: Recorder, labels: Sequence[Any], signs: Sequence[int] | None) -> Label:
    """A product (or, with signs None, a sum) of tensors and numbers, aligned on their last axes."""
    tensors = [label for label in labels if isinstance(label, Label)]
    numbers = [number for number in labels if not isinstance(number, Label) and number]
    rank = max(len(label.shape) for label in tensors)
    operands = [(label, range(rank - len(label.shape), rank)) for label in tensors]
    kept = None if signs is None else [s for s, label in zip(signs, labels, strict=True) if isinstance(label, Label)]
    result = contract(t.ledger, operands, range(rank), kept)
    if signs is None:
        result = replace(result, zero=all(label.zero for label in tensors))
        if numbers:
            t.still(result)
            result = shapes.solid(t.ledger, result)
    return result


def nonlinear(t: Recorder, label: Label, row: Elementwise = KEEPS_NOTHING) -> Label:
    """An elementwise function: scalings pass that its row lets pass."""
    legs = []
    for leg in label.legs:
        if leg.shear is not None:
            t.ledger.still(leg, positive=False)
        t.ledger.still(leg, positive=not row.degree, sign=not (row.odd or row.even or row.flip))
        # without a degree, no positive scale is left; its coefficient still tells producers from consumers
        terms = tuple((p * (row.degree or 1), 0 if row.even else s, v) for p, s, v in leg.terms)
        legs.append(replace(leg, terms=terms, shear=row.flip))
    result = replace(label.plain(), legs=tuple(legs), zero=label.zero and row.zero)
    return result if row.zero else shapes.solid(t.ledger, result)


def activation(t: Recorder, row: Elementwise, input: Label, **_: Any) -> Label:
    """A row of the table of elementwise functions."""
    bias = input.bias
    result = nonlinear(t, input, row)
    if row.phase and bias is not None:
        return t.shift(result, bias, row.phase)
    return result


def add(t: Recorder, input: Any, other: Any, alpha: Any = 1, **_: Any) -> Label:
    """A sum: its summands scale alike. A bias that is a parameter is remembered for phases."""
    result = pointwise(t, [input, other], None)
    named = [label for label in (input, other) if isinstance(label, Label) and label.parameter]
    return replace(result, bias=Bias(named[0].parameter)) if len(named) == 1 else result


def mul(t: Recorder, input: Any, other: Any, **_: Any) -> Label:
    """A product: scales multiply. By a number, phases stretch."""
    for number, label in ((input, other), (other, input)):
        if isinstance(label, Label) and not isinstance(number, Label):
            bias = replace(label.bias, factor=label.bias.factor * float(number)) if label.bias and number else None
            return replace(label, parameter="", bias=bias, zero=label.zero or not number)
    return pointwise(t, [input, other], [1, 1])


def div(t: Recorder, input: Any, other: Any, rounding_mode: Any = None, **_: Any) -> Label:
    """A quotient: scales divide."""
    if rounding_mode is not None:
        return unscaled(t, input=input, other=other)
    if not isinstance(other, Label):
        return mul(t, input, 1 / other)
    if not isinstance(input, Label):
        return pointwise(t, [shapes.solid(t.ledger, other)], [-1])
    return pointwise(t, [input, shapes.solid(t.ledger, other)], [1, -1])


def power(t: Recorder, input: Any, exponent: Any) -> Label:
    """A power: the scale to a whole power."""
    if isinstance(exponent, Label) or not isinstance(input, Label) or exponent != int(exponent) or exponent < 1:
        return unscaled(t, input=input, other=exponent)
    k = int(exponent)
    legs = []
    for leg in input.legs:
        if leg.shear is not None:
            t.ledger.still(leg, positive=False)
        legs.append(replace(leg, terms=tuple((k * p, k * s % 2, v) for p, s, v in leg.terms), shear=None))
    return replace(input.plain(), legs=tuple(legs))


def unscaled(t: Recorder, **arguments: Any) -> Label:
    """An elementwise operation of several tensors that commutes with permutations only: comparisons, selections."""
    labels = [value for value in arguments.values() if isinstance(value, Label)]
    for label in labels:
        t.still(label)
    labels = [shapes.solid(t.ledger, label) for label in labels]
    return replace(pointwise(t, labels, [1] * len(labels)), zero=False)


def where(t: Recorder, condition: Label, input: Any, other: Any) -> Label:
    """A choice between two: what is chosen from scales alike."""
    t.still(condition)
    chosen = [value for value in (input, other) if isinstance(value, Label)]
    result = pointwise(t, [input, other], None) if chosen else None
    every = [condition, *([result] if result is not None else [])]
    return replace(pointwise(t, every, [1] * len(every)), zero=False)


def clamp(t: Recorder, input: Label, min: Any = None, max: Any = None) -> Label:
    """A clamp at zero on one side is a ReLU or its mirror image; any other keeps no scale."""
    if isinstance(min, Label) or isinstance(max, Label):
        return unscaled(t, input=input, min=min, max=max)
    if (min, max) in ((0, None), (None, 0)):
        return nonlinear(t, input, elementwise("relu"))
    zero = (min is None or min <= 0) and (max is None or max >= 0)
    return nonlinear(t, input, Elementwise(odd=None not in (min, max) and min == -max, zero=zero))


def hardtanh(t: Recorder, input: Label, min_val: float = -1.0, max_val: float = 1.0) -> Label:
    """A clamp under another name."""
    return clamp(t, input, min_val, max_val)


def prelu(t: Recorder, input: Label, weight: Label) -> Label:
    """Its slopes are permuted along, and not scaled."""
    t.still(weight)
    for leg in input.legs:
        t.ledger.still(leg, positive=False)
    dims = [1] if len(input.shape) > 1 else [0]
    return pointwise_on(t, input, weight, dims, [1, 1]).plain()


def pointwise_on(t: Recorder, input: Label, vector: Label, dims: Sequence[int], signs: Sequence[int] | None) -> Label:
    """A product or sum with a tensor that has some axes of the input only."""
    return contract(t.ledger, [(input, range(len(input.shape))), (vector, dims)], range(len(input.shape)), signs)


def identity(t: Recorder, input: Label, **_: Any) -> Label:
    """Copies, casts and everything else that changes no number."""
    return input


def glu(t: Recorder, input: Label, dim: int = -1) -> Label:
    """a * sigmoid(b), of the two halves of an axis."""
    half = input.shape[dim] // 2
    a = shapes.take(t.ledger, input, dim, np.arange(half))
    b = shapes.take(t.ledger, input, dim, np.arange(half, 2 * half))
    return pointwise(t, [a, nonlinear(t, b)], [1, 1])


# sums of products


def linear(t: Recorder, input: Label, weight: Label, bias: Label | None = None) -> Label:
    """y = W x + b."""
    rank = len(input.shape)
    letters, out = [*range(rank)], [*range(rank - 1), rank]
    flat = len(weight.shape) == 1
    rows = [rank - 1] if flat else [rank, rank - 1]
    t.consume(input, weight, bias, [rank - 1], [len(weight.shape) - 1])
    input = _unsheared(input) if bias is not None and bias.parameter else input
    result = contract(t.ledger, [(input, letters), (weight, rows)], out[:-1] if flat else out, [1, 1])
    return _biased(t, result, bias, [rank - 1])


def _unsheared(label: Label) -> Label:
    return replace(label, legs=tuple(replace(leg, shear=None) for leg in label.legs))


def _biased(t: Recorder, result: Label, bias: Label | None, dims: Sequence[int]) -> Label:
    if bias is None:
        return result
    result = pointwise_on(t, result, bias, dims, None)
    return replace(result, bias=Bias(bias.parameter) if bias.parameter else None)


def convolution(
    t: Recorder, input: Label, weight: Label, bias: Label | None = None, padding: Any = 0, groups: int = 1, **_: Any
) -> Label:
    """A sum over input channels and taps; with groups, channels of one group see each other only."""
    padded = padding == "same" or (padding != "valid" and bool(np.any(padding)))
    if not padded and groups == 1:
        t.consume(input, weight, bias, [1], [1])
        input = _unsheared(input) if bias is not None and bias.parameter else input
    return _biased(t, _convolved(t, input, weight, groups, transposed=False), bias, [1])


def transposed_convolution(
    t: Recorder, input: Label, weight: Label, bias: Label | None = None, groups: int = 1, **_: Any
) -> Label:
    """As a convolution, whose kernel has its input channels first."""
    return _biased(t, _convolved(t, input, weight, groups, transposed=True), bias, [1])


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


def addmm(t: Recorder, input: Label, mat1: Label, mat2: Label, **_: Any) -> Label:
    """b + x W."""
    return add(t, matmul(t, mat1, mat2), input)


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


# along an axis


def _dims(dim: Any, rank: int) -> list[int]:
    chosen = range(rank) if dim is None or dim == [] else ([dim] if isinstance(dim, int) else dim)
    return sorted(d % rank for d in chosen)


def reduction(t: Recorder, input: Label, dim: Any = None, keepdim: bool = False, **_: Any) -> Label:
    """A sum, mean, maximum, norm over axes."""
    rank = len(input.shape)
    gone = _dims(dim, rank)
    result = contract(t.ledger, [(input, range(rank))], [d for d in range(rank) if d not in gone], [1])
    for d in gone if keepdim else []:
        result = shapes.insert(result, d)
    return result


def mean(t: Recorder, input: Label, dim: Any = None, keepdim: bool = False, **keywords: Any) -> Label:
    """A mean over pixels takes a - z to a - mean z, so flips pass."""
    gone = _dims(dim, len(input.shape))
    shears = {leg.dims: leg.shear for leg in input.legs if not set(leg.dims) & set(gone)}
    result = reduction(t, _unsheared(input) if len(shears) == len(input.legs) else input, dim, keepdim)
    if len(shears) == len(input.legs) == len(result.legs):
        result = replace(
            result,
            legs=tuple(replace(leg, shear=s) for leg, s in zip(result.legs, shears.values(), strict=True)),
        )
    return result


def maximum(t: Recorder, input: Label, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """A maximum: no signs, and the places that are returned with it have no scale."""
    for leg in input.legs:
        t.ledger.still(leg, positive=False)
    result = reduction(t, input, dim, keepdim)
    return [result, t.scaleless(result)] if t.n_results > 1 else result


def statistics(t: Recorder, input: Label, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """Variances, norms, standard deviations: no scale passes."""
    t.still(input)
    result = reduction(t, input, dim, keepdim)
    return [result] * t.n_results if t.n_results > 1 else result


def softmax(t: Recorder, input: Label, dim: int, *_: Any, **__: Any) -> Label:
    """Along an axis: neurons there are permuted along, and nothing is scaled."""
    t.still(input)
    t.tie(input, [dim])
    return shapes.solid(t.ledger, input.plain())


def scan(t: Recorder, input: Label, dim: int = -1, **_: Any) -> Label:
    """Running sums, sorting: neurons on that axis keep their places."""
    for leg in input.touching(_dims(dim, len(input.shape))):
        t.ledger.pin(leg.atoms)
    t.still(input)
    return input.plain()


# normalisation


def layer_norm(
    t: Recorder, input: Label, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, **_: Any
) -> Label:
    """(x - mean x) / sd x: invariant under permutations; its scale is set behind it."""
    t.still(input)
    dims = list(range(len(input.shape) - len(normalized_shape), len(input.shape)))
    t.tie(input, dims)
    return affine(t, shapes.solid(t.ledger, input.plain()), weight, bias, dims)


def rms_norm(t: Recorder, input: Label, normalized_shape: Sequence[int], weight: Any = None, **_: Any) -> Label:
    """x / rms x: signs pass."""
    dims = list(range(len(input.shape) - len(normalized_shape), len(input.shape)))
    for leg in input.legs:
        t.ledger.still(leg, sign=leg.shear is not None)
    t.tie(input, dims)
    return affine(t, _unsheared(input).plain(), weight, None, dims)


def affine(t: Recorder, input: Label, weight: Any, bias: Any, dims: Sequence[int]) -> Label:
    """gamma x + beta."""
    if weight is not None:
        input = pointwise_on(t, input, weight, dims, [1, 1])
    return _biased(t, input, bias, dims)


def group_norm(t: Recorder, input: Label, num_groups: int, weight: Any = None, bias: Any = None, **_: Any) -> Label:
    """A layer norm of each group of channels: channels lie in groups."""
    t.still(input)
    batch, channels, *space = input.shape
    split = shapes.reshape(t.ledger, input, (batch, num_groups, channels // num_groups, *space))
    t.tie(split, range(2, len(split.shape)))
    whole = shapes.reshape(t.ledger, split, input.shape)
    return affine(t, shapes.solid(t.ledger, whole.plain()), weight, bias, [1])


def batch_norm(
    t: Recorder,
    input: Label,
    weight: Any = None,
    bias: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    **_: Any,
) -> Any:
    """gamma (x - m) / sqrt(v + eps) + beta. Signs pass.

    Positive scalings before it do not: compensated in gamma they would keep this function, but not that with
    statistics computed again.
    """
    for leg in input.legs:
        t.ledger.still(leg, sign=leg.shear is not None)
    result = _unsheared(input).plain()
    if running_mean is not None:
        t.statistic(running_mean, running_var)
        t.still(running_var)
        result = pointwise_on(t, result, running_mean, [1], None)
        result = pointwise_on(t, result, running_var, [1], [1, 1])
    result = affine(t, result, weight, bias, [1])
    return [result] * t.n_results if t.n_results > 1 else result


# images, tables and graphs


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
    for leg in input.touching(moved):
        t.ledger.pin(leg.atoms)
        t.ledger.still(leg)
    legs = []
    for leg in input.legs:
        if not signs:
            t.ledger.still(leg, positive=False)
        if not set(leg.dims) & set(moved):
            legs.append(leg if signs else replace(leg, shear=None))
    constant = input.constant - {dim for dim in moved if shape[dim] > 1}
    return replace(input.plain(), shape=tuple(shape), legs=tuple(legs), constant=constant)


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
