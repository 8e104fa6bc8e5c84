"""Recompute the statistics of batch norms, as means over batches of a pass in training mode.

Batch norms normalise with the statistics of the batch, and the mean over batches is kept, as with ``momentum=None`` in
torch. Batches are interleaved, so that sorted data do no harm. Dropout and everything else stay in evaluation mode, and
the user's module is never touched.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.running.execution import run_module
from wsflow.running.modules import to_module
from wsflow.running.rows import flatten, unflatten


@dataclass(frozen=True)
class ModuleRunner:
    """A module that runs an architecture's networks; `keys` are the parameters' names in its state dict."""

    architecture: Architecture
    module: nn.Module
    keys: dict[str, str]

    @classmethod
    def of(cls, architecture: Architecture, module: Any = None) -> ModuleRunner:
        """Return the runner by the given module, by the architecture's layers, or by its own module."""
        keys = {name: name for name in architecture.names}
        if module is None and architecture.layers:
            zeros = unflatten(torch.zeros(1, architecture.n_weights), architecture)
            built = to_module(architecture, {name: tensor[0] for name, tensor in zeros.items()})
            indices = {layer.name: str(i) for i, layer in enumerate(architecture.layers)}
            keys = {name: ".".join([indices[name.rpartition(".")[0]], name.rpartition(".")[2]]) for name in keys}
            return cls(architecture, built, keys)
        module = architecture.executable if module is None else module
        if module is None:
            raise InvalidInputError(
                "This architecture does not say how to run its networks, so their statistics cannot be gathered. "
                "Pass module=, or leave statistics as they are with statistics='average', repair=False."
            )
        return cls(architecture, module, keys)

    def unflatten(self, weights: Tensor) -> dict[str, Tensor]:
        """Return weights (n, d) as tensors (n, *shape), by their keys."""
        tensors = unflatten(weights, self.architecture)
        # of their own memory: a pass in training mode writes into them
        return {self.keys[name]: tensor.clone() for name, tensor in tensors.items()}

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the inverse of `unflatten`, shape (n, d)."""
        return flatten({name: tensors[key] for name, key in self.keys.items()}, self.architecture)

    def training_copy(self) -> nn.Module:
        """Return a copy of the module whose batch norms are in training mode; each batch replaces their statistics."""
        module = copy.deepcopy(self.module).eval()
        for layer in module.modules():
            if getattr(layer, "running_mean", None) is not None:
                layer.train()
                layer.momentum = 1.0  # type: ignore[assignment]
        return module

    def statistics(self) -> tuple[str, ...]:
        """Return the keys of the statistics that a pass in training mode replaces: not the count of batches."""
        keys = [self.keys[p.name] for p in self.architecture.parameters if p.role == "statistic"]
        owners = {key: self.module.get_submodule(key.rpartition(".")[0]) for key in keys}
        return tuple(
            key
            for key, layer in owners.items()
            if getattr(layer, "running_mean", None) is not None and not key.endswith("num_batches_tracked")
        )


def batch_statistics(weights: Tensor, runner: ModuleRunner, inputs: Tensor, batch_size: int) -> Tensor:
    """Return the networks (n, d) with the statistics of their batch norms recomputed over inputs (b, ...)."""
    tensors = runner.unflatten(weights)
    buffers = _Buffers(runner.training_copy(), runner.statistics())
    return runner.flatten(tensors | mean_over_batches(buffers, tensors, inputs, batch_size))


class _Buffers(nn.Module):
    """A module that returns the named buffers as they are after its forward pass."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the buffers after a pass, by name."""
        self.module(*inputs)
        buffers = dict(self.module.named_buffers(remove_duplicate=False))
        return {name: buffers[name].clone() for name in self.names}


@torch.no_grad()
def mean_over_batches(
    wrapper: nn.Module,
    tensors: Mapping[str, Tensor],
    inputs: Tensor,
    batch_size: int,
    buffers: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the mean over batches of the tensors that a wrapper of the networks' module returns, each (n, ...).

    The wrapper holds the module as its attribute ``module``; `buffers` (n, ...) are its own.
    """
    if batch_size < 2:
        raise ValueError(f"The 'batch_size' of statistics is at least 2, got {batch_size}.")
    state = {f"module.{name}": tensor.clone() for name, tensor in tensors.items()} | dict(buffers or {})
    inputs = inputs.to(next(iter(tensors.values())).dtype) if inputs.is_floating_point() else inputs.long()
    total: dict[str, Tensor] = {}
    count = -(-len(inputs) // batch_size)
    for i in range(count):
        # interleaved batches of nearly one size
        for name, value in run_module(state, wrapper, inputs[i::count]).items():
            total[name] = total[name] + value if name in total else value
    return {name: value / count for name, value in total.items()}
