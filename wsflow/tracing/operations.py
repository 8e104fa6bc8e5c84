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
    legs = tuple(replace(leg, terms=tuple((k * p, k * s % 2, v) for p, s, v in leg.terms)) for leg in input.legs)
    return replace(input.plain(), legs=legs)


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


def biased(t: Recorder, result: Label, bias: Label | None, dims: Sequence[int]) -> Label:
    """With a bias, which is remembered for phases if it is a parameter."""
    if bias is None:
        return result
    result = pointwise_on(t, result, bias, dims, None)
    return replace(result, bias=Bias(bias.parameter) if bias.parameter else None)
