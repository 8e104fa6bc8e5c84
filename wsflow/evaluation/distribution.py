"""Samples against networks of held-out runs as two sets of points: fidelity, and whether they have one law."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from wsflow.evaluation.mmd import mmd_test
from wsflow.evaluation.points import Points, some, take_points
from wsflow.evaluation.regions import NEIGHBOURS, expected_coverage, fidelity

# networks of a set: all pairs are compared, and the test multiplies their kernel with a thousand permutations
NETWORKS = 500
SPACES = {"weights": "weights", "function": "functions"}


def compare_distributions(samples: Points, real: Points, random_state: int) -> dict[str, dict[str, float]]:
    """Fidelity and the two-sample test, in aligned canonical weights and in function.

    Parameters
    ----------
    samples, real : Points
        Independent networks, no two of one run. At most 500 of each are compared, evenly spaced.
    random_state : int
        Seed of the permutations.

    Returns
    -------
    dict from {"weights", "function"} to dict from str to float
        ``"precision"``, ``"recall"``, ``"density"``, ``"coverage"`` and what it would be for one law
        (``"expected_coverage"``), ``"mmd2"``, ``"p_value"`` and ``"bandwidth"``; NaN where there are too few networks.
    """
    samples, real = some(samples, NETWORKS), some(real, NETWORKS)
    generator = torch.Generator().manual_seed(random_state)
    return {name: _compare(getattr(samples, key), getattr(real, key), generator) for name, key in SPACES.items()}


def one_per_run(points: Points, runs: np.ndarray) -> Points:
    """The last network of each run: those of one run are not independent.

    Parameters
    ----------
    points : Points
    runs : ndarray of int, shape (n,)

    Returns
    -------
    Points
    """
    _, first_from_the_end = np.unique(np.asarray(runs)[::-1], return_index=True)
    return take_points(points, np.sort(len(runs) - 1 - first_from_the_end))


def _compare(samples: torch.Tensor, real: torch.Tensor, generator: torch.Generator) -> dict[str, float]:
    shared = asdict(fidelity(samples, real)) | {"expected_coverage": float("nan")}
    if min(len(samples), len(real)) > NEIGHBOURS:
        shared["expected_coverage"] = expected_coverage(len(real), len(samples))
    if min(len(samples), len(real)) < 2:
        return shared | dict.fromkeys(("mmd2", "p_value", "bandwidth"), float("nan"))
    return shared | asdict(mmd_test(samples, real, generator))
