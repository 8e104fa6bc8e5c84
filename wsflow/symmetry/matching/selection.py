"""Selecting among actions, network by network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.symmetry.actions import Action
from wsflow.symmetry.batches import concatenate, where
from wsflow.symmetry.matching.examples import Examples, chunk_size

CHECKS = 10


class BestAction:
    """The best action so far for networks (n, d) with a reference (d,) or (n, d); the identity in the beginning.

    The best is the one with the lowest loss at the midpoint of the network and its reference, its `cost` (n,). Below
    the mean loss of the two ends nothing is better than something else: there, as without examples, the one with the
    smallest squared `distance` (n,) is the best.
    """

    def __init__(
        self, weights: Tensor, reference: Tensor, architecture: Architecture, examples: Examples | None = None
    ) -> None:
        self.action = Action.identity(architecture, len(weights))
        self.cost = weights.new_full((len(weights),), torch.inf)
        self.distance = self.cost.clone()
        self._weights, self._reference, self._examples = weights, reference, examples
        self._ends = torch.zeros_like(self.cost)
        if examples is not None:
            ends = examples.evaluate(reference.reshape(-1, reference.shape[-1]))
            self._ends = (examples.evaluate(weights) + ends) / 2

    @property
    def excess(self) -> Tensor:
        """The loss (n,) at the midpoint above the mean of the ends', not negative."""
        return self.cost - self._ends

    def update(self, action: Action) -> Tensor:
        """Take an action where it is better by more than rounding, and return the networks (n, d) after it."""
        moved = action(self._weights)
        distance = (moved - self._reference).square().sum(1)
        cost = torch.zeros_like(distance)
        if self._examples is not None:
            cost = self._examples.evaluate((moved + self._reference) / 2)
            # a loss that is not finite is worse than every other one
            cost = torch.where(cost.isfinite(), torch.maximum(cost, self._ends), torch.finfo(cost.dtype).max)
        lower, higher = _less(cost, self.cost), _less(self.cost, cost)
        better = lower | (~higher & _less(distance, self.distance))
        self.action = where(better.cpu(), action, self.action)
        self.cost = torch.where(better, cost, self.cost)
        self.distance = torch.where(better, distance, self.distance)
        return moved


def _less(first: Tensor, second: Tensor) -> Tensor:
    """Return where numbers that are not negative are smaller by more than rounding."""
    return first < second * (1 - 16 * torch.finfo(second.dtype).eps)


def checkpoints(steps: int) -> set[int]:
    """Return the ten steps of a descent at which its permutations are compared."""
    return {round(steps * (i + 1) / CHECKS) for i in range(CHECKS)}


def in_chunks(
    weights: Tensor,
    architecture: Architecture,
    generator: torch.Generator,
    descend: Callable[[Tensor, torch.Generator], Action],
) -> Action:
    """Return what a descent finds for the rows (indices) of each chunk of weights (n, d).

    All chunks see the same batches, so what is found does not depend on their size.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    found = [
        descend(rows, torch.Generator().manual_seed(seed))
        for rows in torch.arange(len(weights)).split(chunk_size(weights))
    ]
    return concatenate(architecture, found)
