"""Measures of predictors: tau-b and its ceiling, scores of moved networks, hyperparameters alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsflow import Architecture, WeightArray
from wsflow.evaluation import hyperparameter_baseline, kendall_tau, orbit_score, tau_ceiling
from wsflow.exceptions import InvalidInputError

RELU = Architecture.mlp([3, 4, 2])
VALUES = st.lists(st.integers(0, 4), min_size=2, max_size=12)


def tau_by_pairs(a, b):
    """Kendall's definition, pair by pair."""
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in itertools.combinations(range(len(a)), 2)]
    above = sum(x * y for x, y in signs)
    below = math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    return above / below if below else 0.0


@given(VALUES, st.integers(0, 99))
def test_tau_is_that_of_all_pairs(values, seed):
    other = np.random.default_rng(seed).integers(0, 4, len(values))
    assert kendall_tau(values, other) == pytest.approx(tau_by_pairs(values, other), abs=1e-12)


@given(VALUES, st.integers(0, 99))
def test_the_ceiling_is_reached_and_not_passed(values, seed):
    rng = np.random.default_rng(seed)
    best = np.argsort(np.lexsort((rng.random(len(values)), values)))
    ceiling = tau_ceiling(values)
    if len(set(values)) == 1:
        assert ceiling == 0
    else:
        assert kendall_tau(values, best) == pytest.approx(ceiling)
    assert kendall_tau(values, rng.permutation(len(values))) <= ceiling + 1e-12


class NormOfFirstLayer:
    """Sees positive scales, and no permutations."""

    def predict(self, X):
        return np.linalg.norm(np.asarray(X)[:, :12], axis=1)

    def score(self, X, y):
        return -float(np.mean((self.predict(X) - y) ** 2))


class Blind(NormOfFirstLayer):
    """Sees the function alone."""

    def predict(self, X):
        from wsflow.running import forward

        rows = torch.from_numpy(np.array(X))
        return forward(rows, RELU, torch.ones(1, 3, dtype=rows.dtype))[:, 0, 0].numpy()


def networks(n=30):
    return WeightArray(np.random.default_rng(0).normal(size=(n, RELU.n_weights)), RELU)


def test_moved_networks_score_as_before_where_symmetries_are_not_seen():
    X = networks()
    y = Blind().predict(X) + np.random.default_rng(1).normal(size=len(X))
    found = orbit_score(Blind(), X, y, n_draws=3)
    assert found.clean == Blind().score(X, y) and abs(found.loss) < 1e-10
    y = NormOfFirstLayer().predict(X)
    seen = orbit_score(NormOfFirstLayer(), X, y, n_draws=3, log_scale=2.0)
    assert seen.clean == 0 and seen.worst <= seen.moved < -1
    # permutations alone are not seen
    assert orbit_score(NormOfFirstLayer(), X, y, log_scale=0.0).moved == pytest.approx(0, abs=1e-20)


def test_any_scoring_and_any_seed():
    X = networks()
    y = NormOfFirstLayer().predict(X)
    found = [orbit_score(NormOfFirstLayer(), X, y, scoring=kendall_tau, random_state=seed) for seed in (0, 0, 1)]
    assert found[0].clean == 1 and found[0] == found[1] and found[0] != found[2]


def test_hyperparameters_alone_tell_what_depends_on_them():
    rng = np.random.default_rng(0)
    rate, name = rng.uniform(size=300), rng.choice(["adam", "sgd"], 300)
    y = np.where(name == "adam", rate, -rate)
    both = hyperparameter_baseline({"rate": rate, "optimizer": name}, y)
    assert both.score > 0.9 and both.tau > 0.9 and both.predicted.shape == (300,)
    assert hyperparameter_baseline({"optimizer": name}, rng.normal(size=300)).score < 0.1
    classes = hyperparameter_baseline(rate[:, None], (rate > 0.5).astype(int))
    assert classes.score > 0.95 and math.isnan(classes.tau)


def test_runs_are_held_out_as_a_whole():
    """What is known of a run's other networks is not used."""
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(60), 5)
    setting, y = rng.normal(size=60)[runs], rng.normal(size=60)[runs]
    assert hyperparameter_baseline({"setting": setting}, y, runs).score < 0.1
    assert hyperparameter_baseline({"setting": setting}, y).score > 0.5


def test_refusals_are_sentences():
    with pytest.raises(InvalidInputError, match="3 predictions of 2 numbers"):
        kendall_tau([1, 2], [1, 2, 3])
    with pytest.raises(InvalidInputError, match="two finite numbers or more"):
        tau_ceiling([np.nan, 1])
    with pytest.raises(InvalidInputError, match="pass networks with an architecture"):
        orbit_score(Blind(), np.zeros((3, 26)), np.zeros(3))
    with pytest.raises(InvalidInputError, match="pass one for each network"):
        hyperparameter_baseline({"rate": [1.0, 2.0]}, [1.0])
    with pytest.raises(InvalidInputError, match="smaller n_splits"):
        hyperparameter_baseline({"rate": [1.0, 2.0]}, [1.0, 2.0])
    with pytest.raises(InvalidInputError, match="no hyperparameters"):
        hyperparameter_baseline({}, [1.0, 2.0])
