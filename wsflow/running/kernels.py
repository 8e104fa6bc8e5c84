"""Kernels that run an operation on n networks at once, by the operation's name.

A kernel takes a `Step` and the operands, `Own` where each network has its own. What has no kernel is mapped over the
networks by torch's batching rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture.operations import BY_KIND
from wsflow.architecture.program import Operation
from wsflow.running.normalisation import channel_norm, group_norm, layer_norm, rms_norm
from wsflow.running.products import CONVOLUTIONS, convolution, linear
from wsflow.running.steps import Own, Step, aligned, is_own, rank, shape, value

Kernel = Callable[..., Any]


def elementwise(step: Step, *operands: Any, **keywords: Any) -> Own:
    """Run an operation whose operands broadcast with each other."""
    axes = max(map(rank, operands))
    return Own(step.function(*(aligned(x, axes) for x in operands), **keywords))


def item(step: Step, values: Any, index: Any) -> Any:
    """Return one of several results."""
    return Own(values.value[index])


def size(step: Step, x: Any, axis: int | None = None) -> Any:
    """Return the size of an axis."""
    return shape(x) if axis is None else shape(x)[axis]


def reshape(step: Step, x: Any, sizes: Any) -> Own:
    """Change the shape within each network."""
    return Own(value(x).reshape(step.n, *sizes))


def folded(step: Step, x: Any, *settings: Any, **keywords: Any) -> Any:
    """Run an operation on images, whose first axis is one of examples, with networks and examples in one axis."""
    sizes = value(x).shape[:2]
    result = step.function(value(x).flatten(0, 1), *settings, **keywords)
    if isinstance(result, Tensor):
        return Own(result.unflatten(0, sizes))
    return Own([each.unflatten(0, sizes) for each in result])


def attention(
    step: Step,
    query: Any,
    key: Any,
    values: Any,
    mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **keywords: Any,
) -> Any:
    """Run attention by products and a softmax, which can be differentiated twice, with dropout in training mode."""
    own, dropped = any(map(is_own, (query, key, values, mask))), None
    share = 0.0 if step.draws is None else dropout_p
    if share and step.draws is not None:
        scores = (*torch.broadcast_shapes(shape(query)[:-2], shape(key)[:-2]), shape(query)[-2], shape(key)[-2])
        dropped = Own(step.draws.bernoulli(scores, 1 - share, value(query)).bool())
    axes = max(map(rank, (query, key, values)))
    query, key, values, mask, dropped = (aligned(x, axes) for x in (query, key, values, mask, dropped))
    if dropped is not None:
        query = query.expand(*dropped.shape[:-1], query.shape[-1])
    result, _ = torch.ops.aten._scaled_dot_product_attention_math(
        query, key, values, mask, share, is_causal, dropped, **keywords
    )
    return Own(result) if own or dropped is not None else result


def dropout(step: Step, x: Any, p: float, train: bool) -> Any:
    """Put zeros into a share p of the numbers, other ones for each network, and scale the rest up."""
    if step.draws is None or not train or not p:
        return x
    kept = step.draws.bernoulli(shape(x), 1 - p, value(x))
    return Own(value(x) * (kept if p == 1 else kept / (1 - p)))


def alpha_dropout(step: Step, x: Any, p: float, train: bool) -> Any:
    """Put the number to which SELU tends into a share p of the numbers, or of the channels, and restore the moments.

    Klambauer et al. 2017, arXiv:1706.02515.
    """
    if step.draws is None or not train or not p:
        return x
    if p == 1:
        return Own((value(x) * 0).expand(step.n, *shape(x)))
    sizes = shape(x) if step.operation.base == "alpha_dropout" else (*shape(x)[:2], *(rank(x) - 2) * (1,))
    saturated = -1.7580993408473766
    scale = ((saturated**2 * p + 1) * (1 - p)) ** -0.5
    kept = step.draws.bernoulli(sizes, 1 - p, value(x))
    return Own(value(x) * kept * scale + (saturated * scale * (1 - kept) - saturated * scale * p))


def drawn(step: Step, *operands: Any, **keywords: Any) -> Any:
    """Draw numbers for each network in training mode; in evaluation mode return their mean."""
    if step.draws is None:
        return (
            step.mapped(*operands, **keywords) if any(map(is_own, operands)) else step.function(*operands, **keywords)
        )
    return Own(DRAWN[step.operation.base](step.draws, *operands, **keywords))


def _bernoulli(draws: Any, x: Any, p: float | None = None) -> Tensor:
    if p is not None:
        return draws.bernoulli(shape(x), p, value(x))
    return (draws.uniform(shape(x), 0.0, 1.0, value(x)) < value(x)).to(value(x).dtype)


def _uniform(draws: Any, x: Any, low: float = 0.0, high: float = 1.0) -> Tensor:
    return draws.uniform(shape(x), low, high, value(x))


def _normal(draws: Any, x: Any, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return draws.normal(shape(x), mean, std, value(x))


def _sized(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda draws, size, dtype=None, **_: draw(draws, torch.empty(size, dtype=dtype))


def _like(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda draws, x, dtype=None, **_: draw(draws, Own(value(x).to(dtype)) if is_own(x) else x.to(dtype))


def rrelu(step: Step, x: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Own:
    """Multiply negative numbers by slopes, which are drawn in training mode."""
    if step.draws is None or not training:
        return elementwise(step, x, lower, upper)
    slopes = step.draws.uniform(shape(x), lower, upper, value(x))
    return Own(torch.where(value(x) < 0, slopes * value(x), value(x)))


DRAWN: dict[str, Callable[..., Tensor]] = {
    "bernoulli": _bernoulli,
    "uniform": _uniform,
    "normal_functional": _normal,
    "rand": _sized(_uniform),
    "rand_like": _like(_uniform),
    "randn": _sized(_normal),
    "randn_like": _like(_normal),
}
# their operands broadcast, but not all of them
_OTHERWISE = ("prelu", "glu", "rrelu", "rrelu_with_noise", "masked_fill")
KERNELS: dict[str, Kernel] = {
    **{name: elementwise for name in BY_KIND["elementwise"].split() if name not in _OTHERWISE},
    **dict.fromkeys(BY_KIND["images"].split(), folded),
    "getitem": item,
    "sym_size": size,
    "linear": linear,
    "reshape": reshape,
    **dict.fromkeys(CONVOLUTIONS, convolution),
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(("batch_norm", "instance_norm"), channel_norm),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "dropout": dropout,
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout"), alpha_dropout),
    "rrelu": rrelu,
    **dict.fromkeys(DRAWN, drawn),
}
# in training mode, they give each network a value of its own from one that all networks share
_DRAWING = frozenset(["dropout", "alpha_dropout", "feature_alpha_dropout", "rrelu", *DRAWN])
# they have a kernel whatever their operands are
_ALWAYS = frozenset(["batch_norm", "instance_norm", "scaled_dot_product_attention", *CONVOLUTIONS])


def is_drawing(operation: Operation) -> bool:
    """Return whether an operation draws random numbers in training mode."""
    if operation.base == "scaled_dot_product_attention":
        return bool(dict(operation.keywords).get("dropout_p") or operation.arguments[4:5] not in ((), (0.0,)))
    return operation.base in _DRAWING


def computed(step: Step, arguments: list[Any], keywords: dict[str, Any], own: bool) -> Any:
    """Return the result of an operation; `own` says whether any of its operands is one network's own."""
    base = step.operation.base
    if not own and base not in _ALWAYS and (step.draws is None or base not in _DRAWING):
        return step.function(*arguments, **keywords)
    kernel = KERNELS.get(base)
    return step.mapped(*arguments, **keywords) if kernel is None else kernel(step, *arguments, **keywords)
