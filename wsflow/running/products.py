"""Products with the weights of n networks: linear layers in one product, convolutions network by network.

Where a convolution cuts its image into patches that do not overlap, it is a linear layer of each patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture.program import Operation, ParameterValue
from wsflow.running.affine import CONVOLUTION, each_axis
from wsflow.running.steps import Own, Step, is_own, rank, shape, stacked, value

_FORWARD = frozenset(f"conv{n}d" for n in (1, 2, 3))
CONVOLUTIONS = _FORWARD | {f"conv_transpose{n}d" for n in (1, 2, 3)} | {"convolution"}


def linear(step: Step, x: Any, weight: Any, bias: Any = None) -> Own:
    """Multiply by the matrix of each network, all networks in one product."""
    if not is_own(weight) or not (bias is None or is_own(bias)):
        return step.mapped(x, weight, bias)
    inner = shape(x)[:-1]
    rows = value(x) if rank(x) == 2 else value(x).reshape(*(step.n,) * is_own(x), -1, value(x).shape[-1])
    rows = rows if is_own(x) else rows.expand(step.n, *rows.shape)
    matrix = weight.value.transpose(1, 2)
    result = torch.bmm(rows, matrix) if bias is None else torch.baddbmm(bias.value.unsqueeze(1), rows, matrix)
    return Own(result if rank(x) == 2 else result.reshape(step.n, *inner, -1))


def convolution(step: Step, x: Any, weight: Any, bias: Any = None, *settings: Any, **keywords: Any) -> Any:
    """Convolve network by network: on a CPU, convolutions of all networks in one take longer."""
    if not any(map(is_own, (x, weight, bias))):
        return _channels_last(step.function(_channels_last(x), weight, bias, *settings, **keywords))
    own = is_own(weight) and (bias is None or is_own(bias))
    if own and _cuts(step.operation, shape(weight), [*settings], keywords):
        return _patches(step, x, weight, bias)
    given = [operand.value.unbind() if is_own(operand) else [operand] * step.n for operand in (x, weight, bias)]
    return Own(stacked(step.function(*each, *settings, **keywords) for each in zip(*given, strict=True)))


def is_sliding(operation: Operation, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether an operation is a convolution whose patches overlap, or are not those of one matrix."""
    if operation.base not in CONVOLUTIONS:
        return False
    weight, settings = operation.arguments[1], list(operation.arguments[3:])
    known = isinstance(weight, ParameterValue)
    return not known or not _cuts(operation, tensors[weight.name].shape[1:], settings, dict(operation.keywords))


def _cuts(operation: Operation, kernel: Sequence[int], settings: list[Any], keywords: Mapping[str, Any]) -> bool:
    """Return whether a convolution by a kernel (outputs, channels, *sizes) reads each number of its image once."""
    sizes = list(kernel[2:])
    known = {**CONVOLUTION, **dict(zip(CONVOLUTION, settings, strict=False)), **keywords}
    wanted = {"stride": sizes, "padding": [0] * len(sizes), "dilation": [1] * len(sizes)}
    plain = all(each_axis(known[name], len(sizes)) == each for name, each in wanted.items())
    return operation.base in _FORWARD and known["groups"] == 1 and plain


def _patches(step: Step, x: Any, weight: Any, bias: Any) -> Own:
    """Multiply the patches of an image by the matrix of each network; what is left of it at its end is not read."""
    sizes = shape(weight)[2:]
    axes, cut = len(sizes), value(x)
    first = cut.dim() - axes
    for axis, size in enumerate(sizes, start=first):
        cut = cut.unfold(axis, size, size)
    rows = cut.movedim(first - 1, first - 1 + axes).flatten(first - 1 + axes)
    result = linear(step, Own(rows) if is_own(x) else rows, Own(weight.value.flatten(2)), bias)
    return Own(result.value.movedim(-1, -1 - axes))


def _channels_last(x: Tensor) -> Tensor:
    """Put the channels of images last in memory, with which float32 kernels take less time, above all backwards."""
    if x.dim() != 4 or x.dtype != torch.float32:
        return x
    # not by a memory format, which torch does not batch; of one channel only a copy has the strides that are meant
    last = x.permute(0, 2, 3, 1)
    last = last.contiguous() if x.shape[1] > 1 else last.clone(memory_format=torch.contiguous_format)
    return last.permute(0, 3, 1, 2)
