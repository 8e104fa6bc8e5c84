"""Representatives: signs, flips and phases as changes of coordinates' signs, and the nearest of a network's orbit."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsflow import Architecture, WeightArray
from wsflow.activations import ACTIVATIONS, FLIP, PHASE, POSITIVE, SIGN
from wsflow.architecture import Block, Fixed, Layer, NeuronGroup, Parameter, Wire
from wsflow.architecture.sequential import LINEAR
from wsflow.geometry import GEOMETRIES, vectors
from wsflow.geometry.representatives import Representatives
from wsflow.symmetry import centring
from wsflow.symmetry.actions import Action
from wsflow.testing import architectures, assert_function_preserved

TURNING = sorted(name for name, row in ACTIVATIONS.items() if row.scalings & {SIGN, FLIP, PHASE})


def drawn(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(architecture: Architecture, n: int, seed: int = 0) -> Action:
    """Random signs, flips and phases; neither permutations nor scales."""
    action = Action.random(architecture, n, torch.Generator().manual_seed(seed), log_scale=0.0)
    return Action(architecture, {}, {name: s.sign() for name, s in action.scales.items()}, action.phases)


def points(geometry, n: int = 6, seed: int = 0) -> torch.Tensor:
    """Points of the target from normal weights."""
    return geometry.target.projection(geometry.to_points(drawn(n, geometry.architecture.n_weights, seed)))


def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """In ambient coordinates."""
    return (x - y).norm(dim=1)


@settings(max_examples=60)
@given(
    architectures(max_width=5, max_depth=3, activations=TURNING),
    st.sampled_from(sorted(GEOMETRIES)),
    st.sampled_from(["euclidean", "polar"]),
    st.integers(0, 999),
)
def test_the_nearest_representative_is_the_same_function_and_no_farther(architecture, name, last_layer, seed):
    geometry = GEOMETRIES[name](architecture, last_layer)
    x, y = points(geometry, seed=seed), points(geometry, seed=seed + 1)
    near = geometry.nearest(x, y)
    assert geometry.target.belongs(near, 1e-12).all()
    before, after = (WeightArray(geometry.to_weights(p).numpy(), architecture) for p in (y, near))
    assert_function_preserved(before, after)
    # where it is, it is its own nearest
    torch.testing.assert_close(geometry.nearest(x, near), near, rtol=1e-12, atol=1e-12)
    if not any(FLIP in wire.scalings for wire in architecture.wires):
        assert (distance(x, near) <= distance(x, y) + 1e-12).all()


@pytest.mark.parametrize("activation", ["tanh", "sine", "cosine", "sigmoid", "identity", "square"])
def test_one_hidden_layer_is_decided_exactly(activation):
    """Against all elements of the group, for each neuron: 2 or 4 of them."""
    architecture = Architecture.mlp([2, 3, 2], activation)
    geometry = GEOMETRIES["geometric"](architecture)
    x, y = points(geometry, 10), points(geometry, 10, seed=1)
    near = geometry.nearest(x, y)
    wire = architecture.wires[0]
    signs = (1.0, -1.0) if wire.scalings & {SIGN, FLIP} else (1.0,)
    phases = (0, 1) if PHASE in wire.scalings else (0,)
    best = torch.full((10,), torch.inf, dtype=torch.float64)
    centre = centred if activation == "sigmoid" else lambda rows, _: rows
    for choice in itertools.product(itertools.product(signs, phases), repeat=3):
        scales = torch.tensor([[s for s, _ in choice]], dtype=torch.float64).expand(10, -1)
        halves = torch.tensor([[k for _, k in choice]]).expand(10, -1)
        moving = {wire.name: halves} if PHASE in wire.scalings else {}
        action = Action(architecture, {}, {wire.name: scales} if len(signs) > 1 else {}, moving)
        moved = geometry.to_points(action(geometry.to_weights(y)))
        best = torch.minimum(best, distance(centre(x, architecture), centre(moved, architecture)))
    torch.testing.assert_close(distance(centre(x, architecture), centre(near, architecture)), best)


def centred(rows: torch.Tensor, architecture: Architecture) -> torch.Tensor:
    """Biases that count sigmoids from one half."""
    return centring.centred(rows, architecture)


@pytest.mark.parametrize("activation", TURNING)
def test_an_orbit_is_one_point_seen_from_near_by(activation):
    """The representative of g.x nearest to x is x itself."""
    architecture = Architecture.mlp([3, 4, 2], activation)
    geometry = GEOMETRIES["geometric"](architecture)
    x = geometry.to_points(geometry.to_weights(points(geometry, 20)))
    moved = geometry.to_points(turned(architecture, 20)(geometry.to_weights(x)))
    assert distance(x, moved).max() > 0.5
    torch.testing.assert_close(geometry.nearest(x, moved), x, rtol=1e-9, atol=1e-9)


def test_incoming_and_outgoing_weights_turn_together():
    """Each column by itself would come nearer, and be another function."""
    geometry = GEOMETRIES["geometric"](Architecture.mlp([1, 1, 1], "tanh", bias=False))
    x = torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    y = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])
    assert geometry.nearest(x, y).tolist() == [[-1.0, 1.0], [1.0, -1.0]]


def test_the_input_is_left_as_it_was():
    geometry = GEOMETRIES["geometric"](Architecture.mlp([3, 4, 2], "tanh"))
    x, y = points(geometry), points(geometry, seed=1)
    before = y.clone()
    assert not torch.equal(geometry.nearest(x, y), y)
    assert torch.equal(y, before)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_where_nothing_turns_it_is_the_point_itself(activation):
    geometry = GEOMETRIES["geometric"](Architecture.mlp([3, 4, 2], activation))
    x, y = points(geometry), points(geometry, seed=1)
    assert geometry.nearest(x, y) is y
    assert vectors(3).nearest(x, y) is y


def test_a_flip_into_a_sphere_is_left_alone():
    """It would change the norm of the neuron behind, and with it what is on the sphere."""
    layers = [
        Layer(LINEAR, "a", 2, 3),
        Layer("sigmoid", "b"),
        Layer(LINEAR, "c", 3, 3),
        Layer("relu", "d"),
        Layer(LINEAR, "e", 3, 2),
    ]
    architecture = Architecture.sequential(layers)
    assert [sorted(wire.scalings) for wire in architecture.wires] == [[FLIP], [POSITIVE]]
    for name, changes in {"geometric": 0, "normalized": 0, "euclidean": 1}.items():
        geometry = GEOMETRIES[name](architecture)
        assert len(Representatives(architecture, geometry.target, geometry.charts).sign_changes) == changes


def test_phases_turn_only_points_of_circles():
    """In a vector space half a period is no change of signs, and is left to the canonical form."""
    architecture = Architecture.mlp([1, 2, 1], "sine")
    counts = {
        name: len(Representatives(architecture, g.target, g.charts).sign_changes)
        for name, g in ((name, GEOMETRIES[name](architecture)) for name in GEOMETRIES)
    }
    # signs alone; signs, phases and both
    assert counts == {"euclidean": 1, "normalized": 3, "geometric": 3}


def stream() -> Architecture:
    """A residual stream of signs, which one matrix both reads and writes."""
    group = NeuronGroup("stream", 4)
    made, used = ("stream", 0, 1), ("stream", 1, -1)
    parameters = [
        Parameter("in", (4, 2), (Block((group, Fixed(2)), wires=(made,)),)),
        Parameter("mix", (4, 4), (Block((group, group), wires=(made, used)),)),
        Parameter("out", (2, 4), (Block((Fixed(2), group), wires=(used,)),)),
    ]
    return Architecture(parameters, [Wire("stream", group, frozenset({SIGN}))], outputs=["out"])


def test_neurons_that_share_a_weight_are_decided_one_by_one():
    architecture = stream()
    geometry = GEOMETRIES["euclidean"](architecture)
    changes = Representatives(architecture, geometry.target).sign_changes
    # a neuron's weight to itself is turned twice, so it stays
    assert changes[0].tolist() == [[0, 1, 9, 10, 11, 12, 16, 20, 24, 28]]
    assert len(changes) == 4
    x, y = drawn(200, architecture.n_weights), drawn(200, architecture.n_weights, seed=1)
    near = geometry.nearest(x, y)
    assert (distance(x, near) <= distance(x, y)).all()
    choices = torch.tensor(list(itertools.product([1.0, -1.0], repeat=4)), dtype=torch.float64)
    others = [Action(architecture, {}, {"stream": c.expand(200, -1)})(y) for c in choices]
    # on the orbit, and no turn of one neuron comes nearer: a local minimum, which is not always the smallest
    assert (torch.stack([distance(near, other) for other in others]).amin(0) < 1e-12).all()
    for neuron in range(4):
        sign = torch.ones(200, 4, dtype=torch.float64)
        sign[:, neuron] = -1
        assert (distance(x, near) <= distance(x, Action(architecture, {}, {"stream": sign})(near)) + 1e-12).all()
