"""Rules along axes: means, maxima, softmax, norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wsflow.tracing import shapes
from wsflow.tracing.labels import Label, contract
from wsflow.tracing.operations import biased, pointwise_on
from wsflow.tracing.recording import Recorder


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
    """A mean over pixels takes c - a to c - mean a, so flips pass where no neurons are averaged."""
    gone = _dims(dim, len(input.shape))
    if len(input.legs) != 1 or input.touching(gone):
        return reduction(t, t.ledger.settled(input), dim, keepdim)
    result = reduction(t, input, dim, keepdim)
    return replace(result, legs=(replace(result.legs[0], shear=input.legs[0].shear),))


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
        t.ledger.still(leg, sign=False)
    t.tie(input, dims)
    return affine(t, input.plain(), weight, None, dims)


def affine(t: Recorder, input: Label, weight: Any, bias: Any, dims: Sequence[int]) -> Label:
    """gamma x + beta."""
    if weight is not None:
        input = pointwise_on(t, input, weight, dims, [1, 1])
    return biased(t, input, bias, dims)


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
        t.ledger.still(leg, sign=False)
    result = input.plain()
    if running_mean is None:
        # statistics of the tensor itself: what else has neurons, as a standardised kernel has, is averaged over
        others = [dim for dim in range(len(input.shape)) if dim != 1]
        for leg in input.touching(others):
            t.ledger.still(leg)
        t.tie(input, others)
    else:
        t.statistic(running_mean, running_var)
        t.still(running_var)
        result = pointwise_on(t, result, running_mean, [1], None)
        result = pointwise_on(t, result, running_var, [1], [1, 1])
    result = affine(t, result, weight, bias, [1])
    return [result] * t.n_results if t.n_results > 1 else result
