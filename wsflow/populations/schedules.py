"""The table of learning-rate schedules, and the iterations at which networks are kept.

A schedule is a factor of the learning rate, as a function of how much of a cycle is done. Whole training is one cycle,
but for ``"cyclical"``, which starts again several times, and keeps networks at the end of each cycle.

References
----------
Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", arXiv:1608.03983; Huang et al. 2017,
"Snapshot ensembles: train 1, get M for free", arXiv:1704.00109; Zhang et al. 2020, "Cyclical stochastic gradient MCMC
for Bayesian deep learning", arXiv:1902.03932.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LearningRateSchedule:
    """One row of the table."""

    factor: Callable[[np.ndarray], np.ndarray]  # of the share of the cycle that is done, in [0, 1)
    cycles: bool = False  # whether there may be several


def _half_cosine(progress: np.ndarray) -> np.ndarray:
    return (1 + np.cos(np.pi * progress)) / 2


SCHEDULES: dict[str, LearningRateSchedule] = {
    "constant": LearningRateSchedule(np.ones_like),
    "cosine": LearningRateSchedule(_half_cosine),
    "cyclical": LearningRateSchedule(_half_cosine, cycles=True),
}


def factors(schedule: str, cycles: int, total: int) -> np.ndarray:
    """Return the factors (total,) of the learning rate (Zhang et al. 2020, arXiv:1902.03932, equation 1)."""
    ends = cycle_ends(cycles, total)
    lengths = np.diff(ends, prepend=0)
    progress = np.concatenate([np.arange(length) / length for length in lengths])
    return SCHEDULES[schedule].factor(progress)


def cycle_ends(cycles: int, total: int) -> np.ndarray:
    """Return the last iterations (cycles,) of cycles whose lengths differ by one at most."""
    return np.arange(1, cycles + 1) * total // cycles


def snapshot_steps(cycles: int, total: int, snapshots: int, every: int) -> list[int]:
    """Return the iterations after which networks are kept: the last of each cycle, `every` iterations apart."""
    ends = cycle_ends(cycles, total)
    shortest = int(np.diff(ends, prepend=0).min())
    if (snapshots - 1) * every >= shortest:
        where = f"a cycle of {shortest}" if cycles > 1 else str(total)
        raise ValueError(
            f"{snapshots} snapshots {every} iterations apart do not fit into {where} iterations. Lower 'snapshots', "
            "'snapshot_every' or 'cycles', or raise 'epochs' or 'steps'."
        )
    return [int(end) - every * before for end in ends for before in reversed(range(snapshots))]
