"""The minibatches of a chunk: each network's own order of the examples, gathered into memory that is reused."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wsflow.populations.hyperparameters import Runs

if TYPE_CHECKING:
    from wsflow.populations.problem import Problem

FRACTION_STREAM = 3  # of random numbers: which examples a run has

Batch = tuple[Tensor, Tensor, Tensor | None]


class Batches:
    """The minibatches of networks, one of each at a time."""

    def __init__(self, problem: Problem, runs: Runs, fractions: np.ndarray) -> None:
        settings = problem.settings
        self.n_examples, self.device = len(problem.X), settings.device
        self.size = min(settings.batch_size, self.n_examples)
        # on a CPU all chunks read the one array, which may be read-only memory that processes share
        self.X = problem.X if torch.device(self.device).type == "cpu" else torch.tensor(problem.X, device=self.device)
        own = np.asarray(runs) - settings.first_run
        self.y = self._by_example(problem, problem.y, own)
        self.shares = None
        if problem.weights is not None:
            shares = problem.weights / problem.weights.mean(-1, keepdims=True)
            self.shares = self._by_example(problem, shares.astype(problem.dtype), own)
        # where the targets of each run begin
        self.offset = torch.arange(len(runs), device=self.device)[:, None] * (
            self.n_examples if problem.own_targets else 0
        )
        shape = (len(runs) * self.size, *problem.X.shape[1:])
        self.memory = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, problem.X.dtype)).dtype, device=self.device)
        self.examples = [
            _examples(settings.random_state, int(run), share, self.n_examples)
            for run, share in zip(runs, fractions, strict=True)
        ]
        self.order = torch.empty(len(runs), 0, dtype=torch.int64)

    def _by_example(self, problem: Problem, values: np.ndarray, own: np.ndarray) -> Tensor:
        """Return what each example has, one run after the other where each has its own."""
        if problem.own_targets:
            return torch.tensor(values[own], device=self.device).flatten(0, 1)
        return torch.tensor(values, device=self.device)

    def shuffle(self, streams: Sequence[np.random.Generator], n_batches: int) -> None:
        """Draw the order of the next epoch for each network, of which so many batches are needed."""
        needed = min(n_batches * self.size, self.n_examples)
        rows = [_order(s, e, self.n_examples)[:needed] for s, e in zip(streams, self.examples, strict=True)]
        self.order = torch.from_numpy(np.stack(rows)).to(self.device)

    def batch(self, index: int) -> Batch:
        """Return the inputs (n, b, ...), targets (n, b, ...) and weights (n, b) of a batch of this epoch."""
        batch = self.order[:, index * self.size : (index + 1) * self.size]
        rows = batch.reshape(-1)
        inputs = self._gathered(rows)
        placed = (batch + self.offset).reshape(-1)
        targets = self.y.index_select(0, placed)
        shares = None if self.shares is None else self.shares.index_select(0, placed).view(batch.shape)
        return inputs.view(*batch.shape, *inputs.shape[1:]), targets.view(*batch.shape, *self.y.shape[1:]), shares

    def _gathered(self, rows: Tensor) -> Tensor:
        """Return examples by their numbers, in a quarter of the time of X[rows]."""
        memory = self.memory[: len(rows)]
        if isinstance(self.X, Tensor):
            return torch.index_select(self.X, 0, rows, out=memory)
        # without clip, NumPy would go by a buffer
        np.take(self.X, rows.numpy(), axis=0, out=memory.numpy(), mode="clip")
        return memory

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some of the networks."""
        self.examples = [self.examples[row] for row in rows]
        self.order, self.offset = self.order[rows], self.offset[rows]


def _examples(random_state: int, run: int, fraction: float, n: int) -> np.ndarray | None:
    """Return which examples a run has, or None for all of them."""
    if fraction == 1:
        return None
    return np.random.default_rng((random_state, run, FRACTION_STREAM)).permutation(n)[: ceil(fraction * n)]


def _order(stream: np.random.Generator, examples: np.ndarray | None, n: int) -> np.ndarray:
    """Return the n examples of an epoch; those of a run that has fewer come again, in another order."""
    if examples is None:
        return stream.permutation(n)
    rounds = -(-n // len(examples))
    return np.concatenate([examples[stream.permutation(len(examples))] for _ in range(rounds)])[:n]
