"""Samples beside networks of held-out runs as two sets of points, on which the measures of distributions are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wsflow.evaluation.embedding import Embedding, evenly_spaced
from wsflow.evaluation.mmd import TwoSampleTest, mmd_test
from wsflow.evaluation.prdc import PRDC, compute_prdc, expected_coverage
from wsflow.representation import in_a_line

# networks of a set: all pairs are compared, and the test multiplies their kernel with a thousand permutations
NETWORKS = 500
SPACES = {"weights": "weights", "function": "functions"}


@in_a_line
@dataclass(frozen=True, eq=False)
class TwoSamples:
    """Samples (m, p) and real points (n, p) of one space, with the generator of the permutations of their test."""

    samples: Tensor
    real: Tensor
    generator: torch.Generator

    @cached_property
    def prdc(self) -> PRDC:
        """Precision, recall, density and coverage."""
        return compute_prdc(self.samples, self.real)

    @property
    def expected_coverage(self) -> float:
        """The coverage where both have one law."""
        return expected_coverage(len(self.real), len(self.samples))

    @cached_property
    def mmd(self) -> TwoSampleTest:
        """The two-sample test, NaN where a set has fewer than two points."""
        if min(len(self.samples), len(self.real)) < 2:
            return TwoSampleTest(*[float("nan")] * 3)
        return mmd_test(self.samples, self.real, self.generator)


def two_samples(samples: Embedding, real: Embedding, random_state: int) -> Iterator[tuple[str, TwoSamples]]:
    """Yield each space with at most 500 samples and real networks there; all must be independent, one of each run."""
    samples, real = samples.thinned(NETWORKS), real.thinned(NETWORKS)
    # one generator for both: the spaces are tested in this order
    generator = torch.Generator().manual_seed(random_state)
    for space, name in SPACES.items():
        yield space, TwoSamples(getattr(samples, name), getattr(real, name), generator)


def one_per_run(networks: Embedding, runs: np.ndarray, count: int | None = None) -> Embedding:
    """Return the last network of each run, or of so many, evenly spaced: those of one run are not independent."""
    _, first_from_the_end = np.unique(np.asarray(runs)[::-1], return_index=True)
    rows = np.sort(len(runs) - 1 - first_from_the_end)
    return networks[rows if count is None else rows[evenly_spaced(len(rows), count)]]
