"""References to which networks are aligned, found by their weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture.restriction import restricted
from wsflow.progress import Progress, counter
from wsflow.symmetry.matching.alignment import Alignment, Networks
from wsflow.symmetry.matching.universe import universe_matching

# networks that may be the medoid: to know how far all others are, they have to be matched to each
MEDOIDS = 16
# what a search counts for where each network that is aligned is one step
STEPS = 16
# rounds of the iterated mean, which ends earlier where distances stop falling
MAX_ITER = 10


def mean(alignment: Alignment, networks: Networks, progress: Progress | None = None) -> tuple[Tensor, list[float]]:
    """Return the iterated mean (d,) of aligned networks (Ainsworth et al. 2023, section 5.3).

    The second result are the root mean square distances to it by round.
    """
    reference, distances = networks.representatives[0], []
    count = counter(progress, MAX_ITER)
    for _ in range(MAX_ITER):
        aligned = alignment.by_weights(networks, reference)
        count()
        reference = aligned.mean(0)
        distances.append(float((aligned - reference).square().sum(1).mean().sqrt()))
        if len(distances) > 1 and distances[-1] > distances[-2] * (1 - 1e-4):
            break
    return reference, distances


def medoid(alignment: Alignment, networks: Networks, progress: Progress | None = None) -> tuple[Tensor, list[float]]:
    """Return the network (d,) with the smallest sum of distances to all others, of evenly spaced candidates."""
    rows = networks.representatives
    candidates = spaced(len(rows), MEDOIDS)
    count, sums = counter(progress, len(candidates)), []
    for i in candidates:
        sums.append((alignment.by_weights(networks, rows[i]) - rows[i]).norm(dim=1).sum())
        count()
    return rows[candidates[int(torch.stack(sums).argmin())]], []


def universe(alignment: Alignment, networks: Networks, progress: Progress | None = None) -> tuple[Tensor, list[float]]:
    """Return the mean (d,) of a cycle-consistent matching (Crisostomi et al. 2024)."""
    # networks that agree in a group need no matching there; others are matched to what these have in common later
    architecture = restricted(alignment.architecture, alignment.fixed)
    rows = networks.representatives
    return universe_matching(rows, architecture, progress=progress)(rows).mean(0), []


# from an alignment and networks to a reference (d,), and the distances to it by round
REFERENCES: dict[str, Callable[[Alignment, Networks, Progress | None], tuple[Tensor, list[float]]]] = {
    "mean": mean,
    "medoid": medoid,
    "universe": universe,
}


def spaced(n: int, count: int) -> np.ndarray:
    """Return the numbers of so many of n rows, evenly spaced."""
    return np.linspace(0, n - 1, min(n, count)).round().astype(int)
