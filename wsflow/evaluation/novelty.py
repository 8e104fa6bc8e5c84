"""Novelty and dispersion: how far samples are from the training networks, and from each other.

Both are ratios to the same distance for networks of held-out runs: at novelty 1 a sample is as new
as a newly trained network, at 0 it is a copy. Distances are measured twice, and the smaller ratio counts:

- in weights, between canonical representatives, minimised over permutations and signs for each pair, because
  alignment to a reference is unstable and would make a noisy copy look new;
- in function, the rms difference of predictions on held-out inputs, because most weights hardly matter and
  noise in those looks new as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.evaluation.barrier import fixed_pairs
from wsflow.evaluation.predictive import chunked_outputs
from wsflow.exceptions import InvalidInputError
from wsflow.networks import predictions
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import canonical_action
from wsflow.symmetry.matching import weight_matching
from wsflow.task import Task
from wsflow.weights import WeightArray

# nearest training networks by outputs, and as many by aligned weights, that are then matched pairwise
CANDIDATES = 4
# pairs whose rms distance is the dispersion
PAIRS = 2000
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


@dataclass(frozen=True)
class Novelty:
    """Distances of samples to the training networks, over those of networks of held-out runs.

    Parameters
    ----------
    value, q05, copies : float
        Ratio of the means, ratio of the 5% quantiles, and share of likely copies: samples nearer to a training
        network than 1% of the held-out runs' networks are. In weights or in function, whichever looks less new.
    weights, function : float
        Ratio of the means in weights, in function. NaN where held-out networks have no distance at all.
    q05_weights, q05_function : float
    copies_weights, copies_function : float
    """

    value: float
    q05: float
    copies: float
    weights: float
    function: float
    q05_weights: float
    q05_function: float
    copies_weights: float
    copies_function: float


@dataclass(frozen=True)
class Dispersion:
    """The rms distance between samples, over that between networks of held-out runs.

    Parameters
    ----------
    value : float
        The smaller of the two.
    weights, function : float
    """

    value: float
    weights: float
    function: float


def novelty(samples: WeightArray, train: WeightArray, held_out: WeightArray, task: Task) -> Novelty:
    """How new samples are.

    Parameters
    ----------
    samples, train, held_out : WeightArray of shape (n, d)
        Any representatives of the networks; the runs of held-out networks are not in training.
    task : Task
        Its held-out inputs are where functions are compared.

    Returns
    -------
    Novelty

    Raises
    ------
    InvalidInputError
        If a held-out network is of a run of the training networks.
    """
    check_runs(train, held_out)
    reference = mean_reference(train)
    known, others, new = (locate(w, task, reference) for w in (train, held_out, samples))
    return compare_nearest(nearest(new, known), nearest(others, known))


def dispersion(samples: WeightArray, held_out: WeightArray, task: Task) -> Dispersion:
    """How different samples are from each other.

    Parameters
    ----------
    samples, held_out : WeightArray of shape (n, d)
        Each sample counts as a run of its own.
    task : Task

    Returns
    -------
    Dispersion
    """
    reference = mean_reference(held_out)
    spreads = (
        spread(locate(weights, task, reference), fixed_pairs(runs, PAIRS))
        for weights, runs in ((samples, np.arange(len(samples))), (held_out, held_out.runs))
    )
    return compare_spread(*spreads)


def check_runs(train: WeightArray, held_out: WeightArray) -> None:
    """Refuse held-out networks of runs that are also in training.

    Parameters
    ----------
    train, held_out : WeightArray

    Raises
    ------
    InvalidInputError
    """
    shared = np.intersect1d(train.runs, held_out.runs)
    if len(shared):
        raise InvalidInputError(
            f"{len(shared)} of the held-out runs are also in training (run {shared[0]} is one), so their networks are "
            "not held out. Split by run, or number the runs of separately trained networks apart with runs=."
        )


def held_out_part(task: Task) -> Task:
    """The part of a task that networks have not been trained on: test, else validation, else all there is.

    Parameters
    ----------
    task : Task

    Returns
    -------
    Task
    """
    return task.test or task.validation or task


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
    return torch.cat([_apply(canonical_action(rows, architecture, signs=False), rows) for rows in chunks])


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
    return torch.cat(
        [
            weight_matching(weights[rows], reference[rows] if reference.dim() == 2 else reference, architecture)(
                weights[rows]
            )
            for rows in _chunks(len(weights), architecture.n_weights)
        ]
    )


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
    inputs = held_out_part(task).X
    inputs = inputs[np.linspace(0, len(inputs) - 1, min(len(inputs), MAX_INPUTS)).astype(int)]
    said = torch.cat([predictions(o, task.loss).flatten(1) for o in chunked_outputs(weights, inputs)])
    return Points(architecture, rows, said / said.shape[1] ** 0.5)


def nearest(points: Points, train: Points, candidates: int = CANDIDATES) -> Nearest:
    """The distance of each network to its nearest training network, in weights and in function.

    Only likely neighbours are matched pairwise: the nearest by predictions, and those by aligned weights.

    Parameters
    ----------
    points, train : Points
    candidates : int
        How many of each kind.

    Returns
    -------
    Nearest
    """
    k = min(candidates, len(train.weights))
    by_function = _neighbours(points.functions, train.functions, k)
    likely = torch.cat([by_function, _neighbours(points.weights, train.weights, k)], 1)
    left = torch.arange(len(likely)).repeat_interleave(2 * k)
    weights = _matched_distances(points, left, train, likely.flatten())
    functions = _norms(points.functions[left] - train.functions[likely.flatten()])
    return Nearest(weights.reshape(-1, 2 * k).min(1), functions.reshape(-1, 2 * k).min(1))


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
    weights = _matched_distances(points, left, points, right)
    functions = _norms(points.functions[left] - points.functions[right])
    return float(np.sqrt(np.square(weights).mean())), float(np.sqrt(np.square(functions).mean()))


def compare_nearest(samples: Nearest, held_out: Nearest) -> Novelty:
    """The novelty that follows from distances to training networks.

    Parameters
    ----------
    samples, held_out : Nearest

    Returns
    -------
    Novelty

    Examples
    --------
    >>> near, far = np.full(9, 1.0), np.full(9, 2.0)
    >>> compare_nearest(Nearest(near, far), Nearest(far, far)).value
    0.5
    """
    pairs = (samples.weights, held_out.weights), (samples.function, held_out.function)
    means = [_ratio(s.mean(), h.mean()) for s, h in pairs]
    quantiles = [_ratio(np.quantile(s, 0.05), np.quantile(h, 0.05)) for s, h in pairs]
    copies = [float((s < np.quantile(h, 0.01)).mean()) for s, h in pairs]
    return Novelty(_smaller(*means), _smaller(*quantiles), max(copies), *means, *quantiles, *copies)


def compare_spread(samples: tuple[float, float], held_out: tuple[float, float]) -> Dispersion:
    """The dispersion that follows from rms distances in weights and in function.

    Parameters
    ----------
    samples, held_out : tuple of two floats

    Returns
    -------
    Dispersion
    """
    ratios = [_ratio(s, h) for s, h in zip(samples, held_out, strict=True)]
    return Dispersion(_smaller(*ratios), *ratios)


def _apply(action: Action, rows: Tensor) -> Tensor:
    # an architecture without groups and wires has an action without group elements
    return action(rows) if len(action) else rows


def _matched_distances(points: Points, left: Tensor, others: Points, right: Tensor) -> np.ndarray:
    distances = []
    for rows in _chunks(len(left), points.architecture.n_weights):
        targets = others.weights[right[rows]]
        distances.append(_norms(align(points.weights[left[rows]], targets, points.architecture) - targets))
    return np.concatenate(distances)


def _neighbours(rows: Tensor, train: Tensor, k: int) -> Tensor:
    chunks = [torch.cdist(rows[part], train).topk(k, largest=False).indices for part in _chunks(len(rows), len(train))]
    return torch.cat(chunks)


def _norms(differences: Tensor) -> np.ndarray:
    return torch.linalg.vector_norm(differences.double(), dim=1).numpy()


def _chunks(n: int, width: int) -> Iterator[slice]:
    rows = max(1, CHUNK_NUMBERS // width)
    return (slice(start, start + rows) for start in range(0, n, rows))


def _ratio(value: float, held_out: float) -> float:
    return float(value / held_out) if held_out > 0 else float("nan")


def _smaller(a: float, b: float) -> float:
    return min((x for x in (a, b) if not np.isnan(x)), default=float("nan"))
