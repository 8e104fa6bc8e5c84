"""Training one chunk, the runs trained at once: one tensor of weights, one optimizer, a batch for each network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.exceptions import NumericalError
from wsflow.populations.batches import Batches
from wsflow.populations.chunk_optimizer import ChunkOptimizer
from wsflow.populations.gradients import Gradients, activation_bytes
from wsflow.populations.hyperparameters import Runs
from wsflow.populations.problem import Problem
from wsflow.running.activation_sizes import bytes_of_a_step
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.running.layer_types import layer_types

# the activations of a chunk: on a CPU they should stay in the caches, on a GPU they should keep the cores busy
ACTIVATION_BYTES = {"cpu": 24 * 2**20, "cuda": 1024 * 2**20}


def chunk_size(architecture: Architecture, X: np.ndarray, batch_size: int, device: str) -> int:
    """Return how many networks have inputs, activations and gradients of `ACTIVATION_BYTES` in one step."""
    each = bytes_of_a_step(architecture, batch_size)
    if not each:
        batch = np.array(X[:batch_size])
        each = 2 * activation_bytes(architecture, torch.from_numpy(batch)) + batch.nbytes
    return max(1, ACTIVATION_BYTES.get(torch.device(device).type, ACTIVATION_BYTES["cuda"]) // each)


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
