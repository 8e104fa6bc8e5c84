"""Rules for pointwise operations: arithmetic, activations, comparisons and choices.

A rule takes the trace and the abstract tensors of an operation, by the names of its arguments in torch, and returns the
abstract tensor of the result. To teach the tracer an operation, add a function and a row of ``rules.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isinf
from typing import Any

import numpy as np
import torch

from wsflow.activations import ACTIVATIONS, FLIP, PHASE, POSITIVE, SIGN, Activation
from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, Bias
from wsflow.tracing.contraction import contract
from wsflow.tracing.stacking import joined
from wsflow.tracing.trace import Trace, UnknownOperation

Rule = Callable[..., Any]


@dataclass(frozen=True)
class Elementwise:
    """What a function of one number commutes with.

    f(s z) = s^degree f(z) for positive s (None if for none); f(-z) = -f(z) if odd, f(z) if even, flip - f(z) where
    there is a flip; f(z + phase) = -f(z) where there is a phase; f(0) = 0 if zero.
    """

    degree: int | Fraction | None = None
    odd: bool = False
    even: bool = False
    flip: float | None = None
    phase: float | None = None
    zero: bool = False

    @classmethod
    def of(cls, row: Activation) -> Elementwise:
        """Return that of a row of the activation table."""
        degree = row.degree if POSITIVE in row.scalings else None
        return cls(
            degree=degree,
            odd=SIGN in row.scalings and (degree or 1) % 2 == 1,
            even=SIGN in row.scalings and (degree or 1) % 2 == 0,
            flip=row.flip if FLIP in row.scalings else None,
            phase=row.phase if PHASE in row.scalings else None,
            zero=float(row(torch.zeros(()))) == 0,
        )


KEEPS_NOTHING = Elementwise()

ELEMENTWISE: dict[str, Elementwise] = {
    **{
        name: Elementwise.of(row)
        for row in ACTIVATIONS.values()
        if not row.learned
        for name in (row.function, *row.aliases)
        if name
    },
    "relu": Elementwise(degree=1, zero=True),
    **dict.fromkeys(("sinh", "tan", "asin", "atanh"), Elementwise(odd=True, zero=True)),
    **dict.fromkeys(("expm1", "log1p", "log_sigmoid_forward"), Elementwise(zero=True)),
    **dict.fromkeys(("exp", "exp2", "log", "log2", "log10"), KEEPS_NOTHING),
    **dict.fromkeys(("isnan", "isinf", "logical_not"), Elementwise(degree=0, even=True)),
    **dict.fromkeys(("sign", "sgn"), Elementwise(degree=0, odd=True, zero=True)),
    **dict.fromkeys(("signbit", "isposinf", "isneginf"), Elementwise(degree=0, zero=True)),
    "ceil": Elementwise(zero=True),
    "cos": Elementwise(even=True),
    "abs": Elementwise(degree=1, even=True, zero=True),
    "square": Elementwise(degree=2, even=True, zero=True),
    "neg": Elementwise(degree=1, odd=True, zero=True),
    "sqrt": Elementwise(degree=Fraction(1, 2), zero=True),
    "rsqrt": Elementwise(degree=Fraction(-1, 2)),
    "reciprocal": Elementwise(degree=-1, odd=True),
}

# a > b, a != b and so on, of numbers that scale alike
COMPARISONS: dict[str, Elementwise] = {
    **dict.fromkeys(("gt", "lt"), Elementwise(degree=0, zero=True)),
    **dict.fromkeys(("ge", "le"), Elementwise(degree=0)),
    "ne": Elementwise(degree=0, even=True, zero=True),
    "eq": Elementwise(degree=0, even=True),
}


def pointwise(t: Trace, operands: Sequence[Any], signs: Sequence[int] | None) -> AbstractTensor:
    """Return a product (or, without signs, a sum) of tensors and numbers, aligned on their last dimensions."""
    tensors = [operand for operand in operands if isinstance(operand, AbstractTensor)]
    rank = max(len(tensor.shape) for tensor in tensors)
    aligned = joined(t, [(tensor, range(rank - len(tensor.shape), rank)) for tensor in tensors], range(rank))
    if signs is not None:
        signs = [s for s, operand in zip(signs, operands, strict=True) if isinstance(operand, AbstractTensor)]
        return contract(t.constraints, aligned, range(rank), signs)
    result = contract(t.constraints, aligned, range(rank), None)
    if any(operand for operand in operands if not isinstance(operand, AbstractTensor)):
        t.constraints.forbid_scaling(result)
        result = t.constraints.fill_padding(result)
    return replace(result, zero=all(tensor.zero for tensor in tensors))


def pointwise_on(
    t: Trace, input: AbstractTensor, other: AbstractTensor, dims: Sequence[int], signs: Sequence[int] | None
) -> AbstractTensor:
    """Return a product or sum with a tensor that has only these dimensions of the input."""
    every = range(len(input.shape))
    return contract(t.constraints, joined(t, [(input, every), (other, dims)], every), every, signs)


def biased(t: Trace, result: AbstractTensor, bias: AbstractTensor | None, dims: Sequence[int]) -> AbstractTensor:
    """Return the sum with a bias, which is remembered for phases if it is a parameter."""
    if bias is None:
        return result
    result = pointwise_on(t, result, bias, dims, None)
    return replace(result, bias=Bias(bias.parameter) if bias.parameter else None)


def nonlinear(t: Trace, tensor: AbstractTensor, row: Elementwise = KEEPS_NOTHING) -> AbstractTensor:
    """Return an elementwise function, with the scalings that commute with it."""
    t.constraints.forbid_scaling(tensor, positive=row.degree is None, sign=not (row.odd or row.even or row.flip))
    # without a degree, no positive scale is left; its coefficient still tells producers from consumers
    degree, sign = 1 if row.degree is None else row.degree, row.odd or row.flip is not None
    axes = []
    for axis in tensor.axes:
        terms = tuple((p * degree, s if sign else 0, v) for p, s, v in axis.terms if degree or (s and sign))
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
    """Raise to a power: the scale to the same power; signs where it is a whole one, and nothing behind an even one."""
    if not isinstance(input, AbstractTensor) or isinstance(exponent, AbstractTensor):
        return unscaled(t, input=input, other=exponent)
    degree, whole = Fraction(exponent).limit_denominator(64), exponent == int(exponent)
    if degree != exponent:
        return nonlinear(t, input)
    odd, even = whole and degree % 2 == 1, whole and degree % 2 == 0
    return nonlinear(t, input, Elementwise(degree, odd=odd, even=even, zero=exponent > 0))


def unscaled(t: Trace, **arguments: Any) -> AbstractTensor:
    """Compare, select and the like, by an operation that commutes with permutations only."""
    tensors = [value for value in arguments.values() if isinstance(value, AbstractTensor)]
    for tensor in tensors:
        t.constraints.forbid_scaling(tensor)
    tensors = [t.constraints.fill_padding(tensor) for tensor in tensors]
    return replace(pointwise(t, tensors, [1] * len(tensors)), zero=False)


def compare(t: Trace, input: AbstractTensor, other: Any, row: Elementwise) -> AbstractTensor:
    """Compare two that scale alike: the result has no scale."""
    return replace(nonlinear(t, pointwise(t, [input, other], None), row), zero=False)


def extremum(t: Trace, input: AbstractTensor, other: Any) -> AbstractTensor:
    """Take the larger or smaller of two, which scale alike; no signs pass."""
    result = pointwise(t, [input, other], None)
    t.constraints.forbid_scaling(result, positive=False)
    return result


def where(t: Trace, condition: AbstractTensor, input: Any, other: Any) -> AbstractTensor:
    """Choose between two: they scale alike."""
    t.constraints.forbid_scaling(condition)
    if not isinstance(input, AbstractTensor) and not isinstance(other, AbstractTensor):
        return t.constraints.fill_padding(condition.generic())
    # no product: what is chosen is not zero where the condition is
    return replace(
        pointwise(t, [condition.generic(), pointwise(t, [input, other], None).generic()], [1, 1]), zero=False
    )


def masked_fill(t: Trace, input: AbstractTensor, mask: AbstractTensor, value: Any) -> AbstractTensor:
    """Choose between a tensor and a number: zero has any scale."""
    return where(t, mask, value, input)


def index_put(
    t: Trace, input: AbstractTensor, indices: Sequence[Any], values: AbstractTensor, accumulate: bool = False, **_: Any
) -> AbstractTensor:
    """Write one number where a mask says so, as in z[z < 0] = 0; with other indices, no symmetry acts."""
    mask = indices[0]
    if len(indices) == 1 and mask is not None and mask.shape == input.shape and not values.shape and not accumulate:
        return masked_fill(t, input, mask, values)
    return t.opaque([input, values, *(index for index in indices if index is not None)])


def copysign(t: Trace, input: AbstractTensor, other: AbstractTensor) -> AbstractTensor:
    """Multiply an absolute value by a sign."""
    size, sign = nonlinear(t, input, ELEMENTWISE["abs"]), nonlinear(t, other, ELEMENTWISE["sign"])
    return pointwise(t, [size, sign.generic()], [1, 1])


def heaviside(t: Trace, input: AbstractTensor, values: AbstractTensor) -> AbstractTensor:
    """Return 0, 1 or, at zero, values that are not scaled."""
    t.constraints.forbid_scaling(values)
    step = t.constraints.fill_padding(nonlinear(t, input, COMPARISONS["gt"]))
    return pointwise(t, [step, values.generic()], [1, 1])


def threshold(t: Trace, input: AbstractTensor, threshold: float, value: float) -> AbstractTensor:
    """Replace what does not exceed a threshold by a value: with both zero, a ReLU."""
    relu = threshold == 0 and value == 0
    return nonlinear(t, input, Elementwise(degree=1 if relu else None, zero=threshold < 0 or value == 0))


def clamp(t: Trace, input: AbstractTensor, min: Any = None, max: Any = None) -> AbstractTensor:
    """Clamp: at zero on one side a ReLU or its mirror image; any other keeps no scale."""
    if isinstance(min, AbstractTensor) or isinstance(max, AbstractTensor):
        for bound in (min, max):
            input = input if bound is None else extremum(t, input, bound)
        return input
    min, max = (None if bound is None or isinf(bound) else bound for bound in (min, max))
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


def rrelu(t: Trace, input: AbstractTensor, training: bool = False, **_: Any) -> Any:
    """Apply a leaky ReLU, whose slope is random in training only."""
    if training:
        raise UnknownOperation("a slope that is random in evaluation mode as well")
    result = nonlinear(t, input, ELEMENTWISE["leaky_relu"])
    return [result] * t.n_results if t.n_results > 1 else result


def dropout(t: Trace, input: AbstractTensor, **_: Any) -> Any:
    """Multiply by random numbers, if at all: scales pass."""
    return [input, AbstractTensor(t.shape, labels=())] if t.n_results > 1 else input


def alpha_dropout(t: Trace, input: AbstractTensor, train: bool = False, **_: Any) -> AbstractTensor:
    """Multiply by random numbers, and add others, if at all: then no scale passes."""
    if train:
        t.constraints.forbid_scaling(input)
        input = t.constraints.fill_padding(input.generic())
    return input


def glu(t: Trace, input: AbstractTensor, dim: int = -1) -> AbstractTensor:
    """Apply a gated linear unit: a * sigmoid(b), of the two halves of a dimension."""
    half = input.shape[dim] // 2
    a = reshaping.take(t.constraints, input, dim, np.arange(half))
    b = reshaping.take(t.constraints, input, dim, np.arange(half, 2 * half))
    return pointwise(t, [a, nonlinear(t, b)], [1, 1])
