"""What all chunks of a training have in common, as plain arrays that can be sent to other processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.populations.asymmetry import Start
from wsflow.populations.hyperparameters import RANGES, Runs, draw_hyperparameters
from wsflow.populations.settings import PopulationSettings


@dataclass(frozen=True)
class Problem:
    """Data, loss and networks of a training."""

    X: np.ndarray  # (b, ...)
    y: np.ndarray  # (b,) or (b, k); with a first axis of runs if each has targets of its own
    own_targets: bool
    loss: Any
    architecture: Architecture
    settings: PopulationSettings
    weights: np.ndarray | None = None  # of the examples (b,), or (runs, b) as the targets
    initial: np.ndarray | None = None  # first weights (runs, d), where no scheme of the table draws them
    start: Start | None = None  # of networks with common constants, which begin as those without

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the networks' weights."""
        return self.X.dtype if self.X.dtype.kind == "f" else np.dtype(np.float32)

    @property
    def runs(self) -> np.ndarray:
        """The numbers of all runs."""
        return np.arange(self.settings.first_run, self.settings.first_run + self.settings.n_runs)

    @property
    def size(self) -> np.ndarray:
        """How many examples there are, each counted by its weight; for each run (runs,), or for all ()."""
        return np.asarray(len(self.X) if self.weights is None else self.weights.sum(-1))

    @cached_property
    def epoch(self) -> int:
        """The steps of an epoch."""
        return -(-len(self.X) // self.settings.batch_size)

    @cached_property
    def epochs(self) -> int:
        """How many epochs the longest run has, the last of which may end early."""
        return -(-self.settings.iterations(len(self.X)) // self.epoch)

    def stream(self, run: int) -> tuple[np.random.Generator, int]:
        """Return the random numbers of a run, and the seed of its first weights, which are the first of them."""
        stream = np.random.default_rng((self.settings.random_state, int(run)))
        seed = int(stream.integers(2**63))
        # with one start for all runs, that of run 0
        return stream, self.stream(0)[1] if self.settings.shared_initialisation and run else seed

    def drawn(self, runs: Runs) -> dict[str, np.ndarray]:
        """Return the hyperparameters (len(runs),) of runs, by name."""
        drawn = draw_hyperparameters(self.settings.ranges(), self.settings.random_state, runs)
        return dict(zip(RANGES, drawn.T, strict=True))

    def totals(self, drawn: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return how many steps each of some runs takes, given what they drew."""
        steps = drawn["steps"]
        return np.where(np.isnan(steps), self.settings.epochs * self.epoch, steps).astype(np.int64)

    def kept(self, totals: np.ndarray) -> np.ndarray:
        """Return the steps (runs, snapshots) after which networks are kept, given the last one of each run."""
        known = {int(total): self.settings.kept(int(total)) for total in set(totals.tolist())}
        return np.array([known[int(total)] for total in totals], dtype=np.int64)
