"""Architecture: tables of MLPs, JSON, refusals, and five hand-written networks whose function actions keep."""

from __future__ import annotations

import handwritten
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wsflow.activations import ACTIVATIONS, FLIP, POSITIVE, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, Fixed, NeuronGroup, Parameter, Wire
from wsflow.running import forward
from wsflow.symmetry.actions import Action
from wsflow.weights import WeightArray

HANDWRITTEN = {
    "fused qkv": (handwritten.Attention, handwritten.Attention.architecture(), (7, 5, 6)),
    "conv flatten linear": (handwritten.Convolutional, handwritten.Convolutional.architecture(), (7, 2, 5, 5)),
    "batch norm, eps=0": (
        lambda: handwritten.BatchNormed(0.0),
        handwritten.BatchNormed.architecture(compensated=False),
        (7, 4),
    ),
    "batch norm, compensated": (
        lambda: handwritten.BatchNormed(1e-2),
        handwritten.BatchNormed.architecture(compensated=True),
        (7, 4),
    ),
    "residual stream": (handwritten.Residual, handwritten.Residual.architecture(), (7, 3)),
    "depthwise separable": (handwritten.Separable, handwritten.Separable.architecture(), (7, 3, 5, 5)),
}
widths = st.lists(st.integers(1, 6), min_size=2, max_size=5)


@given(widths, st.sampled_from(sorted(name for name, row in ACTIVATIONS.items() if row.module)), st.booleans())
def test_mlp_is_what_torch_builds(widths, activation, bias):
    architecture = Architecture.mlp(widths, activation, bias=bias)
    steps: list[nn.Module] = []
    for i, (p, k) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        steps += [getattr(nn, ACTIVATIONS[activation].module)()] if i else []
        steps.append(nn.utils.skip_init(nn.Linear, p, k, bias=bias))
    module = nn.Sequential(*steps)
    assert architecture == Architecture.from_module(module)
    assert architecture.names == tuple(module.state_dict())
    assert architecture.n_weights == sum(p.numel() for p in module.parameters())
    assert [group.size for group in architecture.groups] == widths[1:-1]
    # what a flip leaves over needs a bias
    scalings = ACTIVATIONS[activation].scalings - (set() if bias else {FLIP})
    assert all(wire.scalings == scalings for wire in architecture.wires)


@given(widths, st.sampled_from(sorted(ACTIVATIONS)), st.booleans())
def test_json_round_trip_of_mlps(widths, activation, bias):
    architecture = Architecture.mlp(widths, activation, bias=bias)
    text = architecture.to_json()
    assert Architecture.from_json(text) == architecture
    assert Architecture.from_json(text).to_json() == text


@pytest.mark.parametrize("name", HANDWRITTEN)
def test_json_round_trip_of_handwritten_architectures(name):
    architecture = HANDWRITTEN[name][1]
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert again.groups == architecture.groups


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', '{"version": 99}', "not json"])
def test_what_is_no_description_is_refused(text):
    with pytest.raises(ValueError, match="no description of an architecture"):
        Architecture.from_json(text)


def test_columns_of_an_mlp():
    architecture = Architecture.mlp([30, 16, 16, 2])
    assert architecture.n_weights == 802
    assert architecture.slices["2.weight"] == slice(30 * 16 + 16, 30 * 16 + 16 + 256)
    assert architecture.output_columns.tolist() == list(range(802 - 34, 802))
    assert architecture.locate(801) == ("4.bias", (1,))
    assert not len(architecture.statistic_columns)
    covered = sorted(k for _, _, columns in architecture.blocks for k in columns.ravel().tolist())
    assert covered == list(range(802))
    with pytest.raises(IndexError, match="no column 802"):
        architecture.locate(802)


def test_scalings_commute_with_every_activation_between_two_layers():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    architecture = Architecture.from_module(module)
    assert [wire.scalings for wire in architecture.wires] == [frozenset(), frozenset({POSITIVE, SIGN})]


def test_state_dict_of_a_plain_mlp():
    state = {
        name: torch.zeros(shape) for name, shape in {"a.weight": (5, 4), "a.bias": (5,), "b.weight": (2, 5)}.items()
    }
    architecture = Architecture.from_state_dict(state, "tanh")
    assert architecture.names == ("a.weight", "a.bias", "b.weight")
    assert architecture.wires[0].scalings == {SIGN}
    assert architecture.outputs == ("b.weight",)


NO_CHANNELS = {"c.weight": torch.zeros(0, 2, 3), "d.weight": torch.zeros(1, 3)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Architecture.mlp([3]), "at least two positive widths"),
        (lambda: Architecture.mlp([3, 0, 1]), "at least two positive widths"),
        (lambda: Architecture.mlp([3, 1], "swoosh"), "'swoosh' is not in wsflow's table"),
        (lambda: Architecture.from_module(nn.Sequential(nn.Linear(2, 2), nn.Dropout())), "'1' is a Dropout"),
        (lambda: Architecture.from_module(nn.Linear(2, 2)), "is a Linear"),
        (lambda: Architecture.from_module(nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 2))), "'0' has 3 outputs"),
        (lambda: Architecture.from_state_dict({"c.weight": torch.zeros(2, 3, 3, 3)}, "relu"), "c.weight"),
        (lambda: Architecture.from_state_dict({}, "relu"), "no 2-d weights"),
        (
            lambda: Architecture.from_state_dict(NO_CHANNELS, "relu"),
            r"'d.weight' of shape \(1, 3\) does not follow 'c.weight'",
        ),
        (lambda: Architecture(()), "it is empty"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


GROUP = NeuronGroup("g", 2)


@pytest.mark.parametrize(
    ("parameters", "wires", "message"),
    [
        ([Parameter("w", (2, 3), (Block((GROUP, Fixed(4))),))], [], "'w'.*labelled"),
        ([Parameter("w", (2, 3), (Block((GROUP, Fixed(3)), (3, 3)),))], [], "'w'.*no view"),
        ([Parameter("w", (2,), (Block((GROUP,)), Block((GROUP,))))], [], "'w' overlap"),
        ([Parameter("w", (2,), (Block((GROUP,)),))] * 2, [], "'w' of a parameter is repeated"),
        ([Parameter("w", (2,), (Block((GROUP,), wires=(("h", 0, 1),)),))], [], "the wire 'h'"),
        ([Parameter("w", (2,), (Block((GROUP,), wires=(("h", 0, 1),)),))], [Wire("h", Fixed(2))], "the wire 'h'"),
        ([Parameter("w", (2, 3), (Block((GROUP, NeuronGroup("g", 3))),))], [], "'g' is declared twice"),
    ],
)
def test_inconsistent_tables_are_refused(parameters, wires, message):
    with pytest.raises(ValueError, match=message):
        Architecture(parameters, wires)


def test_a_sum_of_spaces_permutes_its_parts(generator):
    """Two branches, concatenated: the consumer's axis is the direct sum of their groups and one fixed number."""
    left, right = NeuronGroup("left", 3), NeuronGroup("right", 4)
    total = DirectSum((left, Fixed(1), right))
    assert total.total == 8
    rows = [Parameter(g.name, (g.size,), (Block((g,)),)) for g in (left, right)]
    architecture = Architecture([*rows, Parameter("head", (2, 8), (Block((Fixed(2), total)),))])
    weights = torch.randn(5, architecture.n_weights, generator=generator, dtype=torch.float64)

    def function(rows):
        hidden = torch.cat([rows[:, :3], torch.ones(5, 1), rows[:, 3:7]], 1)
        return (rows[:, 7:].reshape(5, 2, 8) * hidden.unsqueeze(1)).sum(-1)

    moved = Action.random(architecture, 5, generator)(weights)
    assert not torch.equal(moved, weights)
    torch.testing.assert_close(function(moved), function(weights), rtol=1e-12, atol=1e-12)


@pytest.fixture(params=HANDWRITTEN)
def network(request, generator):
    """Five random networks of a hand-written architecture, a module that runs them, and inputs."""
    make, architecture, shape = HANDWRITTEN[request.param]
    modules = [handwritten.randomised(make(), generator) for _ in range(5)]
    weights = WeightArray.from_modules(modules, architecture=architecture)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.from_numpy(np.array(weights)), architecture, modules, inputs


def deviation(network, action) -> float:
    """Largest change of an output, relative to the largest output."""
    weights, architecture, modules, inputs = network
    before = forward(weights, architecture, inputs, module=modules[0])
    after = forward(action(weights), architecture, inputs, module=modules[0])
    return float((after - before).abs().max() / before.abs().max())


def test_handwritten_networks_run_as_their_modules(network):
    weights, architecture, modules, inputs = network
    outputs = forward(weights, architecture, inputs, module=modules[0])
    for module, output in zip(modules, outputs, strict=True):
        torch.testing.assert_close(output, module(inputs), rtol=1e-12, atol=1e-12)


def test_random_actions_keep_the_function_of_handwritten_networks(network, generator):
    weights, architecture, *_ = network
    action = Action.random(architecture, len(weights), generator)
    assert deviation(network, action) < 1e-12
    torch.testing.assert_close(action.inverse()(action(weights)), weights, rtol=1e-12, atol=1e-12)


def test_every_generator_moves_some_weight_and_keeps_the_function(network, generator):
    weights, architecture, *_ = network
    n = len(weights)
    everything = Action.random(architecture, n, generator)
    for group in architecture.groups:
        only = Action(architecture, {group.name: everything.permutations[group.name]}, {})
        assert not torch.equal(only(weights), weights), group
        assert deviation(network, only) < 1e-12, group
    for wire in architecture.wires:
        only = Action(architecture, {}, {wire.name: everything.scales[wire.name]})
        assert not torch.equal(only(weights), weights), wire
        assert deviation(network, only) < 1e-12, wire


def test_the_checks_above_catch_a_forgotten_block(generator):
    """A batch norm whose statistics are left out of the table: the deviation is no longer small."""
    right = handwritten.BatchNormed.architecture(compensated=True)
    wrong = Architecture(
        tuple(p if p.role == "weight" else Parameter(p.name, p.shape, (), p.role) for p in right.parameters),
        right.wires,
    )
    modules = [handwritten.randomised(handwritten.BatchNormed(1e-2), generator) for _ in range(5)]
    weights = torch.from_numpy(np.array(WeightArray.from_modules(modules, architecture=wrong)))
    inputs = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    action = Action.random(wrong, 5, generator)
    assert deviation((weights, wrong, modules, inputs), action) > 1e-2


def test_roles_say_which_columns_are_statistics():
    architecture = handwritten.BatchNormed.architecture(compensated=True)
    assert len(architecture.statistic_columns) == 6 + 6 + 1
