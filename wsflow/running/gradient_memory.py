"""How many bytes gradients of networks take, measured on one network."""

from __future__ import annotations

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
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = forward(row, architecture, inputs)
    # all networks share the inputs
    kept = sum(size for place, size in sizes.items() if place != inputs.untyped_storage().data_ptr())
    del outputs
    return kept
