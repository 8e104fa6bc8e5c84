"""Nulls: their moments in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from wsflow.evaluation.nulls import (
    NULLS,
    SHRINKAGE,
    dirichlet,
    draw_null,
    gaussian_diagonal,
    gaussian_full,
    mean,
    noise,
    null_curves,
    null_names,
    resampling,
)
from wsflow.exceptions import InvalidInputError

MANY = 40_000


@pytest.fixture
def train() -> np.ndarray:
    """Few correlated networks: n = 5 < d = 7."""
    rng = np.random.default_rng(3)
    return 2 + rng.standard_normal((5, 7)) @ rng.standard_normal((7, 7))


def covariance(train: np.ndarray) -> np.ndarray:
    return np.cov(train, rowvar=False, bias=True)


def assert_moments(samples: np.ndarray, centre: np.ndarray, expected: np.ndarray) -> None:
    """Mean and covariance within six standard errors of a Gaussian's."""
    scale = np.sqrt(np.diag(expected))
    assert (np.abs(samples.mean(0) - centre) < 6 * scale / np.sqrt(MANY)).all()
    error = np.cov(samples, rowvar=False) - expected
    assert (np.abs(error) < 6 * 1.5 * np.outer(scale, scale) / np.sqrt(MANY)).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_diagonal_gaussian_has_the_variances(train, rng, temperature):
    samples = gaussian_diagonal(train, MANY, rng, temperature)
    assert_moments(samples, train.mean(0), temperature**2 * np.diag(train.var(0)))


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_full_gaussian_has_the_shrunk_covariance_although_n_is_less_than_d(train, rng, temperature):
    expected = (1 - SHRINKAGE) * covariance(train) + SHRINKAGE * np.diag(train.var(0))
    assert np.linalg.matrix_rank(covariance(train)) < train.shape[1]
    assert_moments(gaussian_full(train, MANY, rng, temperature), train.mean(0), temperature**2 * expected)


@pytest.mark.parametrize("level", [0.1, 1.0])
def test_noise_adds_its_level_of_the_variance(train, rng, level):
    samples = noise(train, MANY, rng, level)
    assert_moments(samples, train.mean(0), covariance(train) + np.diag(level**2 * train.var(0)))


@pytest.mark.parametrize("concentration", [0.001, 0.01, 0.1, 1.0])
def test_a_dirichlet_mixture_has_the_covariance_over_its_precision(train, rng, concentration):
    # Cov(p) = (diag(m) - m m^T) / (n a + 1) for the uniform mean m
    samples = dirichlet(train, MANY, rng, concentration)
    assert_moments(samples, train.mean(0), covariance(train) / (len(train) * concentration + 1))


def test_resampling_gives_training_networks_and_the_mean_is_the_mean(train, rng):
    assert {tuple(row) for row in resampling(train, 200, rng, 0.0)} == {tuple(row) for row in train}
    np.testing.assert_allclose(mean(train, 3, rng, 0.0), np.tile(train.mean(0), (3, 1)))


def test_the_table_names_every_level_once(train):
    names = null_names()
    assert len(set(names)) == len(names) == sum(len(null.levels) for null in NULLS.values())
    some = {"noise 0.1", "mean", "gaussian_full", "gaussian_full 0.5", "dirichlet 0.01", "dirichlet 1", "resampling"}
    assert some <= set(names)


def test_curves_end_in_the_nulls_that_their_knob_turns_into(train, rng):
    curves = null_curves()
    assert {name for names in curves.values() for name in names} == set(null_names())
    assert curves["noise"][0] == curves["dirichlet"][0] == "resampling"
    for name in ("gaussian_full", "gaussian_diagonal"):
        assert curves[name][0] == "mean" and curves[name][-1] == name
        np.testing.assert_allclose(NULLS[name].function(train, 3, rng, 0.0), mean(train, 3, rng, 1.0))
    copies = dirichlet(train, 50, rng, 1e-6)
    assert np.abs(copies[:, None] - train).max(-1).min(1).max() < 1e-3
    np.testing.assert_allclose(dirichlet(train, 3, rng, 1e8), mean(train, 3, rng, 1.0), atol=1e-2)


@pytest.mark.parametrize("name", null_names())
def test_every_null_is_finite_reproducible_and_of_its_shape(train, name):
    first, again, other = (draw_null(name, train, 11, seed) for seed in (0, 0, 1))
    assert first.shape == (11, 7) and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert name == "mean" or (first != other).any()


def test_one_network_is_too_few(train):
    with pytest.raises(InvalidInputError, match="at least 2 training networks"):
        draw_null("mean", train[:1], 3, 0)
