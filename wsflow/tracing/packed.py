"""Packed sequences while a module is traced: as if all sequences were as long as the longest.

What neurons do does not depend on the lengths, and torch.export cannot follow them. The certificate runs the module as
it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode


def full_length(value: Any) -> Any:
    """Return a packed sequence with all sequences as long as the longest, and anything else as it is."""
    if not isinstance(value, PackedSequence):
        return value
    return PackedSequence(*_packed(pad_packed_sequence(value)[0], None, False))


@contextmanager
def unpacked(module: nn.Module) -> Iterator[None]:
    """Let packing, unpacking and recurrent layers work on sequences of full length."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.RNNBase)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        with _FullLength():
            yield
    finally:
        for layer in layers:
            del layer.forward


class _FullLength(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replacement = REPLACED.get(getattr(func, "__name__", ""), func)
        return replacement(*args, **(kwargs or {}))


def _packed(input: Tensor, lengths: Any, batch_first: bool) -> tuple[Tensor, Tensor]:
    steps = input.transpose(0, 1) if batch_first else input
    return steps.flatten(0, 1), torch.full((steps.shape[0],), steps.shape[1], dtype=torch.int64)


def _padded(data: Tensor, sizes: Tensor, batch_first: bool, padding: Any, total: int) -> tuple[Tensor, Tensor]:
    steps = data.unflatten(0, (sizes.shape[0], -1))
    lengths = torch.full((steps.shape[1],), steps.shape[0], dtype=torch.int64)
    return (steps.transpose(0, 1) if batch_first else steps), lengths


REPLACED: dict[str, Callable[..., Any]] = {"_pack_padded_sequence": _packed, "_pad_packed_sequence": _padded}


def _forward(layer: nn.RNNBase, input: Any, hx: Any = None) -> Any:
    forward = partial(type(layer).forward, layer)
    if not isinstance(input, PackedSequence):
        return forward(input, hx)
    data, sizes, order, back = input
    steps = data.unflatten(0, (sizes.shape[0], -1))
    if hx is not None:
        hx = layer.permute_hidden(hx, order)
    output, hidden = forward(steps.transpose(0, 1) if layer.batch_first else steps, hx)
    output = output.transpose(0, 1) if layer.batch_first else output
    return PackedSequence(output.flatten(0, 1), sizes, order, back), layer.permute_hidden(hidden, back)
