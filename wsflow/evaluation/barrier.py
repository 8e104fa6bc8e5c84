"""Loss barriers: how far the loss rises between two networks.

Along the straight line w(t) = (1 - t) a + t b the barrier is the largest excess of the loss over the line between
the losses of the ends, max_t L(w(t)) - (1 - t) L(a) - t L(b).

References
----------
Frankle, Dziugaite, Roy and Carbin 2020, arXiv:1912.05671; Lim, Putterman, Walters, Maron and
Jegelka 2024, "The empirical impact of neural parameter symmetries", arXiv:2405.20231.
"""

from __future__ import annotations

import numpy as np

from wsflow.evaluation.predictive import predict
from wsflow.exceptions import InvalidInputError
from wsflow.task import Task
from wsflow.weights import WeightArray


def loss_barrier(a: WeightArray, b: WeightArray, task: Task, n_points: int = 3) -> np.ndarray:
    """The loss barrier between the networks of each pair, on the task's own (training) data.

    Parameters
    ----------
    a, b : WeightArray of shape (pairs, d)
    task : Task
    n_points : int
        How many points strictly between the ends; 1 is the midpoint.

    Returns
    -------
    ndarray of shape (pairs,)
        It may be negative, where the loss between the networks is lower than at the ends.

    Raises
    ------
    InvalidInputError
        If the two arrays do not pair up.
    ValueError
        If `n_points` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.evaluation.barrier import loss_barrier
    >>> line = Architecture.mlp([1, 1])
    >>> a, b = WeightArray([[0.0, 0.0]], line), WeightArray([[2.0, 0.0]], line)
    >>> loss_barrier(a, b, Task(np.ones((1, 1)), [0.0], loss="mse")).round(6)  # L(t) = 4 t^2
    array([-0.75])
    """
    if n_points < 1:
        raise ValueError(f"The 'n_points' of loss_barrier is at least 1, got {n_points}.")
    if len(a) != len(b) or a.architecture != b.architecture:
        raise InvalidInputError(
            f"A loss barrier needs pairs of networks of one architecture, got {a} and {b}. Index both by fixed_pairs."
        )
    ends = predict(a, task).losses, predict(b, task).losses
    # in float64: rounding at the ends would show as a barrier of identical networks
    start, stop = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    excess = []
    for t in np.linspace(0, 1, n_points + 2)[1:-1]:
        between = predict(a.like((1 - t) * start + t * stop), task).losses
        excess.append(between - (1 - t) * ends[0] - t * ends[1])
    return np.max(excess, axis=0)


def midpoint_barrier(a: WeightArray, b: WeightArray, task: Task) -> np.ndarray:
    """The excess of the loss at the midpoint, L((a + b) / 2) - (L(a) + L(b)) / 2.

    Parameters
    ----------
    a, b : WeightArray of shape (pairs, d)
    task : Task

    Returns
    -------
    ndarray of shape (pairs,)
    """
    return loss_barrier(a, b, task, n_points=1)


def fixed_pairs(runs: np.ndarray, n_pairs: int = 200) -> np.ndarray:
    """Pairs of networks of different runs, the same ones every time.

    Parameters
    ----------
    runs : array-like of int, shape (n,)
    n_pairs : int
        At most so many: fewer, if there are no more.

    Returns
    -------
    ndarray of int, shape (pairs, 2)
        Row indices; no pair twice, and no network twice while there are others.

    Raises
    ------
    InvalidInputError
        If all networks are of one run.

    Examples
    --------
    >>> from wsflow.evaluation.barrier import fixed_pairs
    >>> len(fixed_pairs([0, 0, 1, 1])), len(fixed_pairs([0, 0, 1, 1], n_pairs=3))
    (4, 3)
    """
    runs = np.asarray(runs)
    n = len(runs)
    if len(np.unique(runs)) < 2:
        raise InvalidInputError("Pairs of networks of different runs need at least 2 runs: train one more.")
    order = np.random.default_rng(0).permutation(n)
    pairs = np.empty((0, 2), dtype=np.int64)
    for offset in range(1, n // 2 + 1):
        starts = _starts(n, offset)
        candidates = order[np.stack([starts, (starts + offset) % n], axis=1)]
        pairs = np.concatenate([pairs, candidates[runs[candidates[:, 0]] != runs[candidates[:, 1]]]])
        if len(pairs) >= n_pairs:
            break
    return pairs[:n_pairs]


def _starts(n: int, offset: int) -> np.ndarray:
    """Where the pairs (i, i + offset) of a ring of n begin; even i come first, which for offset 1 share no member."""
    # opposite places of an even ring are each other's partner
    count = n // 2 if 2 * offset == n else n
    places = np.arange(count)
    return np.concatenate([places[::2], places[1::2]])
