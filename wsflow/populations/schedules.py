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
class Schedule:
    """One row of the table.

    Parameters
    ----------
    factor : callable
        Of the share of the cycle that is done, an array of numbers from 0 on and below 1.
    cycles : bool
        Whether there may be several.
    """

    factor: Callable[[np.ndarray], np.ndarray]
    cycles: bool = False


def _half_cosine(done: np.ndarray) -> np.ndarray:
    return (1 + np.cos(np.pi * done)) / 2


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(np.ones_like),
    "cosine": Schedule(_half_cosine),
    "cyclical": Schedule(_half_cosine, cycles=True),
}


def factors(schedule: str, cycles: int, total: int) -> np.ndarray:
    """The factor of the learning rate at every iteration (Zhang et al. 2020, arXiv:1902.03932, equation 1).

    Parameters
    ----------
    schedule : str
        A key of `SCHEDULES`.
    cycles : int
    total : int
        Number of iterations.

    Returns
    -------
    ndarray of shape (total,)

    Examples
    --------
    >>> from wsflow.populations.schedules import factors
    >>> factors("cyclical", 2, 8).round(2).tolist()
    [1.0, 0.85, 0.5, 0.15, 1.0, 0.85, 0.5, 0.15]
    """
    ends = cycle_ends(cycles, total)
    lengths = np.diff(ends, prepend=0)
    done = np.concatenate([np.arange(length) / length for length in lengths])
    return SCHEDULES[schedule].factor(done)


def cycle_ends(cycles: int, total: int) -> np.ndarray:
    """The last iteration of each cycle; their lengths differ by one at most.

    Parameters
    ----------
    cycles, total : int

    Returns
    -------
    ndarray of shape (cycles,)

    Examples
    --------
    >>> from wsflow.populations.schedules import cycle_ends
    >>> cycle_ends(3, 10).tolist()
    [3, 6, 10]
    """
    return np.arange(1, cycles + 1) * total // cycles


def snapshot_steps(cycles: int, total: int, snapshots: int, every: int) -> list[int]:
    """The iterations after which networks are kept: the last ones of each cycle, some iterations apart.

    Parameters
    ----------
    cycles, total : int
    snapshots : int
        How many of each cycle.
    every : int
        How many iterations apart.

    Returns
    -------
    list of int
        Ascending; the last is `total`.

    Raises
    ------
    ValueError
        If they do not fit into the cycles.

    Examples
    --------
    >>> from wsflow.populations.schedules import snapshot_steps
    >>> snapshot_steps(2, 20, 3, 2)
    [6, 8, 10, 16, 18, 20]
    """
    ends = cycle_ends(cycles, total)
    shortest = int(np.diff(ends, prepend=0).min())
    if (snapshots - 1) * every >= shortest:
        where = f"a cycle of {shortest}" if cycles > 1 else str(total)
        raise ValueError(
            f"{snapshots} snapshots {every} iterations apart do not fit into {where} iterations. Lower 'snapshots', "
            "'snapshot_every' or 'cycles', or raise 'epochs'."
        )
    return [int(end) - every * before for end in ends for before in reversed(range(snapshots))]
