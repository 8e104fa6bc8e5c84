"""Precision, recall, density and coverage of samples beside real networks, by k-nearest-neighbour balls.

The support of a set of points is estimated by balls around them, each as large as the distance to the point's k-th
nearest neighbour in the set. Real networks are those of held-out runs: beside training networks, copies would be
perfect. Precision and recall are those of Kynkaanniemi, Karras, Laine, Lehtinen and Aila 2019, arXiv:1904.06991;
density and coverage are those of Naeem, Oh, Uh, Choi and Yoo 2020, arXiv:2002.09797.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 5


@dataclass(frozen=True)
class PRDC:
    """How the supports of samples and of real networks overlap.

    Parameters
    ----------
    precision, recall : float
        The share of samples in the support of the real networks, and of real networks in that of the samples.
    density : float
        In how many balls of real networks a sample lies, over k: 1 on average where both have one law, and not
        misled by a single real outlier with a large ball.
    coverage : float
        The share of real networks whose ball has a sample in it; about 1 - 2^-k where both have one law.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def compute_prdc(samples: Tensor, real: Tensor, k: int = NEIGHBOURS) -> PRDC:
    """Compute precision, recall, density and coverage of samples (m, p) beside real points (n, p).

    They are NaN where a set has no more than k points.

    Examples
    --------
    >>> import torch
    >>> from wsflow.evaluation import compute_prdc
    >>> real = torch.arange(8.0).unsqueeze(1)
    >>> compute_prdc(real[:4] + 0.1, real, k=1)
    PRDC(precision=1.0, recall=0.625, density=2.0, coverage=0.625)
    """
    if k < 1:
        raise ValueError(f"The 'k' of compute_prdc is a positive number of neighbours, got {k}.")
    if min(len(samples), len(real)) <= k:
        return PRDC(*[float("nan")] * 4)
    samples, real = samples.double(), real.double()
    apart = torch.cdist(real, samples)
    around_real, around_samples = (_radii(points, k) for points in (real, samples))
    inside = apart <= around_real.unsqueeze(1)
    return PRDC(
        precision=_share(inside.any(0)),
        recall=_share((apart <= around_samples).any(1)),
        density=float(inside.double().sum(0).mean() / k),
        coverage=_share(inside.any(1)),
    )


def expected_coverage(n_real: int, n_samples: int, k: int = NEIGHBOURS) -> float:
    """Return the coverage where both have one law, 1 - prod_i (n - i) / (n + m - i) over i = 1..k (Naeem et al.).

    >>> round(expected_coverage(10_000, 10_000, 5), 3)
    0.969
    """
    if min(n_real, n_samples) <= k:
        return float("nan")
    missed = 1.0
    for i in range(1, k + 1):
        missed *= (n_real - i) / (n_real + n_samples - i)
    return 1 - missed


def _radii(points: Tensor, k: int) -> Tensor:
    """Return the distance of each point to its k-th nearest neighbour; the nearest of all is the point itself."""
    apart = torch.cdist(points, points)
    # products of long vectors leave rounding on the diagonal
    return apart.fill_diagonal_(0).kthvalue(k + 1, dim=1).values


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
