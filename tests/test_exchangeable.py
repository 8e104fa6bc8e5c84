"""The Gaussian that does not tell neurons apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsflow import Architecture, WeightArray, WeightFlow
from wsflow.geometry import GEOMETRIES
from wsflow.models.exchangeable import exchangeable_of_width, fit_exchangeable, restore_exchangeable
from wsflow.models.options import NeuronTransformer
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import canonical_action

MLP = Architecture.mlp([4, 5, 3, 2])


def points(geometry: str, n: int = 60):
    """A geometry, and points of it that are not centred."""
    place = GEOMETRIES[geometry](MLP)
    rows = 1 + 0.5 * torch.randn(n, MLP.n_weights, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return place, place.to_points(rows if geometry == "euclidean" else canonical_action(rows, MLP)(rows))


@pytest.fixture(params=list(GEOMETRIES))
def fitted(request):
    place, x = points(request.param)
    return place, x, fit_exchangeable(place, x, 0.1)


def test_the_density_is_that_of_any_order(fitted):
    _, x, prior = fitted
    action = Action.random(MLP, len(x), torch.Generator().manual_seed(1))
    moved = Action(MLP, action.permutations, {})(x)
    assert (moved - x).abs().max() > 0.1
    torch.testing.assert_close(prior.log_prob(moved), prior.log_prob(x), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(Action(MLP, action.permutations, {})(prior.mean.expand_as(x)), prior.mean.expand_as(x))


def test_samples_lie_on_the_manifold_and_have_the_moments_of_one_neuron(fitted):
    place, x, prior = fitted
    new = prior.sample(20_000, torch.Generator().manual_seed(2))
    assert place.manifold.belongs(new, 1e-9).all()
    columns = MLP.slices["0.weight"]
    own, found = (rows[:, columns].reshape(-1, 4) for rows in (x, new))
    torch.testing.assert_close(found.mean(0), own.mean(0), atol=0.05, rtol=0.05)
    torch.testing.assert_close(found.std(0), own.std(0), atol=0.05, rtol=0.1)


def test_it_comes_back_from_its_arrays(fitted):
    place, x, prior = fitted
    again = restore_exchangeable(place, prior.arrays())
    torch.testing.assert_close(again.log_prob(x), prior.log_prob(x))


def test_other_widths_have_neurons_of_the_same_law(fitted):
    place, _, prior = fitted
    wide = Architecture.mlp([4, 9, 6, 2])
    other = GEOMETRIES[place.name](wide)
    law = exchangeable_of_width(prior, place, other)
    new = law.sample(20_000, torch.Generator().manual_seed(3))
    assert new.shape[1] == wide.n_weights
    assert other.manifold.belongs(new, 1e-9).all()
    narrow = prior.sample(20_000, torch.Generator().manual_seed(4))
    a, b = (rows[:, f.slices["0.weight"]].reshape(-1, 4).mean(0) for rows, f in ((new, wide), (narrow, MLP)))
    torch.testing.assert_close(a, b, atol=0.03, rtol=0.03)


def test_a_flow_may_start_from_it():
    rows = WeightArray(np.random.default_rng(0).normal(size=(30, MLP.n_weights)), MLP)
    velocity = NeuronTransformer(8, 1, 2, identity=None)
    flow = WeightFlow("euclidean", velocity=velocity, source="exchangeable", max_iter=3, random_state=0).fit(rows)
    assert np.isfinite(flow.score_samples(rows[:2])).all()
    with pytest.raises(ValueError, match="needs an architecture"):
        WeightFlow("euclidean", source="exchangeable").fit(np.random.default_rng(0).normal(size=(30, 4)))
