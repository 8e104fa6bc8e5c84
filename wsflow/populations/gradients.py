"""Losses and gradients of the networks of a chunk, in training mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.populations.batches import Batch
from wsflow.populations.dropout import draws, with_rate
from wsflow.populations.hyperparameters import Runs
from wsflow.running import losses, train_forward
from wsflow.running.gradient_memory import kept_storages

if TYPE_CHECKING:
    from wsflow.populations.problem import Problem

DROPOUT_STREAM = 4  # of random numbers: what networks drop


class Step(NamedTuple):
    """Losses (n,), gradients (n, d), and the statistics (n, s) that batch norms have after a batch."""

    losses: Tensor
    gradients: Tensor
    statistics: Tensor


class Gradients:
    """Runs networks on batches of their own, with what each drops from the stream of its run."""

    def __init__(self, problem: Problem, runs: Runs, dropout: np.ndarray, like: Tensor) -> None:
        self.architecture, self.loss = problem.architecture, problem.loss
        self.rates: Tensor | None = None
        if problem.settings.dropout is not None:
            self.architecture = with_rate(problem.architecture)
            self.rates = like.new_tensor(1 - dropout)
        self.generators: list[torch.Generator] = []
        if draws(self.architecture):
            self.generators = [_generator(problem.settings.random_state, int(run)) for run in runs]

    def __call__(self, weights: Tensor, batch: Batch) -> Step:
        inputs, targets, shares = batch
        leaf = weights.detach().requires_grad_()
        given = inputs if self.rates is None else (inputs, self.rates)
        try:
            outputs, statistics = train_forward(leaf, self.architecture, given, self.generators or None)
        except InvalidInputError as error:
            if inputs.shape[1] > 1:
                raise
            raise InvalidInputError(
                f"{error}. This batch, the last of an epoch, has one example: choose another 'batch_size'."
            ) from error
        loss = losses(outputs, targets, self.loss, shares)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return Step(loss.detach(), gradient, statistics)

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some of the networks."""
        self.rates = None if self.rates is None else self.rates[rows]
        self.generators = [self.generators[row] for row in rows] if self.generators else []


def _generator(random_state: int, run: int) -> torch.Generator:
    stream = np.random.default_rng((random_state, run, DROPOUT_STREAM))
    return torch.Generator().manual_seed(int(stream.integers(2**63)))


def activation_bytes(architecture: Architecture, inputs: Tensor) -> int:
    """Measure what the forward pass of one network keeps for its gradient, on a batch of inputs (b, ...)."""
    dtype = inputs.dtype if inputs.is_floating_point() else torch.float32
    weights = torch.zeros(1, architecture.n_weights, dtype=dtype, requires_grad=True)
    kept = kept_storages(lambda: train_forward(weights, architecture, inputs, torch.Generator()))
    return sum(kept.values())
