"""The optimizer of a chunk, with the hyperparameters of each network at each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wsflow.populations.hyperparameters import Runs
from wsflow.populations.optimizers import OPTIMIZERS, Rates
from wsflow.populations.schedules import factors

if TYPE_CHECKING:
    from wsflow.populations.problem import Problem

NOISE_STREAM = 1  # of random numbers; others are for initial weights and the order of the data, and for hyperparameters


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
