"""Examples of a task, and losses of many networks on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.losses import loss_of
from wsflow.running import forward, losses, matched, unflatten
from wsflow.running.execution import run_module

# rows of weights that are run or optimised at once hold at most so many numbers
CHUNK_NUMBERS = 2**23
BATCH = 2048


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs (b, ...) and targets (b,) or (b, k) of a task, with its loss; a module runs networks with statistics.

    Batch norms use the statistics of the batch: those of an average of two networks belong to neither, and are
    recomputed after merging anyway.
    """

    architecture: Architecture
    inputs: Tensor
    targets: Tensor
    loss: Any
    weights: Tensor | None = None
    module: Any = None

    @classmethod
    def of(
        cls, architecture: Architecture, inputs: Tensor, targets: Tensor, loss: Any, weights: Tensor | None = None
    ) -> Examples:
        """Return the examples of a task for the networks of an architecture."""
        return cls(architecture, inputs, targets, loss, weights, _with_batch_statistics(architecture))

    def __len__(self) -> int:
        return len(self.inputs)

    def draw(self, size: int, generator: torch.Generator) -> Examples:
        """Return examples drawn without repetition; all of them, where there are no more."""
        if size >= len(self):
            return self
        return self._at(torch.randperm(len(self), generator=generator)[:size].to(self.inputs.device))

    def _at(self, index: Tensor) -> Examples:
        weights = None if self.weights is None else self.weights[index]
        return replace(self, inputs=self.inputs[index], targets=self.targets[index], weights=weights)

    @property
    def constant_loss(self) -> float:
        """The loss of the best constant prediction, such as the entropy of the classes: see `wsflow.losses.Loss`."""
        targets = self.targets.double() if self.targets.is_floating_point() else self.targets
        weights = targets.new_ones(len(self)) if self.weights is None else self.weights
        return loss_of(self.loss).scale(targets, weights.double())

    def losses(self, weights: Tensor) -> Tensor:
        """Return the mean loss (n,) of each network (n, d), to be differentiated."""
        inputs, targets = (matched(values, weights) for values in (self.inputs, self.targets))
        share = None if self.weights is None else self.weights.to(weights)
        return losses(self._outputs(weights, inputs), targets, self.loss, share)

    def _outputs(self, weights: Tensor, inputs: Tensor) -> Tensor:
        if self.module is None:
            return forward(weights, self.architecture, inputs)
        # buffers that the module has no more would come back with their values
        gone = {name for name, buffer in _buffers(self.module) if buffer is None}
        tensors = unflatten(weights, self.architecture)
        outputs: Tensor = run_module({k: v for k, v in tensors.items() if k not in gone}, self.module, inputs)
        return outputs

    @torch.no_grad()
    def evaluate(self, weights: Tensor) -> Tensor:
        """Return the mean loss (n,) of each network (n, d), computed for a few networks and examples at a time."""
        totals = []
        # batch statistics need batches that are not small: these are of equal size
        batches = torch.arange(len(self)).chunk(-(-len(self) // BATCH))
        for rows in weights.split(chunk_size(weights)):
            total = rows.new_zeros(len(rows))
            for index in batches:
                total += self._at(index).losses(rows) * (len(index) / len(self))
            totals.append(total)
        return torch.cat(totals) if totals else weights.new_zeros(0)


def chunk_size(weights: Tensor) -> int:
    """Return how many networks (n, d) are run or optimised at once."""
    return max(1, CHUNK_NUMBERS // max(weights.shape[1], 1))


def _buffers(module: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    """Yield all buffers, including those that are None."""
    for path, layer in module.named_modules():
        for name, buffer in layer._buffers.items():
            yield (f"{path}.{name}" if path else name), buffer


def _with_batch_statistics(architecture: Architecture) -> Any:
    """Return the module with norms that have no running statistics; None where the networks have no statistics."""
    if architecture.executable is None or not len(architecture.statistic_columns):
        return None
    module = copy.deepcopy(architecture.executable)
    return torch.func.replace_all_batch_norm_modules_(module)
