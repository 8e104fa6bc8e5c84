"""Scores that compare: the energy score is proper, and log-densities of different geometries are warned about."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from wsflow import Architecture, EnergyScorer, ScaleCanonicalizer, Task, WeightArray, WeightFlow
from wsflow.evaluation import energy_score
from wsflow.exceptions import IncomparableScoresWarning, InvalidInputError
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import MLP, GaussianSource, NetworkGeometry
from wsflow.symmetry.actions import Action

MLP_241 = Architecture.mlp([2, 4, 1])
FAST = {"velocity": MLP(16, 1), "solver": RungeKutta(n_steps=4), "max_iter": 1, "random_state": 0, "density": "exact"}


def expected_score(mean, sd):
    """E |X - Y| - E |X - X'| / 2 for X from N(mean, sd^2) and Y from N(0, 1)."""
    both = np.hypot(sd, 1)
    distance = 2 * both * norm.pdf(mean / both) + mean * (1 - 2 * norm.cdf(-mean / both))
    return distance - sd / np.sqrt(np.pi)


LAWS = [(0.0, 1.0), (0.0, 0.5), (0.0, 2.0), (1.0, 1.0), (0.5, 0.0)]


@pytest.mark.parametrize(("mean", "sd"), LAWS)
def test_the_energy_score_is_that_of_gaussians(mean, sd):
    rng = np.random.default_rng(0)
    x, y = mean + sd * rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1))
    # the standard error of a mean of 4,000 distances, whose sd is below 2, with both sets drawn
    assert energy_score(x, y) == pytest.approx(expected_score(mean, sd), abs=5 * 2 / 4000**0.5)


def test_the_law_itself_has_the_lowest_expected_score():
    assert min(LAWS, key=lambda law: expected_score(*law)) == (0.0, 1.0)


def test_few_samples_score_as_many_on_average():
    """The spread of the samples is estimated without bias: a V-statistic would favour many samples."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(200, 1))
    many = energy_score(rng.normal(size=(20000, 1)), y)
    few = [energy_score(rng.normal(size=(2, 1)), y) for _ in range(500)]
    assert np.mean(few) == pytest.approx(many, abs=5 * np.std(few) / 500**0.5 + 0.02)


def correlated(n, seed, spread=0.003):
    """Canonical networks close to one, in which two factors move all weights together."""
    rng = np.random.default_rng(0)
    base, factors = rng.normal(size=17), rng.normal(size=(2, 17))
    rng = np.random.default_rng(seed)
    rows = base + spread * (rng.normal(size=(n, 2)) @ factors + 0.1 * rng.normal(size=(n, 17)))
    return ScaleCanonicalizer().fit_transform(WeightArray(rows, MLP_241, aligned=True))


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(5)
    return Task(rng.normal(size=(50, 2)), rng.normal(size=(50, 1)), "mse")


# a geometric flow from a source that knows the correlations, and a Euclidean one from a source that does not
RIGHT = {"geometry": ["geometric"], "source": [GaussianSource(shrinkage=0.1)]}
WRONG = {"geometry": ["euclidean"], "source": [GaussianSource(shrinkage=1.0)]}


@pytest.mark.parametrize("by_task", [True, False])
def test_a_search_over_geometries_finds_the_law_where_log_densities_name_the_wrong_one(task, by_task):
    X = correlated(400, 1)
    scoring = EnergyScorer(task if by_task else None, n_samples=400)
    cv = KFold(2, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = GridSearchCV(WeightFlow(**FAST), [RIGHT, WRONG], scoring=scoring, cv=cv).fit(X)
    assert search.best_params_["geometry"] == "geometric"
    # near the spheres a density of the space around them is as large as it is thin
    with pytest.warns(IncomparableScoresWarning, match="EnergyScorer"):
        search = GridSearchCV(WeightFlow(**FAST), [RIGHT, WRONG], cv=cv).fit(X)
    assert search.best_params_["geometry"] == "euclidean"


def test_the_energy_score_is_that_of_the_functions_whatever_the_representatives(task):
    X, Y = correlated(20, 1, 0.5), correlated(20, 2, 0.5)
    action = Action.random(MLP_241, 20, torch.Generator().manual_seed(0), log_scale=0.5)
    moved = X.like(action(torch.from_numpy(np.array(X))).numpy())
    assert energy_score(moved, Y, task) == pytest.approx(energy_score(X, Y, task), rel=1e-4)
    assert energy_score(moved, Y) == pytest.approx(energy_score(X, Y), rel=1e-9)


def test_scores_of_one_candidate_are_the_same_again(task):
    X = correlated(40, 1)
    model = make_pipeline(ScaleCanonicalizer(), WeightFlow("geometric", **FAST))
    scorers = EnergyScorer(task, 50), pickle.loads(pickle.dumps(EnergyScorer(task, 50)))
    scores = [cross_val_score(model, X, scoring=scorer, cv=2) for scorer in scorers]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize(
    "search",
    [
        lambda flow, **kw: GridSearchCV(flow, {"geometry": ["euclidean", "geometric"]}, **kw),
        lambda flow, **kw: GridSearchCV(flow, {"geometry": [NetworkGeometry("euclidean"), "geometric"]}, **kw),
        lambda flow, **kw: RandomizedSearchCV(flow, {"geometry": ["euclidean", "geometric"]}, n_iter=2, **kw),
        lambda flow, **kw: GridSearchCV(
            flow.set_params(geometry=NetworkGeometry()), {"geometry__last_layer": ["euclidean", "polar"]}, **kw
        ),
        lambda flow, **kw: GridSearchCV(
            make_pipeline(ScaleCanonicalizer(), flow), {"weightflow__geometry": ["euclidean", "geometric"]}, **kw
        ),
    ],
)
def test_searches_over_geometries_by_log_density_warn(search):
    X = correlated(24, 1)
    with pytest.warns(IncomparableScoresWarning, match="different volumes"):
        search(WeightFlow(**FAST), cv=2).fit(X)


def test_the_geometry_of_before_is_no_other_one():
    flow = WeightFlow("geometric", **FAST).set_params(geometry="geometric").fit(correlated(24, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.score(correlated(4, 2))


def test_searches_within_one_geometry_do_not_warn():
    search = GridSearchCV(WeightFlow("geometric", **FAST), {"source": ["gaussian", "isotropic"]}, cv=2)
    assert np.isfinite(search.fit(correlated(24, 1)).cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("samples", "held_out", "message"),
    [
        (np.zeros((1, 2)), np.zeros((3, 2)), "needs 2 samples"),
        (np.zeros((3, 2)), np.zeros((0, 2)), "needs 2 samples"),
        (np.zeros((3, 17)), correlated(3, 1), "plain rows, and held-out ones networks 2-4-1"),
        (WeightArray(np.zeros((3, 9)), Architecture.mlp([2, 2, 1])), correlated(3, 1), "like with like"),
    ],
)
def test_what_does_not_compare_is_refused(samples, held_out, message):
    with pytest.raises(InvalidInputError, match=message):
        energy_score(samples, held_out)
