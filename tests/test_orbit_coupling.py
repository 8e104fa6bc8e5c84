"""Pairs modulo symmetries: of each target the representative that is nearest to its source."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch

from wsflow import Architecture, WeightArray, WeightFlow
from wsflow.flow.couplings import COUPLINGS
from wsflow.flow.solvers import RungeKutta
from wsflow.geometry import GEOMETRIES
from wsflow.models.options import NeuronTransformer
from wsflow.models.orbits import nearest_in_orbit
from wsflow.testing import assert_function_preserved

FAST = {"max_iter": 20, "solver": RungeKutta(n_steps=4), "random_state": 0}


def rows(architecture: Architecture, n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, architecture.n_weights, generator=generator, dtype=torch.float64)


def nearest(geometry, identity: str | None):
    return nearest_in_orbit(geometry, is_named=identity == "learned")


def distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y).square().sum(1)


@pytest.mark.parametrize("identity", [None, "learned"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sine"])
@pytest.mark.parametrize("name", ["euclidean", "geometric"])
def test_paths_are_shorter_and_networks_compute_the_same(name, activation, identity):
    architecture = Architecture.mlp([2, 4, 3, 1], activation)
    geometry = GEOMETRIES[name](architecture)
    x, y = (geometry.to_points(rows(architecture, 20, seed)) for seed in (0, 1))
    x0, x1 = COUPLINGS["orbit"](x, y, geometry.manifold, nearest(geometry, identity))
    assert torch.equal(x0, x)
    assert (distances(x, x1) <= distances(x, y) + 1e-9).all()
    moves = identity is None or activation != "relu"
    assert bool((distances(x, x1) < distances(x, y) - 1e-3).any()) == moves
    before, after = (WeightArray(geometry.to_weights(part).numpy(), architecture) for part in (y, x1))
    assert_function_preserved(before, after)


def test_one_hidden_layer_of_tanh_against_all_of_the_group():
    architecture = Architecture.mlp([2, 3, 1], "tanh")
    geometry = GEOMETRIES["euclidean"](architecture)
    x, y = rows(architecture, 30, 0), rows(architecture, 30, 1)
    named, free = nearest(geometry, "learned")(x, y), nearest(geometry, None)(x, y)
    into, bias, out = y[:, :6].reshape(-1, 3, 2), y[:, 6:9], y[:, 9:12]
    best = {key: torch.full((30,), np.inf).double() for key in ("named", "free")}
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        s, p = torch.tensor(signs).double(), list(order)
        moved = torch.cat([(s[:, None] * into[:, p]).flatten(1), s * bias[:, p], s * out[:, p], y[:, 12:]], 1)
        found = distances(x, moved)
        best["free"] = torch.minimum(best["free"], found)
        if order == (0, 1, 2):
            best["named"] = torch.minimum(best["named"], found)
    torch.testing.assert_close(distances(x, named), best["named"])
    # permutations first and signs then: no farther than signs alone, and hardly ever farther than both at once
    assert (distances(x, free) >= best["free"] - 1e-9).all()
    assert distances(x, free).mean() < 0.5 * (distances(x, named).mean() + best["free"].mean())


def test_other_couplings_have_no_orbits(monkeypatch):
    architecture = Architecture.mlp([2, 3, 1], "tanh")
    geometry, asked = GEOMETRIES["euclidean"](architecture), []

    def spy(*arguments):
        asked.append(arguments)
        return nearest_in_orbit(*arguments)

    monkeypatch.setattr("wsflow.models.flow_training.nearest_in_orbit", spy)
    weights = WeightArray(rows(architecture, 8, 0).numpy(), architecture)
    for coupling, count in (("independent", 0), ("ot", 0), ("orbit", 1)):
        WeightFlow("euclidean", coupling=coupling, max_iter=1, velocity=NeuronTransformer(8, 1, 2)).fit(weights)
        assert len(asked) == count
    x, y = torch.zeros(3, 13), torch.ones(3, 13)
    assert COUPLINGS["orbit"](x, y, geometry.manifold) == (x, y)


@pytest.mark.parametrize(("activation", "identity"), [("tanh", "learned"), ("sine", None), ("relu", None)])
def test_a_flow_learns_from_them(activation, identity):
    architecture = Architecture.mlp([2, 4, 1], activation)
    weights = WeightArray(rows(architecture, 40, 0).numpy(), architecture)
    flows = {
        c: WeightFlow(
            "euclidean", coupling=c, velocity=NeuronTransformer(8, 1, 2, identity), source="isotropic", **FAST
        ).fit(weights)
        for c in ("orbit", "independent")
    }
    ends = {c: flow.history_.train[0] for c, flow in flows.items()}
    # paths are shorter, so there is less to learn
    assert ends["orbit"] < ends["independent"]
    assert np.isfinite(np.asarray(flows["orbit"].sample(5, random_state=0))).all()


def test_without_an_architecture_there_are_no_symmetries():
    with pytest.raises(ValueError, match="needs an architecture"):
        WeightFlow("euclidean", coupling="orbit", **FAST).fit(np.random.default_rng(0).normal(size=(20, 4)))
