"""How many bytes gradients of networks take, measured on one network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from wsflow.architecture import Architecture
from wsflow.running.execution import forward
from wsflow.running.metrics import matched


def kept_for_gradients(architecture: Architecture, inputs: Tensor) -> int:
    """Return how many bytes each network keeps for its gradients by an input such as the first of inputs (b, ...)."""
    row = torch.zeros(1, architecture.n_weights, dtype=torch.float32, requires_grad=True)
    example = matched(inputs[:1], row)
    # norms of a batch need more than one
    two, four = (_kept(row, architecture, torch.cat(n * [example])) for n in (2, 4))
    return (four - two) // 2


def _kept(row: Tensor, architecture: Architecture, inputs: Tensor) -> int:
    sizes = kept_storages(lambda: forward(row, architecture, inputs))
    # all networks share the inputs
    return sum(size for place, size in sizes.items() if place != inputs.untyped_storage().data_ptr())


def kept_storages(compute: Callable[[], Any]) -> dict[int, int]:
    """Return the bytes of all that a computation keeps for its gradients, by their places in memory."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        # while its result is there, no place is used twice
        result = compute()
    del result
    return sizes
