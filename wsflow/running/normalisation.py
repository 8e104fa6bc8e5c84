"""Norms of n networks at once, with batch statistics in training mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from wsflow.architecture.program import Operation, ParameterValue
from wsflow.running.steps import Own, Step, aligned, is_own, rank, value

COUNTER = "num_batches_tracked"


def follows_batch(operation: Operation, training: bool) -> bool:
    """Return whether a batch or instance norm takes the statistics of the batch, not running ones."""
    _, _, _, mean, _, follows, *_ = operation.arguments
    return mean is None or (bool(follows) and training)


def channel_norm(
    step: Step,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    _: bool,
    momentum: float | None,
    eps: float,
    __: bool = False,
) -> Any:
    """Normalise every channel: a batch norm over the batch, an instance norm in every example."""
    known = value(x) if is_own(x) else value(x).unsqueeze(0)
    # behind the axis of networks
    axes = (*((1,) if step.operation.base == "batch_norm" else ()), *range(3, rank(x) + 1))
    follows = follows_batch(step.operation, step.updated is not None)
    is_one = not any(map(is_own, (x, weight, bias, mean, variance)))
    if follows and is_one and mean is not None and 1 in axes:
        return _followed(step, x, weight, bias, momentum, eps)
    if follows and mean is not None:
        variances, means = torch.var_mean(known.detach(), axes, correction=0, keepdim=True)
        count = known[0, :, 0].numel() if 1 in axes else known[0, 0, 0].numel()
        unbiased = variances * (count / max(count - 1, 1))
        _update(step, _over_instances(means), _over_instances(unbiased), count, momentum)
    if is_one:
        return _fused(x, weight, bias, None if follows else (mean, variance), eps, over_examples=1 in axes)
    if follows:
        variances, means = torch.var_mean(known, axes, correction=0, keepdim=True)
    else:
        # as in torch, nothing is differentiated by running statistics
        means, variances = (_beside(statistic, known.dim()).detach() for statistic in (mean, variance))
    scale = (variances + eps).rsqrt()
    scale = scale if weight is None else scale * _beside(weight, known.dim())
    shift = -means * scale if bias is None else _beside(bias, known.dim()) - means * scale
    return Own((known * scale + shift).expand(step.n, *known.shape[1:]))


def _fused(x: Tensor, weight: Any, bias: Any, statistics: Any, eps: float, over_examples: bool) -> Tensor:
    """Normalise one network by torch's own kernels, with given statistics or those of what comes in."""
    if statistics is None and not over_examples:
        return functional.instance_norm(x, weight=weight, bias=bias, use_input_stats=True, eps=eps)
    mean, variance = (None, None) if statistics is None else (each.detach() for each in statistics)
    return functional.batch_norm(x, mean, variance, weight, bias, statistics is None, 0.0, eps)


def _followed(step: Step, x: Tensor, weight: Any, bias: Any, momentum: float | None, eps: float) -> Tensor:
    """Normalise one network's batch by torch's own kernel, which gives the batch's statistics on the way."""
    means, variances = x.new_zeros(2, x.shape[1])
    result = functional.batch_norm(x, means, variances, weight, bias, True, 1.0, eps)
    _update(step, means.unsqueeze(0), variances.unsqueeze(0), x[:, 0].numel(), momentum)
    return result


def _beside(x: Any, axes: int) -> Tensor:
    """Return numbers of channels (n, c) as (n, 1, c, 1, ...)."""
    rows = value(x) if is_own(x) else value(x).unsqueeze(0)
    return rows.reshape(len(rows), 1, -1, *(axes - 3) * (1,))


def _over_instances(x: Tensor) -> Tensor:
    """Average statistics (n, 1 or b, c, ...) of batches, or of instances, to (n, c)."""
    return x.flatten(2).mean(1)


@torch.no_grad()
def _update(step: Step, means: Tensor, variances: Tensor, count: int, momentum: float | None) -> None:
    """Keep the running statistics that follow from means and unbiased variances (n, c) over `count` values."""
    assert step.updated is not None
    mean, variance = step.operation.arguments[3:5]
    if not isinstance(mean, ParameterValue) or not isinstance(variance, ParameterValue):
        return
    if count < 2:
        raise ValueError(f"in training mode a norm needs more than one value of each channel, got {count}")
    # instance norms do not count
    counts = step.operation.base == "batch_norm"
    rate: Any = _rate(step, f"{mean.name.rpartition('.')[0]}.{COUNTER}", momentum) if counts else momentum
    for name, batch in ((mean.name, means), (variance.name, variances)):
        before = step.updated.get(name, step.tensors[name])
        step.updated[name] = before + rate * (batch - before)


def _rate(step: Step, counter: str, momentum: float | None) -> Any:
    """Count the batch, and return the share of its statistics: one over their number where there is no momentum."""
    assert step.updated is not None
    if counter not in step.tensors:
        return momentum
    count = step.updated.get(counter, step.tensors[counter]) + 1
    step.updated[counter] = count.reshape(-1)
    return (1.0 / count).reshape(-1, 1) if momentum is None else momentum


def layer_norm(
    step: Step, x: Any, sizes: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, _: Any = None
) -> Own:
    """Normalise the last axes."""
    return _affine(functional.layer_norm(value(x), tuple(sizes), eps=eps), x, weight, bias)


def rms_norm(step: Step, x: Any, sizes: Any, weight: Any = None, eps: float | None = None) -> Own:
    """Divide by the root mean square over the last axes."""
    return _affine(functional.rms_norm(value(x), tuple(sizes), eps=eps), x, weight, None)


def _affine(normed: Tensor, x: Any, weight: Any, bias: Any) -> Own:
    if weight is not None:
        normed = normed * aligned(weight, rank(x))
    return Own(normed if bias is None else normed + aligned(bias, rank(x)))


def group_norm(
    step: Step, x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, _: Any = None
) -> Own:
    """Normalise groups of channels."""
    flat = value(x).flatten(0, 1) if is_own(x) else value(x)
    normed = functional.group_norm(flat, groups, eps=eps)
    normed = normed.unflatten(0, (step.n, -1)) if is_own(x) else normed.unsqueeze(0)
    if weight is not None:
        normed = normed * _beside(weight, normed.dim())
    return Own(normed if bias is None else normed + _beside(bias, normed.dim()))
