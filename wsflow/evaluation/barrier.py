"""Loss barriers: how far the loss rises on the line between two networks, above the line between their losses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wsflow.evaluation.connectivity import check_points, loss_path
from wsflow.exceptions import InvalidInputError
from wsflow.populations.arguments import takes_networks
from wsflow.progress import Progress
from wsflow.representation import in_a_line
from wsflow.task import Task
from wsflow.weights import WeightArray


@takes_networks("a", "b")
def loss_barrier(a: WeightArray, b: WeightArray, task: Task, n_points: int = 25) -> np.ndarray:
    """Measure max_t L(w(t)) - (1 - t) L(a) - t L(b), w(t) = (1 - t) a + t b, for each pair on the task's own data.

    Parameters
    ----------
    a, b : WeightArray of shape (pairs, d)
        A single row goes with every row of the other.
    n_points : int
        How many points strictly between the ends, evenly spaced; 1 is the midpoint, which is among them if it is odd.

    Returns
    -------
    ndarray of shape (pairs,)
        It is negative where the loss stays below the line between those of the ends.

    Raises
    ------
    InvalidInputError
        If the two arrays do not pair up.
    ValueError
        If `n_points` is not positive.

    References
    ----------
    Frankle, Dziugaite, Roy and Carbin 2020, arXiv:1912.05671.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, loss_barrier
    >>> line = Architecture.mlp([1, 1])
    >>> a, b = WeightArray([[0.0, 0.0]], line), WeightArray([[2.0, 0.0]], line)
    >>> loss_barrier(a, b, Task(np.ones((1, 1)), [0.0], loss="mse"), n_points=3)  # L(t) = 4 t^2
    array([-0.75])
    """
    check_points(n_points, "loss_barrier")
    return loss_path(a, b, task, n_points).barrier


def midpoint_barrier(a: WeightArray, b: WeightArray, task: Task, progress: Progress | None = None) -> np.ndarray:
    """Measure the excess (pairs,) of the loss at the midpoint, L((a + b) / 2) - (L(a) + L(b)) / 2."""
    return loss_path(a, b, task, n_points=1, progress=progress).barrier


@in_a_line
@dataclass(frozen=True, eq=False)
class BarrierMatrix:
    """The barriers between the networks of one array and those of another, or of itself.

    Parameters
    ----------
    losses, scores : ndarray of shape (n, m)
        Largest excess of the loss over its chord, and largest fall of the score below its chord.
    symmetric : bool
        Whether rows and columns are the same networks; the diagonal is then zero.
    midpoint : bool
        Whether they are those half-way, and not the largest of several points.
    """

    losses: np.ndarray
    scores: np.ndarray
    score: str = "accuracy"
    symmetric: bool = True
    midpoint: bool = False

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows and columns of distinct pairs: above the diagonal, where the matrix is symmetric."""
        rows, columns = np.indices(self.losses.shape).reshape(2, -1)
        kept = rows < columns if self.symmetric else np.ones(len(rows), dtype=bool)
        return rows[kept], columns[kept]


def barrier_matrix(
    weights: WeightArray,
    task: Task,
    n_points: int = 25,
    *,
    others: WeightArray | None = None,
    progress: Progress | None = None,
) -> BarrierMatrix:
    """Measure the barriers between all pairs of networks, or between each and each of `others` (m, d)."""
    check_points(n_points, "barrier_matrix")
    shape = len(weights), len(weights if others is None else others)
    matrix = BarrierMatrix(np.zeros(shape), np.zeros(shape), symmetric=others is None, midpoint=n_points == 1)
    rows, columns = matrix.pairs
    if not len(rows):
        raise InvalidInputError("Barriers are between networks: pass at least two.")
    ends = weights, weights if others is None else others
    path = loss_path(*ends, task, n_points, pairs=np.stack([rows, columns], axis=1), progress=progress)
    for values, found in ((matrix.losses, path.barrier), (matrix.scores, path.score_barrier)):
        values[rows, columns] = found
        if matrix.symmetric:
            values[columns, rows] = found
    return replace(matrix, score=path.score)


def fixed_pairs(runs: np.ndarray, n_pairs: int = 200) -> np.ndarray:
    """Choose at most `n_pairs` pairs (pairs, 2) of rows of different runs (n,), the same ones every time.

    No pair comes twice, and no network twice while there are others.

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
    """Return where the pairs (i, i + offset) of a ring of n begin, even i first: for offset 1 they share no member."""
    # opposite members of an even ring are each other's partner
    starts = np.arange(n // 2 if 2 * offset == n else n)
    return np.concatenate([starts[::2], starts[1::2]])
