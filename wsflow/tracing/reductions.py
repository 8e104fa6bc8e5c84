"""Rules for reductions, orders and normalization: sums, means, maxima, sorting, softmax, norms, also of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, distinct
from wsflow.tracing.contraction import Operands, contract
from wsflow.tracing.pointwise import ELEMENTWISE, Elementwise, biased, extremum, nonlinear, pointwise, pointwise_on
from wsflow.tracing.stacking import joined
from wsflow.tracing.trace import Trace, scaleless


def _dims(dim: Any, rank: int) -> list[int]:
    chosen = range(rank) if dim is None or dim == [] else ([dim] if isinstance(dim, int) else dim)
    return sorted(d % rank for d in chosen)


def reduction(
    t: Trace, input: AbstractTensor | Sequence[AbstractTensor], dim: Any = None, keepdim: bool = False, **_: Any
) -> AbstractTensor:
    """Sum over dimensions: also a product of tensors, aligned on their last dimensions, as an einsum does."""
    factors = [input] if isinstance(input, AbstractTensor) else input
    rank = max(len(factor.shape) for factor in factors)
    gone = _dims(dim, rank)
    out = [d for d in range(rank) if d not in gone]
    operands: Operands = [(factor, range(rank - len(factor.shape), rank)) for factor in factors]
    if len(factors) > 1:
        operands = joined(t, operands, out)
    result = contract(t.constraints, operands, out, [1] * len(factors))
    for d in gone if keepdim else []:
        result = reshaping.insert(result, d)
    return result


def mean(t: Trace, input: AbstractTensor, dim: Any = None, keepdim: bool = False, **_: Any) -> AbstractTensor:
    """Average: over pixels the mean of c - a is c - mean a, so flips pass where no neurons are averaged."""
    if len(input.axes) != 1 or input.axes_on(_dims(dim, len(input.shape))):
        return reduction(t, t.constraints.without_flips(input), dim, keepdim)
    result = reduction(t, input, dim, keepdim)
    return replace(result, axes=(replace(result.axes[0], shear=input.axes[0].shear),))


def maximum(
    t: Trace, input: AbstractTensor, dim: Any = None, keepdim: bool = False, other: Any = None, **_: Any
) -> Any:
    """Take a maximum, also of two tensors: no signs pass, and the positions that come with it have no scale."""
    if other is not None:
        return extremum(t, input, other)
    t.constraints.forbid_scaling(input, positive=False)
    result = reduction(t, input, dim, keepdim)
    return [result, scaleless(result)] if t.n_results > 1 else result


def statistics(t: Trace, input: AbstractTensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """Take a product, a logarithm of a sum of exponentials and the like: no scale passes."""
    t.constraints.forbid_scaling(input)
    return _results(t, reduction(t, input, dim, keepdim))


def vector_norm(t: Trace, input: AbstractTensor, dim: Any = None, keepdim: bool = False, **_: Any) -> AbstractTensor:
    """Take a norm: that of s x is |s| times that of x, and each sign drops out."""
    return reduction(t, nonlinear(t, input, ELEMENTWISE["abs"]), dim, keepdim)


def spread(
    t: Trace, input: AbstractTensor, row: Elementwise, dim: Any = None, keepdim: bool = False, **_: Any
) -> AbstractTensor:
    """Take a variance or standard deviation, of numbers that scale alike."""
    mixed = input.axes_on(_dims(dim, len(input.shape)))
    t.constraints.forbid_scaling(replace(input, axes=tuple(mixed)))
    return reduction(t, nonlinear(t, input, row), dim, keepdim)


def _results(t: Trace, result: AbstractTensor) -> Any:
    return [result] * t.n_results if t.n_results > 1 else result


def softmax(t: Trace, input: AbstractTensor, dim: int, *_: Any, **__: Any) -> AbstractTensor:
    """Take a softmax along a dimension: neurons there are permuted along, and nothing is scaled."""
    return _normalized(t, input, [dim])


def scan(t: Trace, input: AbstractTensor, dim: int = -1, **_: Any) -> AbstractTensor:
    """Sum up or sort along a dimension, whose neurons are fixed."""
    for axis in input.axes_on(_dims(dim, len(input.shape))):
        t.constraints.fix(axis.atoms)
    t.constraints.forbid_scaling(input)
    return input.generic().mixed(_dims(dim, len(input.shape)), order=True)


def _normalized(t: Trace, input: AbstractTensor, dims: Sequence[int]) -> AbstractTensor:
    t.constraints.forbid_scaling(input)
    t.nest_along(input, dims)
    return t.constraints.fill_padding(input.generic().mixed(_dims(list(dims), len(input.shape))))


def _affine(t: Trace, input: AbstractTensor, weight: Any, bias: Any, dims: Sequence[int]) -> AbstractTensor:
    """Map gamma x + beta."""
    if weight is not None:
        input = pointwise_on(t, input, weight, dims, [1, 1])
    return biased(t, input, bias, dims)


def layer_norm(
    t: Trace, input: AbstractTensor, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, **_: Any
) -> AbstractTensor:
    """Normalize (x - mean x) / sd x: invariant under permutations; its scale is set behind it."""
    dims = range(len(input.shape) - len(normalized_shape), len(input.shape))
    return _affine(t, _normalized(t, input, dims), weight, bias, dims)


def rms_norm(
    t: Trace, input: AbstractTensor, normalized_shape: Sequence[int], weight: Any = None, **_: Any
) -> AbstractTensor:
    """Normalize x / rms x: signs pass."""
    dims = range(len(input.shape) - len(normalized_shape), len(input.shape))
    t.constraints.forbid_scaling(input, sign=False)
    t.nest_along(input, dims)
    return _affine(t, input.generic().mixed(dims), weight, None, dims)


def group_norm(
    t: Trace, input: AbstractTensor, num_groups: int, weight: Any = None, bias: Any = None, **_: Any
) -> AbstractTensor:
    """Normalize each group of channels as a layer norm: channels lie in groups."""
    t.constraints.forbid_scaling(input)
    batch, channels, *space = input.shape
    split = reshaping.reshape(t.constraints, input, (batch, num_groups, channels // num_groups, *space))
    t.nest_along(split, range(2, len(split.shape)))
    whole = reshaping.reshape(t.constraints, split.mixed(range(2, len(split.shape))), input.shape)
    return _affine(t, t.constraints.fill_padding(whole.generic()), weight, bias, [1])


def batch_norm(
    t: Trace,
    input: AbstractTensor,
    weight: Any = None,
    bias: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    **_: Any,
) -> Any:
    """Normalize gamma (x - m) / sqrt(v + eps) + beta: signs pass.

    Positive scalings before it do not: compensated in gamma they would keep this function, but not that with
    statistics computed again.
    """
    t.constraints.forbid_scaling(input, sign=False)
    result = input.generic()
    if running_mean is None:
        # statistics of the tensor itself: what else has neurons, as a standardised kernel has, is averaged over
        others = [dim for dim in range(len(input.shape)) if dim != 1]
        t.constraints.forbid_scaling(replace(input, axes=tuple(input.axes_on(others))))
        t.nest_along(input, others)
        result = result.mixed(others).mixed(others[1:])
    else:
        t.statistics |= {buffer.parameter for buffer in (running_mean, running_var) if buffer.parameter}
        t.constraints.forbid_scaling(running_var)
        result = pointwise_on(t, result, running_mean, [1], None)
        result = pointwise_on(t, result, running_var, [1], [1, 1])
    return _results(t, _affine(t, result, weight, bias, [1]))


def ranked(t: Trace, input: AbstractTensor, dim: int = -1, **_: Any) -> Any:
    """Sort, or take the largest k, along a dimension, whose neurons are fixed: experts, where that routes."""
    dim %= max(1, len(input.shape))
    t.constraints.forbid_scaling(input)
    input = t.constraints.fix_on(input, [dim]).mixed([dim])
    labels = [own for own in input.labels if dim not in own.dims]
    if len(t.shape) == len(input.shape):
        values = AbstractTensor(tuple(t.shape), input.axes, (*labels, *distinct(t.shape, [dim])))
    else:
        place = {d: d - (d > dim) for d in range(len(input.shape))}
        axes = tuple(axis.renamed(place) for axis in input.axes)
        values = AbstractTensor(tuple(t.shape), axes, tuple(own.renamed(place) for own in labels))
    return [values, scaleless(values)] if t.n_results > 1 else values


def position(t: Trace, input: AbstractTensor, dim: int | None = None, **_: Any) -> AbstractTensor:
    """Take the position of a maximum: neurons along the dimension have numbers."""
    if dim is None:
        return t.opaque([input])
    result: AbstractTensor = ranked(t, input, dim)
    return scaleless(result)


def weight_norm(t: Trace, v: AbstractTensor, g: AbstractTensor, dim: int = 0) -> Any:
    """Map g v / |v|, with a norm for each index of one dimension (-1: one for all): there v may have any length.

    References
    ----------
    Salimans and Kingma 2016, arXiv:1602.07868.
    """
    rest = [d for d in range(len(v.shape)) if dim == -1 or d != dim % len(v.shape)]
    t.constraints.forbid_scaling(replace(v, axes=tuple(v.axes_on(rest))), sign=False)
    t.nest_along(v, rest)
    # a length is lost, a sign is not
    axes = tuple(replace(axis, terms=tuple((0, s, variables) for _, s, variables in axis.terms)) for axis in v.axes)
    result = pointwise(t, [replace(v.generic().mixed(rest), axes=axes), g], [1, 1])
    return [result, g.generic()] if t.n_results > 1 else result
