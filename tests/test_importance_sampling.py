"""Weighted averages: closed forms of a linear regression's posterior, effective sample sizes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from wsflow import Architecture, Task, WeightArray
from wsflow.evaluation.importance_sampling import (
    effective_sample_size,
    importance_weights,
    log_likelihoods,
    normalize,
    temperature_for,
)
from wsflow.evaluation.model_averaging import posterior_predictive
from wsflow.exceptions import InvalidInputError

LINE = Architecture.mlp([2, 1])
NOISE = 0.7
LOGS = st.lists(st.floats(-30, 30), min_size=2, max_size=20)


@pytest.fixture(scope="module")
def regression():
    """Inputs, targets, and the exact posterior of weights (w1, w2, b) with a standard normal prior."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 2))
    design = np.column_stack([X, np.ones(12)])
    y = design @ [0.5, -1.0, 0.3] + NOISE * rng.normal(size=12)
    precision = np.eye(3) + design.T @ design / NOISE**2
    covariance = np.linalg.inv(precision)
    return Task(X, y, loss="mse"), covariance @ design.T @ y / NOISE**2, covariance, design


def test_log_likelihoods_are_those_of_normal_errors(regression):
    task, _, _, design = regression
    rows = np.random.default_rng(1).normal(size=(5, 3))
    errors = task.y[:, 0] - rows @ design.T
    expected = -0.5 * (errors / NOISE) ** 2 - np.log(NOISE * np.sqrt(2 * np.pi))
    assert np.allclose(log_likelihoods(WeightArray(rows, LINE), task, NOISE), expected.sum(1), rtol=1e-5)


def test_weighted_draws_of_the_prior_have_the_posteriors_moments(regression):
    task, mean, covariance, design = regression
    rows = np.random.default_rng(2).normal(size=(200_000, 3))
    errors = task.y[:, 0] - rows @ design.T
    w = importance_weights(-0.5 * np.square(errors / NOISE).sum(1))
    size = effective_sample_size(w)
    assert 200 < size < 20_000
    error = np.sqrt(covariance.diagonal() / size)
    assert (np.abs(w @ rows - mean) < 5 * error).all()
    centred = rows - mean
    assert np.abs((w[:, None] * centred).T @ centred - covariance).max() < 0.02


def test_draws_of_another_law_are_weighted_back(regression):
    """Prior, likelihood and proposal: draws from twice the posterior's covariance around a wrong mean."""
    task, mean, covariance, _ = regression
    rng = np.random.default_rng(3)
    wrong = multivariate_normal(mean + 0.1, 2 * covariance)
    rows = rng.multivariate_normal(mean + 0.1, 2 * covariance, size=4000)
    networks = WeightArray(rows, LINE)
    prior = multivariate_normal(np.zeros(3), np.eye(3)).logpdf(rows)
    w = importance_weights(log_likelihoods(networks, task, NOISE), prior, wrong.logpdf(rows))
    exact = multivariate_normal(mean, covariance).pdf(rows) / wrong.pdf(rows)
    assert np.allclose(w, exact / exact.sum(), rtol=1e-3)
    found = posterior_predictive(networks, task, weights=w)
    plain = posterior_predictive(networks, task)
    target = np.column_stack([task.X, np.ones(12)]) @ mean
    assert np.abs(found.average[:, 0] - target).max() < 0.05
    assert np.abs(plain.average[:, 0] - target).max() > 0.1
    assert found.effective_size == pytest.approx(1 / np.square(w).sum())


def test_the_effective_size_of_normal_weights_has_a_closed_form():
    """Weights exp(s z) with z normal are worth n exp(-s^2) networks."""
    z = np.random.default_rng(4).normal(size=400_000)
    for s in (0.3, 0.8):
        assert effective_sample_size(np.exp(s * z)) / len(z) == pytest.approx(np.exp(-(s**2)), rel=0.02)


def test_a_temperature_on_the_likelihood_is_that_of_a_tempered_posterior(regression):
    """With likelihood^(1/T) the posterior precision is I + D^T D / (T s^2)."""
    task, _, _, design = regression
    rows = np.random.default_rng(5).normal(size=(100_000, 3))
    errors = task.y[:, 0] - rows @ design.T
    w = importance_weights(-0.5 * np.square(errors / NOISE).sum(1), temperature=5.0)
    precision = np.eye(3) + design.T @ design / (5 * NOISE**2)
    mean = np.linalg.solve(precision, design.T @ task.y[:, 0] / (5 * NOISE**2))
    error = np.sqrt(np.linalg.inv(precision).diagonal() / effective_sample_size(w))
    assert (np.abs(w @ rows - mean) < 5 * error).all()


@given(LOGS, st.floats(-1e5, 1e5))
def test_weights_sum_to_one_whatever_the_constant(logs, constant):
    w = normalize(logs)
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert np.allclose(normalize(np.array(logs) + constant), w, atol=1e-9)
    assert 1 - 1e-9 <= effective_sample_size(w) <= len(w) + 1e-9


@given(LOGS, st.floats(0.05, 0.9))
def test_the_temperature_gives_the_size_that_was_asked_for(logs, share):
    wanted = 1 + share * (len(logs) - 1)
    temperature = temperature_for(logs, wanted)
    size = effective_sample_size(normalize(np.array(logs) / temperature))
    assert size >= wanted - 1e-6
    assert temperature == 1.0 or size == pytest.approx(wanted, abs=1e-6)


def test_averages_are_of_probabilities_and_weights_pick_networks():
    rng = np.random.default_rng(6)
    architecture = Architecture.mlp([3, 4, 3])
    networks = WeightArray(rng.normal(size=(6, architecture.n_weights)), architecture)
    task = Task(rng.normal(size=(9, 3)), rng.integers(0, 3, size=9))
    alone = [posterior_predictive(networks[[i]], task).average for i in range(6)]
    w = rng.uniform(size=6)
    found = posterior_predictive(networks, task, weights=w)
    assert np.allclose(found.average, np.tensordot(w / w.sum(), alone, 1), atol=1e-6)
    assert found.numbers["accuracy"] == (found.average.argmax(1) == task.y).mean()
    by_logs = posterior_predictive(networks, task, log_weights=np.log(w) + 7, temperature=2.0)
    assert np.allclose(by_logs.weights, np.sqrt(w) / np.sqrt(w).sum())
    even = posterior_predictive(networks, task, weights=w, temperature=float("inf"))
    assert even.effective_size == pytest.approx(6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normalize([0.0, float("nan")]), "none of them NaN"),
        (lambda: normalize([-np.inf, -np.inf]), "not all of them minus"),
        (lambda: effective_sample_size([1.0, -1.0]), "not negative"),
        (lambda: importance_weights([0.0], temperature=0.0), "'temperature' of weights is positive"),
        (lambda: temperature_for([0.0, -np.inf], 1.5), "worth less than 1.5 at any temperature"),
    ],
)
def test_what_is_no_weight_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_of_another_number_are_refused(regression):
    networks = WeightArray(np.zeros((3, 3)), LINE)
    with pytest.raises(InvalidInputError, match="3 networks have 3 weights"):
        posterior_predictive(networks, regression[0], weights=[1.0, 1.0])
    with pytest.raises(ValueError, match="Pass one of them"):
        posterior_predictive(networks, regression[0], weights=[1.0] * 3, log_weights=[0.0] * 3)
