"""Losses and gradients of the networks of a chunk, in training mode: all at once, or one network after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.running import forward, losses
from wsflow.running.activation_sizes import runs_in_one_product
from wsflow.running.modules import copied
from wsflow.running.outputs import output_of
from wsflow.running.program import ProgramModule

# inputs, targets, weights of examples -> losses (n,) and gradients (n, d)
Gradients = Callable[[Tensor, Tensor, "Tensor | None"], tuple[Tensor, Tensor]]


def gradients_of(weights: Tensor, architecture: Architecture, loss: Any) -> Gradients:
    """Return what computes the gradients of weights (n, d) where they are in memory; it updates their statistics."""
    return (_Batched if runs_in_one_product(architecture) else _OneByOne)(weights, architecture, loss)


class _Batched:
    """Sequential networks, as one product of matrices for each layer."""

    def __init__(self, weights: Tensor, architecture: Architecture, loss: Any) -> None:
        self.weights, self.architecture, self.loss = weights.detach().requires_grad_(), architecture, loss

    def __call__(self, inputs: Tensor, targets: Tensor, shares: Tensor | None) -> tuple[Tensor, Tensor]:
        outputs = forward(self.weights, self.architecture, inputs)
        loss = losses(outputs, targets, self.loss, shares)
        (gradient,) = torch.autograd.grad(loss.sum(), self.weights)
        return loss.detach(), gradient


class _OneByOne:
    """Networks that a module runs, one after the other, while their activations are in the caches."""

    def __init__(self, weights: Tensor, architecture: Architecture, loss: Any) -> None:
        self.loss = loss
        self.module = training_module(architecture).to(weights.dtype)
        self.gradient = torch.zeros_like(weights)
        self.networks = [_views(row, architecture) for row in weights.detach()]
        learned = [p.name for p in architecture.parameters if p.role == "weight"]
        for network in self.networks:
            for name in learned:
                network[name].requires_grad_()
        self.learned = [[network[name] for name in learned] for network in self.networks]
        views = [_views(row, architecture) for row in self.gradient]
        self.parts = [[view[name] for name in learned] for view in views]

    def __call__(self, inputs: Tensor, targets: Tensor, shares: Tensor | None) -> tuple[Tensor, Tensor]:
        result = []
        for i, (learned, parts) in enumerate(zip(self.learned, self.parts, strict=True)):
            outputs = self._outputs(i, inputs[i])
            own = None if shares is None else shares[i : i + 1]
            loss = losses(outputs.unsqueeze(0), targets[i : i + 1], self.loss, own)
            gradients = torch.autograd.grad(loss.sum(), learned, allow_unused=True, materialize_grads=True)
            torch._foreach_copy_(parts, list(gradients))
            result.append(loss.detach())
        return torch.cat(result), self.gradient

    def _outputs(self, i: int, inputs: Tensor) -> Tensor:
        try:
            outputs: Tensor = output_of(torch.func.functional_call(self.module, self.networks[i], inputs))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InvalidInputError(
                "A batch norm has no variance of one value, and a batch has one example. Choose another 'batch_size'; "
                "the last batch of an epoch has what is left of the examples."
            ) from error
        return outputs


def training_module(architecture: Architecture) -> nn.Module:
    """Return a module in training mode that runs an architecture's networks."""
    module = ProgramModule(architecture) if architecture.program is not None else copied(architecture.module)
    return module.train()


def _views(row: Tensor, architecture: Architecture) -> dict[str, Tensor]:
    """Return the parameters of a network, in the memory of its row (d,)."""
    # .data: statistics are updated in place, which must not count as a change of the weights beside them
    return {p.name: row[architecture.slices[p.name]].view(p.shape).data for p in architecture.parameters}


def activation_bytes(architecture: Architecture, inputs: Tensor) -> int:
    """Measure what the forward pass of one network keeps for its gradient, on a batch of inputs (b, ...)."""
    weights = torch.zeros(
        1, architecture.n_weights, dtype=inputs.dtype if inputs.is_floating_point() else torch.float32
    )
    own = {x.untyped_storage().data_ptr() for x in (weights, inputs)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    one = _OneByOne(weights, architecture, "mse")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        one._outputs(0, inputs)
    return sum(kept.values())
