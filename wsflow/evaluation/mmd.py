"""The maximum mean discrepancy of two sets of points, and a permutation test whether they have one law.

MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) with a Gaussian kernel, estimated without bias; it is zero exactly where
the laws agree. Under that hypothesis labels may be exchanged, so the p-value (1 + #{permuted >= observed}) / (1 + B) is
at most a with a probability of at most a, in any dimension and for any number of points (Gretton, Borgwardt, Rasch,
Scholkopf and Smola 2012, "A kernel two-sample test", JMLR 13, equation 3; Phipson and Smyth 2010, arXiv:1603.05766).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.exceptions import InvalidInputError

PERMUTATIONS = 999


@dataclass(frozen=True)
class TwoSampleTest:
    """The unbiased estimate of MMD^2 (it may be negative), its p-value, and the bandwidth of the kernel."""

    mmd2: float
    p_value: float
    bandwidth: float


def mmd_test(
    x: Tensor, y: Tensor, generator: torch.Generator, permutations: int = PERMUTATIONS, bandwidth: float | None = None
) -> TwoSampleTest:
    """Test whether two sets of independent points, x (m, p) and y (n, p), have one law.

    Parameters
    ----------
    generator : torch.Generator
        Draws the permutations.
    bandwidth : float, optional
        Of the kernel exp(-|x - y|^2 / (2 bandwidth^2)). Default: the median distance between all points, which knows
        nothing of the labels.

    Examples
    --------
    >>> import torch
    >>> from wsflow.evaluation import mmd_test
    >>> generator = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(2, 50, 3, generator=generator)
    >>> mmd_test(x, y + 2, generator).p_value
    0.001
    """
    m, n = len(x), len(y)
    if min(m, n) < 2:
        raise InvalidInputError(f"A two-sample test needs 2 points in each set, got {m} and {n}: sample more networks.")
    pooled = torch.cat([x, y]).double()
    apart = torch.cdist(pooled, pooled)
    width = _median_distance(apart) if bandwidth is None else bandwidth
    kernel = torch.exp(-apart.square() / (2 * width**2)).fill_diagonal_(0)
    first = torch.zeros(1 + permutations, m + n, dtype=torch.float64)
    first[0, :m] = 1
    drawn = torch.rand(permutations, m + n, generator=generator, dtype=torch.float32).argsort(1)[:, :m]
    first[1:].scatter_(1, drawn, 1.0)
    values = _mmd2(kernel, first, m, n)
    # a permutation that gives the same split may differ by rounding, and counts
    above = int((values[1:] >= values[0] - 1e-12).sum())
    return TwoSampleTest(float(values[0]), (1 + above) / (1 + permutations), float(width))


def _median_distance(apart: Tensor) -> float:
    """Return the median of distances (n, n) between two different points, or 1 where all are the same point."""
    rows, columns = torch.triu_indices(len(apart), len(apart), offset=1)
    median = float(apart[rows, columns].median())
    return median if median > 0 else 1.0


def _mmd2(kernel: Tensor, first: Tensor, m: int, n: int) -> Tensor:
    """Return MMD^2 (splits,) for splits of the points, whose first sets are rows (splits, m + n) of ones and zeros."""
    reached = first @ kernel
    within = (reached * first).sum(1)
    across = reached.sum(1) - within
    others = kernel.sum() - within - 2 * across
    return within / (m * (m - 1)) + others / (n * (n - 1)) - 2 * across / (m * n)
