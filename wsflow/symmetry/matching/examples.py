"""Examples of a task, and losses of many networks on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.losses import loss_of
from wsflow.running import forward, losses, matched
from wsflow.running.without_statistics import normalised_by_batch

# rows of weights that are run or optimised at once hold at most so many numbers
CHUNK_NUMBERS = 2**23
BATCH = 2048


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs (b, ...) and targets (b,) or (b, k) of a task, with its loss.

    Batch norms use the statistics of the batch: those of an average of two networks belong to neither, and are
    recomputed after merging anyway.
    """

    architecture: Architecture
    inputs: Tensor
    targets: Tensor
    loss: Any
    weights: Tensor | None = None

    @classmethod
    def of(
        cls, architecture: Architecture, inputs: Tensor, targets: Tensor, loss: Any, weights: Tensor | None = None
    ) -> Examples:
        """Return the examples of a task for the networks of an architecture."""
        return cls(normalised_by_batch(architecture), inputs, targets, loss, weights)

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
        return losses(forward(weights, self.architecture, inputs), targets, self.loss, share)

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
