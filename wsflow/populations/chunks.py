"""Training one chunk, the runs trained at once: one tensor of weights, one optimizer, a batch for each network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.exceptions import NumericalError
from wsflow.populations.hyperparameters import Runs, draw_hyperparameters
from wsflow.populations.optimizers import OPTIMIZERS, Rates
from wsflow.populations.schedules import factors
from wsflow.populations.settings import PopulationSettings
from wsflow.running import forward, losses
from wsflow.running.initialisation import INITIALISATIONS

# the activations of a chunk: on a CPU they should stay in the caches, on a GPU they should keep the cores busy
ACTIVATION_BYTES = {"cpu": 24 * 2**20, "cuda": 1024 * 2**20}
NOISE_STREAM = 1  # of random numbers; others are for initial weights and the order of the data, and for hyperparameters


@dataclass(frozen=True)
class Problem:
    """What all chunks of a training have in common, as plain arrays that can be sent to other processes."""

    X: np.ndarray  # (b, p)
    y: np.ndarray  # (b,) or (b, k); with a first axis of runs if each has targets of its own
    own_targets: bool
    loss: Any
    architecture: Architecture
    settings: PopulationSettings
    weights: np.ndarray | None = None  # of the examples (b,), or (runs, b) as the targets

    @property
    def size(self) -> np.ndarray:
        """How many examples there are, each counted by its weight; for each run (runs,), or for all ()."""
        return np.asarray(len(self.X) if self.weights is None else self.weights.sum(-1))


def chunk_size(architecture: Architecture, batch_size: int, device: str) -> int:
    """Return how many networks have inputs, activations and gradients of `ACTIVATION_BYTES` in one step."""
    widths = sum(layer.inputs + layer.outputs for layer in architecture.layers)
    # the activations of the forward pass, their gradients, and the indices of the batch
    each = batch_size * (4 * 4 * widths + 8)
    return max(1, ACTIVATION_BYTES.get(torch.device(device).type, ACTIVATION_BYTES["cuda"]) // each)


def train_chunk(problem: Problem, runs: Runs, report: Callable[[int], None] | None = None) -> np.ndarray:
    """Train the runs of these numbers, and return the weights (len(runs) * snapshots, d) by run, then by step."""
    settings = problem.settings
    streams = [np.random.default_rng((settings.random_state, int(run))) for run in runs]
    batches = _Batches(problem, runs)
    weights = _initial(problem.architecture, settings, streams).to(batches.X).requires_grad_()
    optimizer = _ChunkOptimizer(problem, weights, runs)
    steps = settings.steps(len(problem.X))
    kept: dict[int, np.ndarray] = {}
    for epoch in range(1, settings.epochs + 1):
        order = np.stack([stream.permutation(len(problem.X)) for stream in streams])
        for inputs, targets, shares in batches.of(torch.from_numpy(order)):
            loss = losses(forward(weights, problem.architecture, inputs), targets, problem.loss, shares)
            (gradient,) = torch.autograd.grad(loss.sum(), weights)
            optimizer(gradient)
            if optimizer.step in steps:
                kept[optimizer.step] = weights.detach().to("cpu", copy=True).numpy()
        _check_converged(weights, loss, runs, epoch)
        if report is not None:
            report(epoch)
    return np.stack([kept[step] for step in steps], axis=1).reshape(-1, problem.architecture.n_weights)


class _Batches:
    """The minibatches of each network, gathered into memory that is reused."""

    def __init__(self, problem: Problem, runs: Runs) -> None:
        device, batch = problem.settings.device, min(problem.settings.batch_size, len(problem.X))
        self.size = batch
        self.X = torch.tensor(problem.X, device=device)
        own = np.asarray(runs) - problem.settings.first_run
        self.y = self._by_example(problem, problem.y, own)
        weights = problem.weights
        if weights is not None:
            shares = (weights / weights.mean(-1, keepdims=True)).astype(problem.X.dtype)
            self.shares: Tensor | None = self._by_example(problem, shares, own)
        else:
            self.shares = None
        # where the targets of each run begin
        self.offset = torch.arange(len(runs), device=device)[:, None] * (len(problem.X) if problem.own_targets else 0)
        self.memory = self.X.new_empty(len(runs) * batch, self.X.shape[1])

    @staticmethod
    def _by_example(problem: Problem, values: np.ndarray, own: np.ndarray) -> Tensor:
        """Return what each example has, one run after the other where each has its own."""
        device = problem.settings.device
        if problem.own_targets:
            return torch.tensor(values[own], device=device).flatten(0, 1)
        return torch.tensor(values, device=device)

    def of(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        for batch in torch.split(order.to(self.X.device), self.size, dim=1):
            rows = batch.reshape(-1)
            # a quarter of the time of X[batch]
            inputs = torch.index_select(self.X, 0, rows, out=self.memory[: len(rows)])
            placed = (batch + self.offset).reshape(-1)
            targets = self.y.index_select(0, placed)
            shares = None if self.shares is None else self.shares.index_select(0, placed).view(batch.shape)
            yield inputs.view(*batch.shape, -1), targets.view(*batch.shape, *self.y.shape[1:]), shares


class _ChunkOptimizer:
    """The optimizer of a chunk, with the hyperparameters of each network at each step."""

    def __init__(self, problem: Problem, weights: Tensor, runs: Runs) -> None:
        settings = problem.settings
        self.row = OPTIMIZERS[settings.optimizer]
        self.weights = weights.detach()
        self.memory = [torch.zeros_like(self.weights) for _ in range(self.row.memory)]
        drawn = self.weights.new_tensor(draw_hyperparameters(settings.ranges(), settings.random_state, runs))
        self.rate, self.momentum, self.decay, self.temperature = drawn.split(1, dim=1)
        self.temperature = self.temperature / self._examples(problem, runs)
        self.factors = factors(settings.schedule, settings.cycles, settings.iterations(len(problem.X)))
        self.noise = _Noise(self.weights, settings.random_state, runs)
        self.decays, self.step = bool(self.decay.any()), 0

    def _examples(self, problem: Problem, runs: Runs) -> float | Tensor:
        """How many examples each run has, by weight."""
        if not problem.own_targets or problem.weights is None:
            return float(problem.size)
        return self.weights.new_tensor(problem.size[np.asarray(runs) - problem.settings.first_run]).unsqueeze(1)

    def __call__(self, gradient: Tensor) -> None:
        if self.decays:
            gradient.addcmul_(self.weights, self.decay)
        rate = self.rate * float(self.factors[self.step])
        self.step += 1
        self.row.update(
            self.weights, gradient, self.memory, Rates(self.step, rate, self.momentum, self.temperature, self.noise)
        )


class _Noise:
    """Standard normal numbers, each row from the stream of its run."""

    def __init__(self, weights: Tensor, random_state: int, runs: Runs) -> None:
        self.streams = [np.random.default_rng((random_state, int(run), NOISE_STREAM)) for run in runs]
        self.like = weights
        self.memory = np.empty(weights.shape, dtype=np.float64 if weights.dtype == torch.float64 else np.float32)

    def __call__(self) -> Tensor:
        for stream, row in zip(self.streams, self.memory, strict=True):
            stream.standard_normal(dtype=self.memory.dtype.type, out=row)
        return torch.from_numpy(self.memory).to(self.like)


def _initial(
    architecture: Architecture, settings: PopulationSettings, streams: Sequence[np.random.Generator]
) -> Tensor:
    scheme = INITIALISATIONS[settings.initialisation]
    # drawn on the CPU, so that a run starts from the same weights on every device
    seeds = [int(stream.integers(2**63)) for stream in streams]
    return torch.cat([scheme(architecture, 1, torch.Generator().manual_seed(seed)) for seed in seeds])


def _check_converged(weights: Tensor, loss: Tensor, runs: Runs, epoch: int) -> None:
    bad = ~(weights.isfinite().all(dim=1) & loss.isfinite()).cpu().numpy()
    if bad.any():
        more = f" (and {bad.sum() - 1} more)" if bad.sum() > 1 else ""
        raise NumericalError(
            f"Run {np.asarray(runs)[bad][0]}{more} diverged in epoch {epoch}: its weights or its loss are not finite. "
            "Lower the learning rate, or check the scale of the task's inputs."
        )
