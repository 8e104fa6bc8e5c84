"""Traces of Jacobians, exact and estimated: bias, variance, standard errors, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from wsflow.flow.divergence import DIVERGENCES, hutch_plus_plus, mean_and_error

RANDOM = [name for name, row in DIVERGENCES.items() if not row.is_exact]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def estimates(name: str, matrix: torch.Tensor, n_probes: int, generator: torch.Generator, n=1) -> torch.Tensor:
    """Estimates of the trace of a matrix, as the divergence of a linear field, by n independent draws of probes."""
    row = DIVERGENCES[name]
    x = drawn(n, len(matrix)).requires_grad_()
    probes = torch.stack([row.draw(len(matrix), n_probes, generator) for _ in range(n)], 1)
    return row.along(probes)(x, x @ matrix.T).detach()


MATRICES = {
    "general": drawn(6, 6, seed=4),
    "symmetric": drawn(6, 6, seed=5) + drawn(6, 6, seed=5).T,
    "skew": drawn(6, 6, seed=6) - drawn(6, 6, seed=6).T,
    "low rank": drawn(6, 1, seed=7) @ drawn(1, 6, seed=8),
    "nilpotent": torch.diag(torch.ones(5, dtype=torch.float64), 1),
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
class TestLinearFields:
    """The divergence of x -> A x is tr A."""

    def test_the_exact_one_is_the_trace(self, matrix, generator):
        found = estimates("exact", matrix, 1, generator)
        torch.testing.assert_close(found, matrix.trace().reshape(1, 1), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", RANDOM)
    def test_estimates_are_unbiased(self, matrix, name, generator):
        """The mean of 4000 independent draws is off by less than 4 standard errors."""
        found = estimates(name, matrix, 1, generator, 4000)
        error = float(found.std()) / 4000**0.5
        assert abs(float(found.mean() - matrix.trace())) < 4 * error + 1e-12

    def test_their_variances_are_those_of_theory(self, matrix, generator):
        """sum_ij S_ij^2 / 2 with S = A + A^T, over pairs i != j for signs, and over all for normal numbers."""
        square = (matrix + matrix.T).square()
        theory = {"gaussian": square.sum() / 2, "hutchinson": (square.sum() - square.trace()) / 2}
        for name, variance in theory.items():
            found = estimates(name, matrix, 1, generator, 20_000)
            assert float(found.var()) == pytest.approx(float(variance), rel=0.1, abs=1e-12)

    def test_a_sketch_of_full_rank_leaves_nothing(self, matrix, generator):
        found = estimates("hutch++", matrix, 6, generator)
        torch.testing.assert_close(found, matrix.trace().expand(1, 6), rtol=1e-9, atol=1e-9)


class TestHutchPlusPlus:
    """A sketch takes off what is large."""

    def test_low_rank_is_exact(self, generator):
        """So is any matrix whose rank the sketch has, and there the extra directions of a larger one do no harm."""
        matrix = drawn(40, 3, seed=1) @ drawn(3, 40, seed=2)
        for n_probes in (3, 5):
            found = estimates("hutch++", matrix, n_probes, generator)
            torch.testing.assert_close(found, matrix.trace().expand(1, n_probes), rtol=1e-8, atol=1e-8)

    def test_it_is_sharper_than_hutchinson_at_equal_cost_where_the_spectrum_decays(self, generator):
        basis = torch.linalg.qr(drawn(60, 60, seed=3)).Q
        matrix = basis @ torch.diag(0.5 ** torch.arange(60).double()) @ basis.T
        sharp = estimates("hutch++", matrix, 5, generator, 200).mean(1)
        plain = estimates("hutchinson", matrix, 15, generator, 200).mean(1)
        assert float(sharp.std()) < 0.3 * float(plain.std())

    def test_each_point_has_its_own_span(self, generator):
        """Rows of a batch with different Jacobians are estimated as they are alone."""
        x = drawn(3, 5).requires_grad_()
        probes = drawn(4, 5, seed=1).unsqueeze(1)
        together = hutch_plus_plus(x, x.square().sin(), probes)
        for i in range(3):
            row = x[i : i + 1].detach().requires_grad_()
            torch.testing.assert_close(hutch_plus_plus(row, row.square().sin(), probes)[0], together[i])


class TestProbes:
    """What is drawn."""

    @pytest.mark.parametrize("name", RANDOM)
    def test_rows_may_have_probes_of_their_own(self, name, generator):
        row = DIVERGENCES[name]
        own = torch.stack([row.draw(4, 3, generator) for _ in range(5)], 1)
        x = drawn(5, 4).requires_grad_()
        v = torch.tanh(x @ drawn(4, 4, seed=1))
        together = row.along(own)(x, v)
        assert together.shape == (5, 3)
        for i in range(5):
            torch.testing.assert_close(row.along(own[:, i])(x, v)[i], together[i])

    @pytest.mark.parametrize("name", RANDOM)
    def test_they_have_mean_zero_and_covariance_one(self, name, generator):
        probes = DIVERGENCES[name].draw(3, 20_000, generator)
        assert float(probes.mean(0).abs().max()) < 0.03
        torch.testing.assert_close(torch.cov(probes.T), torch.eye(3).double(), rtol=0, atol=0.03)

    def test_signs_are_exact_for_diagonal_fields(self, generator):
        diagonal = torch.diag(drawn(6))
        found = estimates("hutchinson", diagonal, 1, generator)
        torch.testing.assert_close(found, diagonal.trace().reshape(1, 1))

    @pytest.mark.parametrize("name", DIVERGENCES)
    def test_a_field_that_does_not_depend_on_its_point_has_none(self, name, generator):
        row = DIVERGENCES[name]
        x = drawn(2, 3).requires_grad_()
        rate = row.along(row.draw(3, 2, generator))
        assert not rate(x, torch.ones(2, 3, dtype=torch.float64)).any()
        assert not rate(x, torch.ones(2, 3, dtype=torch.float64, requires_grad=True)).any()


class TestStandardErrors:
    """What the spread of the estimates says."""

    @pytest.mark.parametrize("name", RANDOM)
    @pytest.mark.parametrize("n_probes", [4, 8, 32])
    def test_two_of_them_hold_as_many_means_as_students_law_says(self, name, n_probes, generator):
        """In 60 dimensions and 300 draws; sums of many products are nearly normal."""
        matrix = drawn(60, 60, seed=9)
        found = estimates(name, matrix, n_probes, generator, 300)
        mean, error = mean_and_error(found)
        share = float(((mean - matrix.trace()).abs() < 2 * error).double().mean())
        expected = 1 - 2 * stats.t(n_probes - 1).sf(2)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 300))

    def test_an_exact_one_has_none_and_a_single_probe_tells_nothing(self):
        single = torch.tensor([[3.0], [4.0]])
        mean, error = mean_and_error(single, is_exact=True)
        assert mean.tolist() == [3, 4]
        assert error.tolist() == [0, 0]
        assert mean_and_error(single)[1].isnan().all()
