"""Selecting among actions, network by network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.progress import Progress, stages
from wsflow.symmetry.actions import Action
from wsflow.symmetry.batches import concatenate, where
from wsflow.symmetry.canonical.phases import with_nearest_phases
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
        self._known: dict[tuple[int, bytes], float] = {}
        if examples is not None:
            ends = examples.evaluate(reference.reshape(-1, reference.shape[-1]))
            self._ends = (examples.evaluate(weights) + ends) / 2

    @property
    def excess(self) -> Tensor:
        """The loss (n,) at the midpoint above the mean of the ends', not negative."""
        return self.cost - self._ends

    def update(self, action: Action) -> Tensor:
        """Take an action where it is better by more than rounding, and return the networks (n, d) after it.

        Its phases become those nearest to the reference, which change no activation.
        """
        action = with_nearest_phases(action, self._weights, self._reference)
        moved = action(self._weights)
        distance = (moved - self._reference).square().sum(1)
        cost = torch.zeros_like(distance)
        if self._examples is not None:
            cost = self._at_midpoint(moved, self._examples)
            # a loss that is not finite is worse than every other one
            cost = torch.where(cost.isfinite(), torch.maximum(cost, self._ends), torch.finfo(cost.dtype).max)
        lower, higher = _less(cost, self.cost), _less(self.cost, cost)
        better = lower | (~higher & _less(distance, self.distance))
        self.action = where(better.cpu(), action, self.action)
        self.cost = torch.where(better, cost, self.cost)
        self.distance = torch.where(better, distance, self.distance)
        return moved

    def _at_midpoint(self, moved: Tensor, examples: Examples) -> Tensor:
        """Return the losses (n,) at the midpoints; networks that came like this before are not run again."""
        keys = [(i, hashlib.sha256(row.tobytes()).digest()) for i, row in enumerate(moved.cpu().numpy())]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            found = examples.evaluate(((moved + self._reference) / 2)[new]).tolist()
            self._known.update(zip((keys[i] for i in new), found, strict=True))
        return moved.new_tensor([self._known[key] for key in keys])


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
    descend: Callable[[Tensor, torch.Generator, Progress | None], Action],
    progress: Progress | None = None,
) -> Action:
    """Return what a descent finds for the rows (indices) of each chunk of weights (n, d).

    All chunks see the same batches, so what is found does not depend on their size.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    chunks = torch.arange(len(weights)).split(chunk_size(weights))
    found = [
        descend(rows, torch.Generator().manual_seed(seed), stage)
        for rows, stage in zip(chunks, stages(progress, *map(len, chunks)), strict=True)
    ]
    return concatenate(architecture, found)
