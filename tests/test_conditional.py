"""Flows with a condition: laws given labels and numbers, classifier-free guidance, files, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.exceptions import InvalidInputError
from wsflow.flow.loss import forgotten
from wsflow.metanetworks.conditions import CONDITIONS
from wsflow.metanetworks.encoders import VELOCITY_ENCODERS
from wsflow.models.options import CHOICES, AdamW, LabelCondition, ScalarCondition

MLP = Architecture.mlp([3, 4, 2])


def velocity(kind):
    """A small velocity network."""
    return CHOICES["velocity"][kind](width=64 if kind == "mlp" else 16, depth=2)


FAST = {"max_iter": 400, "velocity": velocity("mlp"), "training": AdamW(batch_size=128), "random_state": 0}


@pytest.fixture(scope="module")
def labelled():
    """A mixture of two Gaussians, three times as many of the first, and a flow that knows which is which."""
    rng = np.random.default_rng(0)
    y = np.repeat(["left", "right"], [900, 300])
    X = rng.normal(size=(1200, 2)) * 0.3 + np.where(y == "left", -1.0, 1.0)[:, None]
    return WeightFlow("euclidean", condition=LabelCondition(0.2), **FAST).fit(X, y), X, y


@pytest.fixture(scope="module")
def graded():
    """Networks whose mean is linear in a number."""
    rng = np.random.default_rng(1)
    y = rng.uniform(10, 20, size=1500)
    X = rng.normal(size=(1500, 2)) * 0.2 + np.stack([0.3 * (y - 15), -0.1 * (y - 15)], 1)
    return WeightFlow("euclidean", condition="scalar", **FAST).fit(X, y)


def test_samples_given_a_label_have_its_mean_and_deviation(labelled):
    flow, _, _ = labelled
    for label, mean in (("left", -1.0), ("right", 1.0)):
        new = flow.sample(2000, 0, condition=label)
        assert np.abs(new.mean(0) - mean).max() < 0.08
        assert np.abs(new.std(0) - 0.3).max() < 0.08


def test_without_a_condition_samples_are_of_the_mixture(labelled):
    flow, _, _ = labelled
    new = flow.sample(2000, 0)
    assert abs((new.sum(1) < 0).mean() - 0.75) < 0.08
    # a Gaussian of the same mean and variance has 0.68 there
    assert (np.abs(np.abs(new.mean(1)) - 1) < 0.7).mean() > 0.75


def test_a_scale_of_zero_forgets_the_condition_and_above_one_exaggerates_it(labelled):
    flow, _, _ = labelled
    assert np.allclose(flow.sample(50, 0, condition="right", condition_scale=0.0), flow.sample(50, 0), atol=1e-5)
    far, near = (flow.sample(500, 0, condition="right", condition_scale=s).mean() for s in (2.0, 1.0))
    assert far > near


def test_scores_are_those_of_the_conditional_law(labelled):
    flow, X, y = labelled
    rows = np.concatenate([X[y == "left"][:20], X[y == "right"][:20]])
    given_left, given_right = (flow.score_samples(rows, condition=label) for label in ("left", "right"))
    assert (given_left[:20] > given_right[:20]).all()
    assert (given_right[20:] > given_left[20:]).all()
    exact = -0.5 * (((rows[:20] + 1) / 0.3) ** 2).sum(1) - 2 * np.log(0.3 * np.sqrt(2 * np.pi))
    assert np.abs(given_left[:20] - exact).mean() < 0.3


def test_the_mean_given_a_number_is_linear_in_it(graded):
    values = np.array([11.0, 15.0, 19.0])
    means = np.stack([graded.sample(1000, 0, condition=v).mean(0) for v in values])
    assert np.abs(means - np.outer(values - 15, [0.3, -0.1])).max() < 0.12


@pytest.mark.parametrize("kind", sorted(VELOCITY_ENCODERS))
@pytest.mark.parametrize("condition", sorted(CONDITIONS))
def test_a_bound_velocity_interpolates_between_free_and_given(kind, condition):
    """v_s = v + s (v_c - v), in float64, for every network and every condition."""
    rng = np.random.default_rng(0)
    X = WeightArray(rng.normal(size=(20, MLP.n_weights)), MLP)
    settings = FAST | {"velocity": velocity(kind), "condition": condition, "max_iter": 3}
    flow = WeightFlow("euclidean", **settings)
    flow.fit(X, rng.integers(0, 3, size=20))
    field = copy.deepcopy(flow.velocity_).double()
    x, t = torch.from_numpy(np.array(X[:5])), torch.linspace(0, 1, 5, dtype=torch.float64)
    one = torch.tensor(1.0, dtype=torch.float64)
    free, given, far = field(x, t), field.given(one)(x, t), field.given(one, 2.5)(x, t)
    assert (given - free).abs().max() > 1e-6
    torch.testing.assert_close(far, free + 2.5 * (given - free), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(field.given(one, 0.0)(x, t), free, rtol=1e-12, atol=1e-12)
    each = field.given(one.expand(5))(x, t)
    torch.testing.assert_close(each, given, rtol=0, atol=0)


def test_the_share_of_forgotten_conditions_is_the_one_asked_for(generator):
    kept = forgotten(torch.arange(20000.0), 0.3, generator)
    assert abs(float(kept.isnan().double().mean()) - 0.3) < 0.015
    known = ~kept.isnan()
    assert torch.equal(kept[known], torch.arange(20000.0)[known])
    assert forgotten(torch.ones(100), 1.0, generator).isnan().all()


@pytest.mark.parametrize("name", ["labelled", "graded"])
def test_a_conditional_flow_comes_back_from_a_file(name, request, tmp_path):
    flow = request.getfixturevalue(name)
    flow, condition = (flow[0], "right") if name == "labelled" else (flow, 17.5)
    wsflow.save_model(flow, tmp_path / "flow.st")
    loaded = wsflow.load_model(tmp_path / "flow.st")
    assert np.array_equal(loaded.sample(5, 0, condition=condition), flow.sample(5, 0, condition=condition))


def test_a_pipeline_samples_under_a_condition():
    rng = np.random.default_rng(0)
    X = WeightArray(rng.normal(size=(24, MLP.n_weights)), MLP)
    flow = WeightFlow(**FAST | {"condition": "scalar", "velocity": velocity("neuron"), "max_iter": 5})
    model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(X, rng.uniform(size=24))
    new = [wsflow.sample(model, 4, 0, condition=c) for c in (0.1, 0.9)]
    assert new[0].shape == (4, MLP.n_weights) and not np.array_equal(*new)


def test_without_a_condition_y_is_ignored():
    X = np.random.default_rng(0).normal(size=(30, 2))
    flows = [WeightFlow("euclidean", **{**FAST, "max_iter": 5}).fit(X, y) for y in (None, np.arange(30))]
    assert np.array_equal(*(flow.sample(3, 0) for flow in flows))


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({"condition": "label"}, None, r"call fit\(X, y\)"),
        ({"condition": "scalar"}, np.zeros(3), r"have the shape \(30,\), got \(3,\)"),
        ({"condition": "scalar"}, np.full(30, np.nan), "a finite number for each network"),
        ({"condition": "scalar"}, np.full(30, "a"), "Use condition='label'"),
        ({"condition": "colour"}, None, "'condition' parameter of WeightFlow"),
        ({"condition": "label", "coupling": "ot"}, np.zeros(30), "needs coupling='independent'"),
        (
            {"condition": ScalarCondition(2.0)},
            np.zeros(30),
            "'dropout' parameter of ScalarCondition must be a float in",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(options, y, message):
    X = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(ValueError, match=message):
        WeightFlow("euclidean", **{**FAST, "max_iter": 2, **options}).fit(X, y)


def test_what_cannot_be_asked_for_is_refused(labelled, graded):
    with pytest.raises(ValueError, match=r"one of the labels \['left', 'right'\], got 'up'"):
        labelled[0].sample(1, condition="up")
    with pytest.raises(ValueError, match="is a finite number"):
        graded.sample(1, condition=float("nan"))
    plain = WeightFlow("euclidean", **{**FAST, "max_iter": 2}).fit(np.random.default_rng(0).normal(size=(30, 2)))
    with pytest.raises(ValueError, match="fitted without a condition"):
        plain.sample(1, condition=1.0)
    assert issubclass(InvalidInputError, ValueError)
