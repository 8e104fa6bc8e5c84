"""Straight lines between networks: the loss and the score along them.

On the line w(t) = (1 - t) a + t b the chord is the straight line between the losses of the ends, and the excess is
L(w(t)) - (1 - t) L(a) - t L(b).

References
----------
Frankle, Dziugaite, Roy and Carbin 2020, arXiv:1912.05671 (the barrier); `wsflow.evaluation.shapes` for the measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.evaluation.predictive import chunked_outputs
from wsflow.evaluation.shapes import chord, global_convexity, is_monotonic, largest_increase, local_convexity
from wsflow.exceptions import InvalidInputError
from wsflow.running import losses, scores
from wsflow.task import Task, check_task
from wsflow.weights import WeightArray

# numbers of the networks between others that exist at one time: 32 MiB in float64
CHUNK_NUMBERS = 2**22
Progress = Callable[[int, int], None]


def interpolate(a: WeightArray, b: WeightArray, t: Any) -> WeightArray:
    """Networks on the straight lines between networks, (1 - t) a + t b.

    Both ends are met exactly, and a line between equal networks has no rounding.

    Parameters
    ----------
    a, b : WeightArray of shape (pairs, d)
        A single row goes with every row of the other.
    t : float or array-like of shape (k,)
        0 is a, 1 is b; other values extrapolate.

    Returns
    -------
    WeightArray of shape (pairs, d), or (pairs * k, d) pair by pair
        With the runs and steps of `a`.

    Raises
    ------
    InvalidInputError
        If the two arrays do not pair up.

    Examples
    --------
    >>> from wsflow import Architecture, WeightArray, interpolate
    >>> line = Architecture.mlp([1, 1])
    >>> a, b = WeightArray([[0.0, 1.0]], line), WeightArray([[2.0, 1.0]], line)
    >>> interpolate(a, b, [0.25, 0.5, 1.0])[:, 0].tolist()
    [0.5, 1.0, 2.0]
    """
    left, right = row_pairs(a, b)
    times = np.atleast_1d(np.asarray(t, dtype=np.float64))
    if times.ndim > 1 or not np.isfinite(times).all():
        raise InvalidInputError(f"The 't' of interpolate is a number or a list of them, got {t!r}.")
    rows = np.repeat(np.arange(len(left)), len(times))
    return _between(a[left[rows]], b[right[rows]], np.tile(times, len(left)))


def _between(a: WeightArray, b: WeightArray, t: np.ndarray) -> WeightArray:
    """Row i at t_i between its ends."""
    # from the nearer end: exact at both, and where they are equal
    step = np.asarray(b) - np.asarray(a)
    t = t[:, None]
    rows = np.where(t < 0.5, np.asarray(a) + t * step, np.asarray(b) - (1 - t) * step)
    return a.like(rows.astype(step.dtype, copy=False), aligned=a.aligned and b.aligned)


def row_pairs(a: WeightArray, b: WeightArray, pairs: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The rows of two arrays that go together.

    Parameters
    ----------
    a, b : WeightArray
    pairs : array-like of int, shape (pairs, 2), optional
        Default: row by row, where a single row goes with every row of the other.

    Returns
    -------
    left, right : ndarray of int, shape (pairs,)
        Rows of `a` and of `b`.

    Raises
    ------
    InvalidInputError
        If the architectures differ, the arrays do not pair up, or there is no pair.
    """
    if not (isinstance(a, WeightArray) and isinstance(b, WeightArray)) or a.architecture != b.architecture:
        raise InvalidInputError(f"A line needs pairs of networks of one architecture, got {a!s:.80} and {b!s:.80}.")
    if pairs is None and len(a) != len(b) and 1 not in (len(a), len(b)):
        raise InvalidInputError(
            f"A line needs pairs of networks of one architecture, got {a} and {b}. Index both by fixed_pairs."
        )
    if not (len(a) and len(b)) or (pairs is not None and not len(pairs)):
        raise InvalidInputError("There is no pair of networks: pass at least one row of weights.")
    if pairs is None:
        left, right = np.broadcast_arrays(np.arange(len(a)), np.arange(len(b)))
        return left, right
    rows = np.asarray(pairs)
    return rows[:, 0], rows[:, 1]


@dataclass(frozen=True, eq=False)
class LossPath:
    """Losses and scores along the lines between pairs of networks.

    Parameters
    ----------
    t : ndarray of shape (k,)
        Increasing, with 0 and 1 at its ends.
    losses, scores : ndarray of shape (pairs, k)
        The score is the accuracy, or R^2 for a regression.
    score : {"accuracy", "r2"}
        What it is.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.connectivity import LossPath
    >>> t = np.linspace(0, 1, 5)
    >>> path = LossPath(t, np.array([t**2 + np.sin(np.pi * t)]), np.zeros((1, 5)))
    >>> path.barrier.round(3), path.largest_increase.round(3), path.is_monotonic
    (array([0.75]), array([1.27]), array([False]))
    """

    t: np.ndarray
    losses: np.ndarray
    scores: np.ndarray
    score: str = "accuracy"

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def excess(self) -> np.ndarray:
        """The losses over the chord, of shape (pairs, k)."""
        return self.losses - chord(self.losses, self.t)

    @property
    def barrier(self) -> np.ndarray:
        """The largest excess of the loss strictly between the ends; negative where it stays below the chord."""
        return self.excess[:, 1:-1].max(1)

    @property
    def score_barrier(self) -> np.ndarray:
        """How far the score falls below its chord at most, strictly between the ends."""
        return (chord(self.scores, self.t) - self.scores)[:, 1:-1].max(1)

    @property
    def largest_increase(self) -> np.ndarray:
        """As `largest_increase` of the losses."""
        return largest_increase(self.losses)

    @property
    def is_monotonic(self) -> np.ndarray:
        """As `is_monotonic` of the losses."""
        return is_monotonic(self.losses)

    @property
    def local_convexity(self) -> np.ndarray:
        """As `local_convexity` of the losses."""
        return local_convexity(self.losses)

    @property
    def global_convexity(self) -> np.ndarray:
        """As `global_convexity` of the losses."""
        return global_convexity(self.losses, self.t)

    def summary(self) -> dict[str, float]:
        """The measures over all pairs.

        Returns
        -------
        dict from str to float
            Means of ``"barrier"``, ``"score_barrier"``, ``"largest_increase"``, ``"local_convexity"`` and
            ``"global_convexity"``, and the shares of ``"monotonic"`` paths and of those ``"below_chord"`` everywhere.
        """
        values = {
            "barrier": self.barrier,
            "score_barrier": self.score_barrier,
            "largest_increase": self.largest_increase,
            "monotonic": self.is_monotonic,
            "local_convexity": self.local_convexity,
            "global_convexity": self.global_convexity,
            "below_chord": self.global_convexity == 1,
        }
        return {name: float(value.mean()) for name, value in values.items()}


def loss_path(
    a: WeightArray,
    b: WeightArray,
    task: Task,
    n_points: int = 25,
    *,
    pairs: Any = None,
    dtype: Any = np.float64,
    progress: Progress | None = None,
) -> LossPath:
    """The loss and the score along the line between the networks of each pair, on the task's own (training) data.

    Parameters
    ----------
    a, b : WeightArray of shape (pairs, d)
        A single row goes with every row of the other.
    task : Task
    n_points : int
        How many points strictly between the ends, evenly spaced; the midpoint is one of them if it is odd.
    pairs : array-like of int, shape (pairs, 2), optional
        Rows of `a` and of `b`, where these are not paired row by row.
    dtype : dtype of floats
        The precision of the networks. In float32 a network has a barrier of rounding, 1e-7, to itself.
    progress : callable, optional
        Called with the networks done and their number.

    Returns
    -------
    LossPath
        At ``n_points + 2`` values of t.

    Raises
    ------
    InvalidInputError
        If the two arrays do not pair up, or the task is not that of the networks.
    ValueError
        If `n_points` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.evaluation.connectivity import loss_path
    >>> line = Architecture.mlp([1, 1])
    >>> a, b = WeightArray([[0.0, 0.0]], line), WeightArray([[2.0, 0.0]], line)
    >>> loss_path(a, b, Task(np.ones((1, 1)), [0.0], loss="mse"), n_points=1).losses  # L(t) = 4 t^2
    array([[0., 1., 4.]])
    """
    check_points(n_points, "loss_path")
    left, right = row_pairs(a, b, pairs)
    check_task(a.architecture, task)
    t = np.linspace(0, 1, n_points + 2)
    # pair by pair, as many networks at a time as fit into memory
    total, rows = len(left) * len(t), max(1, CHUNK_NUMBERS // a.shape[1])
    found = np.empty((2, total))
    for start in range(0, total, rows):
        stop = min(start + rows, total)
        pair, place = np.divmod(np.arange(start, stop), len(t))
        ends = a[left[pair]].astype(np.float64), b[right[pair]].astype(np.float64)
        found[:, start:stop] = _measured(_between(*ends, t[place]), task, dtype)
        if progress is not None:
            progress(stop, total)
    loss, score = found.reshape(2, len(left), len(t))
    return LossPath(t, loss, score, "accuracy" if task.is_classification else "r2")


def check_points(n_points: int, function: str) -> None:
    """Refuse a number of points on a line that is not positive.

    Parameters
    ----------
    n_points : int
    function : str
        Whose it is.

    Raises
    ------
    ValueError
    """
    if n_points < 1:
        raise ValueError(f"The 'n_points' of {function} is at least 1, got {n_points}.")


def _measured(weights: WeightArray, task: Task, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Losses and scores of networks; from outputs on in float64."""
    targets = torch.from_numpy(task.y)
    targets = targets if task.is_classification else targets.double()
    loss: list[Tensor] = []
    score: list[Tensor] = []
    for outputs in chunked_outputs(weights, task.X, dtype):
        loss.append(losses(outputs.double(), targets, task.loss))
        score.append(scores(outputs.double(), targets, task.loss))
    said = torch.cat(score).numpy()
    # equal targets have no R^2
    return torch.cat(loss).numpy(), np.where(np.isfinite(said), said, np.nan)
