"""Training one chunk, the runs trained at once: one tensor of weights, one optimizer, a batch for each network.

Each network has hyperparameters of its own at each step, and drops what the stream of its run says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.populations.batches import Batch, Batches
from wsflow.populations.dropout import draws, with_rate
from wsflow.populations.hyperparameters import Runs
from wsflow.populations.optimizers import OPTIMIZERS, Rates
from wsflow.populations.problem import Problem
from wsflow.populations.schedules import factors
from wsflow.running import losses, train_forward
from wsflow.running.activation_sizes import bytes_of_a_step
from wsflow.running.gradient_memory import kept_storages
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.running.layer_types import layer_types

# streams of random numbers; others are for initial weights and the order of the data, hyperparameters, and examples
NOISE_STREAM, DROPOUT_STREAM = 1, 4
# the activations of a chunk: on a CPU they should stay in the caches, on a GPU they should keep the cores busy
ACTIVATION_BYTES = {"cpu": 24 * 2**20, "cuda": 1024 * 2**20}


def chunk_size(architecture: Architecture, X: np.ndarray, batch_size: int, device: str) -> int:
    """Return how many networks have inputs, activations and gradients of `ACTIVATION_BYTES` in one step."""
    each = bytes_of_a_step(architecture, batch_size)
    if not each:
        batch = np.array(X[:batch_size])
        each = 2 * activation_bytes(architecture, torch.from_numpy(batch)) + batch.nbytes
    return max(1, ACTIVATION_BYTES.get(torch.device(device).type, ACTIVATION_BYTES["cuda"]) // each)


def activation_bytes(architecture: Architecture, inputs: Tensor) -> int:
    """Measure what the forward pass of one network keeps for its gradient, on a batch of inputs (b, ...)."""
    dtype = inputs.dtype if inputs.is_floating_point() else torch.float32
    weights = torch.zeros(1, architecture.n_weights, dtype=dtype, requires_grad=True)
    kept = kept_storages(lambda: train_forward(weights, architecture, inputs, torch.Generator()))
    return sum(kept.values())


def train_chunk(problem: Problem, runs: Runs, report: Callable[[int], None] | None = None) -> np.ndarray:
    """Train the runs of these numbers, and return the weights (len(runs) * snapshots, d) by run, then by step."""
    chunk = _Chunk(problem, runs)
    for epoch in range(1, problem.epochs + 1):
        if len(chunk.rows):
            chunk.train_epoch(epoch)
        if report is not None:
            report(epoch)
    return chunk.kept.reshape(-1, problem.architecture.n_weights)


class _Chunk:
    """Networks in training, with the memory of those that were kept."""

    def __init__(self, problem: Problem, runs: Runs) -> None:
        self.problem, self.runs = problem, np.asarray(runs)
        self.rows = np.arange(len(runs))  # of the networks still in training
        settings = problem.settings
        streams, seeds = zip(*(problem.stream(run) for run in runs), strict=True)
        self.streams = list(streams)
        drawn = problem.drawn(runs)
        weights = _initial(problem, self.runs, seeds)
        _rescale(weights, drawn["initialisation_scale"], _plain(problem))
        weights = weights if problem.start is None else problem.start.of(weights)
        dtype = torch.float64 if problem.dtype == np.float64 else torch.float32
        self.weights = weights.to(settings.device, dtype)
        self.statistics = torch.from_numpy(problem.architecture.statistic_columns).to(settings.device)
        self.fixed = torch.from_numpy(problem.architecture.fixed_columns).to(settings.device)
        self.constants = torch.from_numpy(problem.architecture.fixed_values).to(self.weights)
        self._put_constants()
        self.batches = Batches(problem, runs, drawn["data_fraction"])
        self.optimizer = ChunkOptimizer(problem, self.weights, runs, drawn)
        self.gradients = Gradients(problem, runs, drawn["dropout"], self.weights)
        self.steps = problem.kept(self.optimizer.totals)
        self.kept = np.empty((*self.steps.shape, problem.architecture.n_weights), problem.dtype)
        self._keep()

    def train_epoch(self, epoch: int) -> None:
        """Train the networks through the data once, or to their ends."""
        remaining = int(self.optimizer.totals.max()) - self.optimizer.step
        n_batches = min(self.problem.epoch, remaining)
        self.batches.shuffle(self.streams, n_batches)
        for index in range(n_batches):
            step = self.gradients(self.weights, self.batches.batch(index))
            self.optimizer(step.gradients)
            # no optimizer moves them
            self.weights[:, self.statistics] = step.statistics
            self._put_constants()
            ends = (self.optimizer.totals == self.optimizer.step).any()
            if ends or index == n_batches - 1:
                _check_converged(self.weights, step.losses, self.runs[self.rows], epoch)
            self._keep()
            if ends:
                self._go_on(np.flatnonzero(self.optimizer.totals > self.optimizer.step))

    def _put_constants(self) -> None:
        """Put back constants, which no gradient moves, but decay and noise."""
        if len(self.fixed):
            self.weights[:, self.fixed] = self.constants

    def _keep(self) -> None:
        """Copy the networks that are kept at this step."""
        rows, places = np.nonzero(self.steps[self.rows] == self.optimizer.step)
        if len(rows):
            chosen = torch.from_numpy(rows).to(self.weights.device)
            self.kept[self.rows[rows], places] = self.weights[chosen].cpu().numpy()

    def _go_on(self, rows: np.ndarray) -> None:
        """Let the networks go that are at their ends."""
        self.rows, self.streams = self.rows[rows], [self.streams[row] for row in rows]
        if len(rows):
            self.weights = self.optimizer.keep(rows)
            self.batches.keep(rows)
            self.gradients.keep(rows)


def _initial(problem: Problem, runs: np.ndarray, seeds: Sequence[int]) -> Tensor:
    """Return the first weights (n, d) of runs, drawn by a scheme of the table where they are not given."""
    if problem.initial is not None:
        return torch.tensor(problem.initial[runs - problem.settings.first_run])
    # drawn on the CPU, so that a run starts from the same weights on every device
    scheme = INITIALISATIONS[problem.settings.initialisation]
    return torch.cat([scheme(_plain(problem), 1, torch.Generator().manual_seed(seed)) for seed in seeds])


def _plain(problem: Problem) -> Architecture:
    """Return the architecture as whose networks the runs begin."""
    return problem.architecture if problem.start is None else problem.start.plain


def _rescale(weights: Tensor, scale: np.ndarray, architecture: Architecture) -> None:
    """Multiply first weights by the scale of each network, but for norms, statistics and slopes."""
    if (scale == 1).all():
        return
    types = layer_types(architecture)
    for name, columns in architecture.slices.items():
        if name not in types or types[name].is_drawn:
            weights[:, columns] *= weights.new_tensor(scale).unsqueeze(1)


def _check_converged(weights: Tensor, loss: Tensor, runs: np.ndarray, epoch: int) -> None:
    bad = ~(weights.isfinite().all(dim=1) & loss.isfinite()).cpu().numpy()
    if bad.any():
        more = f" (and {bad.sum() - 1} more)" if bad.sum() > 1 else ""
        raise NumericalError(
            f"Run {runs[bad][0]}{more} diverged in epoch {epoch}: its weights or its loss are not finite. "
            "Lower the learning rate, or check the scale of the task's inputs."
        )


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


class ChunkOptimizer:
    """Moves weights (n, d) in place, one step of all networks at a time."""

    def __init__(self, problem: Problem, weights: Tensor, runs: Runs, drawn: Mapping[str, np.ndarray]) -> None:
        settings = problem.settings
        self.row = OPTIMIZERS[settings.optimizer]
        self.weights = weights.detach()
        self.memory = [torch.zeros_like(self.weights) for _ in range(self.row.memory)]
        names = ("learning_rate", "momentum", "weight_decay", "temperature")
        self.columns = {name: self.weights.new_tensor(drawn[name]).unsqueeze(1) for name in names}
        self.columns["temperature"] = self.columns["temperature"] / self._examples(problem, runs, drawn)
        self.totals = problem.totals(drawn)
        known = set(self.totals.tolist())
        self.factors = {total: factors(settings.schedule, settings.cycles, total) for total in known}
        self.noise = _Noise(self.weights, settings.random_state, runs)
        self.decays, self.step = bool(self.columns["weight_decay"].any()), 0

    def _examples(self, problem: Problem, runs: Runs, drawn: Mapping[str, np.ndarray]) -> float | Tensor:
        """How many examples each run has, by weight."""
        size = problem.size
        if problem.own_targets and problem.weights is not None:
            size = size[np.asarray(runs) - problem.settings.first_run]
        size = size * drawn["data_fraction"]
        return float(size[0]) if len(set(size.tolist())) == 1 else self.weights.new_tensor(size).unsqueeze(1)

    def __call__(self, gradient: Tensor) -> None:
        columns = self.columns
        if self.decays:
            gradient.addcmul_(self.weights, columns["weight_decay"])
        rate = columns["learning_rate"] * self._factor()
        self.step += 1
        rates = Rates(self.step, rate, columns["momentum"], columns["temperature"], self.noise)
        self.row.update(self.weights, gradient, self.memory, rates)

    def _factor(self) -> float | Tensor:
        """Return the schedule's factor, or that of each network (n, 1)."""
        if len(self.factors) == 1:
            (known,) = self.factors.values()
            return float(known[self.step])
        return self.weights.new_tensor([self.factors[total][self.step] for total in self.totals.tolist()]).unsqueeze(1)

    def keep(self, rows: np.ndarray) -> Tensor:
        """Go on with some of the networks, and return their weights."""
        self.weights = self.weights[rows]
        self.memory = [memory[rows] for memory in self.memory]
        self.columns = {name: column[rows] for name, column in self.columns.items()}
        self.totals = self.totals[rows]
        self.factors = {total: self.factors[total] for total in set(self.totals.tolist())}
        self.noise.keep(rows)
        return self.weights


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

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some of the networks."""
        self.streams, self.memory = [self.streams[row] for row in rows], self.memory[rows]
