"""Distances between networks: in weights, minimised over permutations and signs for each pair, and in function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow import mapped
from wsflow.evaluation.embedding import Embedding, align, chunks
from wsflow.representation import in_a_line

# nearest training networks by outputs, and as many by aligned weights, that are then matched pairwise
CANDIDATES = 4


@in_a_line
@dataclass(frozen=True)
class NearestDistances:
    """Distances (n,) of networks to their nearest training networks."""

    weights: np.ndarray
    function: np.ndarray


def nearest_distances(
    networks: Embedding, train: Embedding, candidates: int = CANDIDATES, own: Tensor | None = None
) -> NearestDistances:
    """Return the distance of each network to its nearest training network other than row `own` (n,) of `train`.

    Only the `candidates` nearest by predictions, and as many by aligned weights, are matched pairwise.
    """
    k = min(candidates + (own is not None), len(train))
    by_function = _neighbours(networks.functions, train.functions, k)
    likely = torch.cat([by_function, _neighbours(networks.weights, train.weights, k)], 1)
    left = torch.arange(len(likely)).repeat_interleave(2 * k)
    found = [d.reshape(-1, 2 * k) for d in _distances(networks, left, train, likely.flatten())]
    if own is not None:
        found = [np.where((likely == own.unsqueeze(1)).numpy(), np.inf, d) for d in found]
    return NearestDistances(*(d.min(1) for d in found))


def rms_distances(networks: Embedding, pairs: np.ndarray) -> tuple[float, float]:
    """Return the rms distance, in weights and in function, between the networks of pairs of rows (pairs, 2)."""
    left, right = torch.from_numpy(pairs).T
    weights, functions = _distances(networks, left, networks, right)
    return float(np.sqrt(np.square(weights).mean())), float(np.sqrt(np.square(functions).mean()))


def _distances(a: Embedding, left: Tensor, b: Embedding, right: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances (pairs,) in weights and in function between rows `left` of a and rows `right` of b."""
    weights, functions = [], []
    # few pairs at a time: gathered rows of all of them would not stay in the cache, or in memory
    for part in chunks(len(left), a.architecture.n_weights):
        i, j = left[part], right[part]
        reference = b.weights[j]
        weights.append(_norms(align(a.weights[i], reference, a.architecture) - reference))
        functions.append(_norms(a.functions[i] - b.functions[j]))
    return np.concatenate(weights), np.concatenate(functions)


def _neighbours(rows: Tensor, train: Tensor, k: int) -> Tensor:
    """Return the numbers (n, k) of the rows of `train` that are nearest to each of some rows."""
    nearest, numbers = [], []
    for known in mapped.chunks(*train.shape):
        own = train[known]
        parts = (torch.cdist(rows[part], own) for part in chunks(len(rows), len(own)))
        found = [part.topk(min(k, len(own)), largest=False) for part in parts]
        nearest.append(torch.cat([part.values for part in found]))
        numbers.append(torch.cat([part.indices for part in found]) + known.start)
    if len(numbers) == 1:
        return numbers[0]
    return torch.cat(numbers, 1).gather(1, torch.cat(nearest, 1).topk(k, largest=False).indices)


def _norms(differences: Tensor) -> np.ndarray:
    return torch.linalg.vector_norm(differences.double(), dim=1).numpy()
