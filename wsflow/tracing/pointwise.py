"""Rules for pointwise operations: arithmetic, activations, comparisons and choices.

A rule takes the trace and the abstract tensors of an operation, by the names of its arguments in torch, and returns the
abstract tensor of the result. To teach the tracer an operation, add a function and a row of ``rules.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, Bias
from wsflow.tracing.contraction import contract
from wsflow.tracing.elementwise import ELEMENTWISE, KEEPS_NOTHING, Elementwise
from wsflow.tracing.trace import Trace

Rule = Callable[..., Any]


def pointwise(t: Trace, operands: Sequence[Any], signs: Sequence[int] | None) -> AbstractTensor:
    """Return a product (or, without signs, a sum) of tensors and numbers, aligned on their last dimensions."""
    tensors = [operand for operand in operands if isinstance(operand, AbstractTensor)]
    rank = max(len(tensor.shape) for tensor in tensors)
    letters = [range(rank - len(tensor.shape), rank) for tensor in tensors]
    if signs is not None:
        signs = [s for s, operand in zip(signs, operands, strict=True) if isinstance(operand, AbstractTensor)]
        return contract(t.constraints, list(zip(tensors, letters, strict=True)), range(rank), signs)
    result = contract(t.constraints, list(zip(tensors, letters, strict=True)), range(rank), None)
    if any(operand for operand in operands if not isinstance(operand, AbstractTensor)):
        t.constraints.forbid_scaling(result)
        result = t.constraints.fill_padding(result)
    return replace(result, zero=all(tensor.zero for tensor in tensors))


def pointwise_on(
    t: Trace, input: AbstractTensor, other: AbstractTensor, dims: Sequence[int], signs: Sequence[int] | None
) -> AbstractTensor:
    """Return a product or sum with a tensor that has only these dimensions of the input."""
    every = range(len(input.shape))
    return contract(t.constraints, [(input, every), (other, dims)], every, signs)


def biased(t: Trace, result: AbstractTensor, bias: AbstractTensor | None, dims: Sequence[int]) -> AbstractTensor:
    """Return the sum with a bias, which is remembered for phases if it is a parameter."""
    if bias is None:
        return result
    result = pointwise_on(t, result, bias, dims, None)
    return replace(result, bias=Bias(bias.parameter) if bias.parameter else None)


def nonlinear(t: Trace, tensor: AbstractTensor, row: Elementwise = KEEPS_NOTHING) -> AbstractTensor:
    """Return an elementwise function, with the scalings that commute with it."""
    t.constraints.forbid_scaling(tensor, positive=not row.degree, sign=not (row.odd or row.even or row.flip))
    axes = []
    for axis in tensor.axes:
        # without a degree, no positive scale is left; its coefficient still tells producers from consumers
        terms = tuple((p * (row.degree or 1), 0 if row.even else s, v) for p, s, v in axis.terms)
        axes.append(replace(axis, terms=terms, shear=row.flip))
    result = replace(tensor.generic(), axes=tuple(axes), zero=tensor.zero and row.zero)
    return result if row.zero else t.constraints.fill_padding(result)


def activation(t: Trace, row: Elementwise, input: AbstractTensor, **_: Any) -> AbstractTensor:
    """Apply a row of the table of elementwise functions."""
    result = nonlinear(t, input, row)
    return t.phase_shift(result, input.bias, row.phase) if row.phase and input.bias is not None else result


def add(t: Trace, input: Any, other: Any, alpha: Any = 1, **_: Any) -> AbstractTensor:
    """Add: summands scale alike. A bias that is a parameter is remembered for phases."""
    result = pointwise(t, [input, other], None)
    named = [tensor for tensor in (input, other) if isinstance(tensor, AbstractTensor) and tensor.parameter]
    return replace(result, bias=Bias(named[0].parameter)) if len(named) == 1 else result


def mul(t: Trace, input: Any, other: Any, **_: Any) -> AbstractTensor:
    """Multiply: scales multiply. A number stretches phases."""
    for number, tensor in ((input, other), (other, input)):
        if isinstance(tensor, AbstractTensor) and not isinstance(number, AbstractTensor):
            bias = replace(tensor.bias, factor=tensor.bias.factor * float(number)) if tensor.bias and number else None
            return replace(tensor, parameter="", bias=bias, zero=tensor.zero or not number)
    return pointwise(t, [input, other], [1, 1])


def div(t: Trace, input: Any, other: Any, rounding_mode: Any = None, **_: Any) -> AbstractTensor:
    """Divide: scales divide."""
    if rounding_mode is not None:
        return unscaled(t, input=input, other=other)
    if not isinstance(other, AbstractTensor):
        return mul(t, input, 1 / other)
    return pointwise(t, [input, t.constraints.fill_padding(other)], [1, -1])


def power(t: Trace, input: Any, exponent: Any) -> AbstractTensor:
    """Raise to a power: the scale to the same power, where it is a whole one."""
    tensors = isinstance(input, AbstractTensor), isinstance(exponent, AbstractTensor)
    if tensors != (True, False) or exponent != int(exponent) or exponent < 1:
        return unscaled(t, input=input, other=exponent)
    k = int(exponent)
    axes = tuple(replace(axis, terms=tuple((k * p, k * s % 2, v) for p, s, v in axis.terms)) for axis in input.axes)
    return replace(input.generic(), axes=axes)


def unscaled(t: Trace, **arguments: Any) -> AbstractTensor:
    """Compare, select and the like, by an operation that commutes with permutations only."""
    tensors = [value for value in arguments.values() if isinstance(value, AbstractTensor)]
    for tensor in tensors:
        t.constraints.forbid_scaling(tensor)
    tensors = [t.constraints.fill_padding(tensor) for tensor in tensors]
    return replace(pointwise(t, tensors, [1] * len(tensors)), zero=False)


def where(t: Trace, condition: AbstractTensor, input: Any, other: Any) -> AbstractTensor:
    """Choose between two: they scale alike."""
    t.constraints.forbid_scaling(condition)
    every = [condition]
    if isinstance(input, AbstractTensor) or isinstance(other, AbstractTensor):
        every.append(pointwise(t, [input, other], None))
    return replace(pointwise(t, every, [1] * len(every)), zero=False)


def clamp(t: Trace, input: AbstractTensor, min: Any = None, max: Any = None) -> AbstractTensor:
    """Clamp: at zero on one side a ReLU or its mirror image; any other keeps no scale."""
    if isinstance(min, AbstractTensor) or isinstance(max, AbstractTensor):
        return unscaled(t, input=input, min=min, max=max)
    if (min, max) in ((0, None), (None, 0)):
        return nonlinear(t, input, ELEMENTWISE["relu"])
    zero = (min is None or min <= 0) and (max is None or max >= 0)
    return nonlinear(t, input, Elementwise(odd=None not in (min, max) and min == -max, zero=zero))


def hardtanh(t: Trace, input: AbstractTensor, min_val: float = -1.0, max_val: float = 1.0) -> AbstractTensor:
    """Clamp, under another name."""
    return clamp(t, input, min_val, max_val)


def prelu(t: Trace, input: AbstractTensor, weight: AbstractTensor) -> AbstractTensor:
    """Apply a PReLU, whose slopes are permuted along, and not scaled."""
    t.constraints.forbid_scaling(weight)
    t.constraints.forbid_scaling(input, positive=False)
    return pointwise_on(t, input, weight, [1] if len(input.shape) > 1 else [0], [1, 1]).generic()


def identity(t: Trace, input: AbstractTensor, **_: Any) -> AbstractTensor:
    """Copy, cast, or whatever else changes no number."""
    return input


def glu(t: Trace, input: AbstractTensor, dim: int = -1) -> AbstractTensor:
    """Apply a gated linear unit: a * sigmoid(b), of the two halves of a dimension."""
    half = input.shape[dim] // 2
    a = reshaping.take(t.constraints, input, dim, np.arange(half))
    b = reshaping.take(t.constraints, input, dim, np.arange(half, 2 * half))
    return pointwise(t, [a, nonlinear(t, b)], [1, 1])
