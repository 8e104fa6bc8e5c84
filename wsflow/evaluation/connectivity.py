"""Linear mode connectivity: the loss and the score on straight lines between networks, and measures of such paths.

On the line w(t) = (1 - t) a + t b the chord is the straight line between the losses of the ends, and the barrier is the
largest excess L(w(t)) - (1 - t) L(a) - t L(b) (Frankle, Dziugaite, Roy and Carbin 2020, arXiv:1912.05671).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture.fixed_entries import difference
from wsflow.evaluation.predictive import chunked_outputs, example_weights, score_key
from wsflow.exceptions import InvalidInputError
from wsflow.populations.arguments import takes_networks
from wsflow.progress import Progress, counter
from wsflow.representation import in_a_line
from wsflow.running import losses, scores
from wsflow.running.compatibility import warn_of_classes
from wsflow.task import Task
from wsflow.weights import WeightArray

# numbers of the networks between others that exist at one time: 32 MiB in float64
CHUNK_NUMBERS = 2**22


@takes_networks("a", "b")
def interpolate(a: WeightArray, b: WeightArray, t: Any) -> WeightArray:
    """Interpolate linearly between networks, (1 - t) a + t b.

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
    """Return row i at t_i between its ends."""
    # from the nearer end: exact at both, and where they are equal
    step = np.asarray(b) - np.asarray(a)
    t = t[:, None]
    rows = np.where(t < 0.5, np.asarray(a) + t * step, np.asarray(b) - (1 - t) * step)
    return a.like(rows.astype(step.dtype, copy=False), aligned=a.aligned and b.aligned)


def row_pairs(a: WeightArray, b: WeightArray, pairs: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (pairs,) of `a` and of `b` that go together: those of `pairs`, or else row by row.

    A single row goes with every row of the other.
    """
    if not (isinstance(a, WeightArray) and isinstance(b, WeightArray)) or a.architecture != b.architecture:
        known = isinstance(a, WeightArray) and isinstance(b, WeightArray)
        raise InvalidInputError(
            f"A line needs pairs of networks of one architecture, got {a!s:.80} and {b!s:.80}."
            f"{difference(a.architecture, b.architecture) if known else ''}"
        )
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


@in_a_line
@dataclass(frozen=True, eq=False)
class LossPath:
    """Losses and scores along the lines between pairs of networks, with the measures of Lim et al. 2024.

    Parameters
    ----------
    t : ndarray of shape (k,)
        Increasing, with 0 and 1 at its ends.
    losses, scores : ndarray of shape (pairs, k)
        The score is the accuracy, R^2 for a regression, or minus a loss of one's own, as `score` says: ``"accuracy"``,
        ``"r2"`` or ``"minus_loss"``.

    References
    ----------
    Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv:2405.20231; Lucas, Bae, Zhang, Fort, Zemel and Grosse 2021,
    arXiv:2104.11044 (monotonic linear interpolation).
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
        """By how much the loss rises along each path at most."""
        return (self.losses - np.minimum.accumulate(self.losses, axis=-1)).max(-1)

    @property
    def is_monotonic(self) -> np.ndarray:
        """Whether the loss never rises along a path (Lucas et al. 2021), up to rounding."""
        return np.asarray(self._at_most(self.losses[:, 1:], self.losses[:, :-1]).all(-1))

    @property
    def local_convexity(self) -> np.ndarray:
        """The share of points between the ends at which each path is convex."""
        return self._at_most(self.losses[:, 1:-1], (self.losses[:, :-2] + self.losses[:, 2:]) / 2).mean(-1)

    @property
    def global_convexity(self) -> np.ndarray:
        """The share of points between the ends at which each path is not above its chord."""
        return self._at_most(self.losses[:, 1:-1], chord(self.losses, self.t)[:, 1:-1]).mean(-1)

    def summary(self) -> dict[str, float]:
        """Return the mean of each measure, and the shares of monotonic paths and of those below the chord."""
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

    def _at_most(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Return whether values are at most their bounds, up to the rounding of each path."""
        return values <= bounds + 8 * np.finfo(np.float64).eps * np.abs(self.losses).max(-1, keepdims=True)


@takes_networks("a", "b")
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
    """Measure the loss and the score along the line between the networks of each pair, on the task's (training) data.

    Parameters
    ----------
    a, b : WeightArray of shape (pairs, d)
        A single row goes with every row of the other.
    n_points : int
        How many points strictly between the ends, evenly spaced; the midpoint is one of them if it is odd.
    pairs : array-like of int, shape (pairs, 2), optional
        Rows of `a` and of `b`, where these are not paired row by row.
    dtype : dtype of floats
        The precision of the networks. In float32 a network has a barrier of rounding, 1e-7, to itself.
    progress : callable, optional
        Called with the networks that were run and their number: those between the ends, and each end once.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.evaluation import loss_path
    >>> line = Architecture.mlp([1, 1])
    >>> a, b = WeightArray([[0.0, 0.0]], line), WeightArray([[2.0, 0.0]], line)
    >>> loss_path(a, b, Task(np.ones((1, 1)), [0.0], loss="mse"), n_points=1).losses  # L(t) = 4 t^2
    array([[0., 1., 4.]])
    """
    check_points(n_points, "loss_path")
    left, right = row_pairs(a, b, pairs)
    warn_of_classes(a.architecture, task)
    t = np.linspace(0, 1, n_points + 2)
    (firsts, first), (lasts, last) = (np.unique(rows, return_inverse=True) for rows in (left, right))
    count = counter(progress, len(firsts) + len(lasts) + len(left) * n_points)

    def networks_between(index: np.ndarray) -> WeightArray:
        pair, point = np.divmod(index, n_points)
        return _between(a[left[pair]].astype(np.float64), b[right[pair]].astype(np.float64), t[1 + point])

    def measured(networks: Callable[[np.ndarray], WeightArray], n: int) -> np.ndarray:
        # as many networks at a time as fit into memory
        parts = np.split(np.arange(n), range(rows := max(1, CHUNK_NUMBERS // a.shape[1]), n, rows))
        return np.concatenate([_losses_and_scores(networks(part), task, dtype, count) for part in parts], axis=1)

    start = measured(lambda index: a[firsts[index]], len(firsts))[:, first, None]
    end = measured(lambda index: b[lasts[index]], len(lasts))[:, last, None]
    inside = measured(networks_between, len(left) * n_points).reshape(2, len(left), n_points)
    losses, scores = np.concatenate([start, inside, end], axis=2)
    return LossPath(t, losses, scores, score_key(task))


def check_points(n_points: int, function: str) -> None:
    """Refuse a number of points on a line that is not positive, in the name of a function."""
    if n_points < 1:
        raise ValueError(f"The 'n_points' of {function} is at least 1, got {n_points}.")


def _losses_and_scores(weights: WeightArray, task: Task, dtype: Any, count: Callable[[int], None]) -> np.ndarray:
    """Return the losses and scores (2, n) of networks, computed from the outputs on in float64."""
    targets, share = torch.from_numpy(task.targets), example_weights(task)
    targets = targets.double() if targets.is_floating_point() else targets
    loss: list[Tensor] = []
    score: list[Tensor] = []
    for outputs in chunked_outputs(weights, task.X, dtype):
        loss.append(losses(outputs.double(), targets, task.loss, share))
        score.append(scores(outputs.double(), targets, task.loss, share))
        count(len(outputs))
    values = torch.cat(score).numpy()
    # equal targets have no R^2
    return np.stack([torch.cat(loss).numpy(), np.where(np.isfinite(values), values, np.nan)])


def chord(values: np.ndarray, t: np.ndarray | None = None) -> np.ndarray:
    """Return the straight line between the first and the last value of each path (..., k), evenly spaced without t."""
    t = np.linspace(0, 1, values.shape[-1]) if t is None else t
    start = values[..., :1]
    return start + t * (values[..., -1:] - start)
