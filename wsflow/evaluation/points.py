"""Networks as points of two spaces: of canonical weights, and of functions.

The distance in weights between two networks is minimised over permutations and signs for each pair; the
distance in function is the rms difference of their predictions on a task's held-out inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.evaluation.predictive import chunked_outputs
from wsflow.running import predictions
from wsflow.symmetry.canonical import canonical_action
from wsflow.symmetry.matching import orbit_matching
from wsflow.task import Task
from wsflow.weights import WeightArray

# nearest training networks by outputs, and as many by aligned weights, that are then matched pairwise
CANDIDATES = 4
# inputs on which functions are compared: memory for a population grows with them
MAX_INPUTS = 512
# networks from which a reference is made, and how often it is matched again
REFERENCE_NETWORKS, REFERENCE_SWEEPS = 400, 3
# numbers of one chunk of rows: 4 MiB stay in the cache, and matching is twenty times slower on 64 MiB with two threads
CHUNK_NUMBERS = 2**19


@dataclass(frozen=True)
class Points:
    """Networks as points of two spaces.

    Parameters
    ----------
    architecture : Architecture
    weights : Tensor of shape (n, d)
        Canonical and aligned to a reference; statistics are zero, they are no coordinates.
    functions : Tensor of shape (n, f)
        Predictions on the inputs of a task, scaled so that the Euclidean distance is the rms difference.
    """

    architecture: Architecture
    weights: Tensor
    functions: Tensor


@dataclass(frozen=True)
class Nearest:
    """Distances of networks to their nearest training networks.

    Parameters
    ----------
    weights, function : ndarray of shape (n,)
    """

    weights: np.ndarray
    function: np.ndarray


def canonical(weights: WeightArray) -> Tensor:
    """The canonical representatives of networks; signs are left for a reference to decide.

    Parameters
    ----------
    weights : WeightArray of shape (n, d)

    Returns
    -------
    Tensor of shape (n, d)
        In float64.
    """
    architecture = weights.architecture
    chunks = [
        torch.from_numpy(np.array(weights[rows], dtype=np.float64))
        for rows in _chunks(len(weights), architecture.n_weights)
    ]
    return torch.cat([canonical_action(rows, architecture, signs=False)(rows) for rows in chunks])


def mean_reference(train: WeightArray) -> Tensor:
    """The mean of canonical networks that were aligned to it.

    Parameters
    ----------
    train : WeightArray of shape (n, d)

    Returns
    -------
    Tensor of shape (d,)

    References
    ----------
    The iterated mean is the "MergeMany" of Ainsworth, Hayase and Srinivasa 2023, arXiv:2209.04836.
    """
    few = np.linspace(0, len(train) - 1, min(len(train), REFERENCE_NETWORKS)).astype(int)
    rows = canonical(train[few])
    reference = rows.mean(0) if train.aligned else rows[0]
    for _ in range(0 if train.aligned else REFERENCE_SWEEPS):
        reference = align(rows, reference, train.architecture).mean(0)
    return reference


def align(weights: Tensor, reference: Tensor, architecture: Architecture) -> Tensor:
    """Networks with permutations and signs that bring them close to a reference, or to one for each.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
        Canonical.
    reference : Tensor of shape (d,) or (n, d)
    architecture : Architecture

    Returns
    -------
    Tensor of shape (n, d)
    """
    if not architecture.groups:
        return weights
    references = reference.expand(weights.shape)
    chunks = _chunks(len(weights), architecture.n_weights)
    return torch.cat([orbit_matching(weights[r], references[r], architecture)(weights[r]) for r in chunks])


def locate(weights: WeightArray, task: Task, reference: Tensor) -> Points:
    """Networks as points.

    Parameters
    ----------
    weights : WeightArray of shape (n, d)
    task : Task
    reference : Tensor of shape (d,)

    Returns
    -------
    Points
    """
    architecture = weights.architecture
    rows = align(canonical(weights), reference, architecture)
    rows[:, torch.from_numpy(architecture.statistic_columns)] = 0
    inputs = task.held_out.X
    inputs = inputs[np.linspace(0, len(inputs) - 1, min(len(inputs), MAX_INPUTS)).astype(int)]
    said = torch.cat([predictions(o, task.loss).flatten(1) for o in chunked_outputs(weights, inputs)])
    return Points(architecture, rows, said / said.shape[1] ** 0.5)


def some(points: Points, count: int) -> Points:
    """At most so many of the networks, evenly spaced.

    Parameters
    ----------
    points : Points
    count : int

    Returns
    -------
    Points
    """
    n = len(points.weights)
    return take_points(points, np.linspace(0, n - 1, min(n, count)).astype(int))


def take_points(points: Points, rows: np.ndarray) -> Points:
    """Some of the networks.

    Parameters
    ----------
    points : Points
    rows : ndarray of int

    Returns
    -------
    Points
    """
    return Points(points.architecture, points.weights[rows], points.functions[rows])


def join(points: Points, others: Points) -> Points:
    """The networks of both.

    Parameters
    ----------
    points, others : Points

    Returns
    -------
    Points
    """
    pairs = (points.weights, others.weights), (points.functions, others.functions)
    return Points(points.architecture, *(torch.cat(pair) for pair in pairs))


def nearest(points: Points, train: Points, candidates: int = CANDIDATES, own: Tensor | None = None) -> Nearest:
    """The distance of each network to its nearest training network, in weights and in function.

    Only likely neighbours are matched pairwise: the nearest by predictions, and those by aligned weights.

    Parameters
    ----------
    points, train : Points
    candidates : int
        How many of each kind.
    own : LongTensor of shape (n,), optional
        The rows of `train` that are the networks themselves, and do not count.

    Returns
    -------
    Nearest
    """
    k = min(candidates + (own is not None), len(train.weights))
    by_function = _neighbours(points.functions, train.functions, k)
    likely = torch.cat([by_function, _neighbours(points.weights, train.weights, k)], 1)
    left = torch.arange(len(likely)).repeat_interleave(2 * k)
    found = [d.reshape(-1, 2 * k) for d in _distances(points, left, train, likely.flatten())]
    if own is not None:
        found = [np.where((likely == own.unsqueeze(1)).numpy(), np.inf, d) for d in found]
    return Nearest(*(d.min(1) for d in found))


def spread(points: Points, pairs: np.ndarray) -> tuple[float, float]:
    """The rms distance between the networks of pairs.

    Parameters
    ----------
    points : Points
    pairs : ndarray of int, shape (pairs, 2)

    Returns
    -------
    weights, functions : float
    """
    left, right = torch.from_numpy(pairs).T
    weights, functions = _distances(points, left, points, right)
    return float(np.sqrt(np.square(weights).mean())), float(np.sqrt(np.square(functions).mean()))


def _distances(points: Points, left: Tensor, others: Points, right: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Distances in weights, matched pairwise, and in function, between rows of the one and rows of the other."""
    weights, functions = [], []
    # few pairs at a time: gathered rows of all of them would not stay in the cache, or in memory
    for part in _chunks(len(left), points.architecture.n_weights):
        a, b = left[part], right[part]
        reference = others.weights[b]
        weights.append(_norms(align(points.weights[a], reference, points.architecture) - reference))
        functions.append(_norms(points.functions[a] - others.functions[b]))
    return np.concatenate(weights), np.concatenate(functions)


def _neighbours(rows: Tensor, train: Tensor, k: int) -> Tensor:
    chunks = [torch.cdist(rows[part], train).topk(k, largest=False).indices for part in _chunks(len(rows), len(train))]
    return torch.cat(chunks)


def _norms(differences: Tensor) -> np.ndarray:
    return torch.linalg.vector_norm(differences.double(), dim=1).numpy()


def _chunks(n: int, width: int) -> Iterator[slice]:
    rows = max(1, CHUNK_NUMBERS // width)
    return (slice(start, start + rows) for start in range(0, n, rows))
