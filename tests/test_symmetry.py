"""Symmetries are groups that keep the function; canonical forms are constant on orbits; planted matchings are found."""

from __future__ import annotations

from itertools import permutations, product

import handwritten
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from wsflow.activations import ACTIVATIONS, FLIP, PHASE, POSITIVE, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, Fixed, Layer, NeuronGroup, Parameter, Wire
from wsflow.running import take
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import Bias, canonical_action, incoming_columns
from wsflow.symmetry.centring import compared
from wsflow.symmetry.matching import weight_matching
from wsflow.symmetry.matching.assignment import assignment
from wsflow.testing import (
    actions,
    architectures,
    assert_function_preserved,
    function_deviation,
    rounding_error,
    weights,
)
from wsflow.weights import WeightArray

SCALED = [name for name, row in ACTIVATIONS.items() if POSITIVE in row.scalings]
FLIPPED = [name for name, row in ACTIVATIONS.items() if SIGN in row.scalings]
FORBIDDEN = [
    (name, kind)
    for name, row in ACTIVATIONS.items()
    for kind in (POSITIVE, SIGN)
    # a negative scale of a wire with flips is a flip
    if kind not in row.scalings and not (kind == SIGN and FLIP in row.scalings)
]


def concatenate() -> Architecture:
    """Two branches and a constant on one axis, with one wire over all of it: relu(gain * (left, 1, right))."""
    left, right = NeuronGroup("left", 3), NeuronGroup("right", 4)
    total = DirectSum((left, Fixed(1), right))
    rows = [Parameter(group.name, (group.size,), (Block((group,)),)) for group in (left, right)]
    gain = Parameter("gain", (8,), (Block((total,), wires=(("concat", 0, 1),)),))
    head = Parameter("head", (2, 8), (Block((Fixed(2), total), wires=(("concat", 1, -1),)),))
    return Architecture([*rows, gain, head], [Wire("concat", total, frozenset({POSITIVE}))], outputs=["head"])


def run_concatenated(rows: torch.Tensor) -> torch.Tensor:
    """What networks of `concatenate` compute."""
    hidden = torch.cat([rows[:, :3], torch.ones(len(rows), 1), rows[:, 3:7]], 1)
    return (rows[:, 15:].reshape(-1, 2, 8) * (rows[:, 7:15] * hidden).relu().unsqueeze(1)).sum(-1)


def unfused() -> Architecture:
    """Channels within heads on one axis of total size, without an axis for the heads."""
    heads = NeuronGroup("heads", 3)
    channels = NeuronGroup("channels", 4, parent=heads)
    wires = (("channels", 0, 1),)
    return Architecture(
        [
            Parameter("scale", (3,), (Block((heads,)),)),
            Parameter("value", (12, 5), (Block((channels, Fixed(5)), wires=wires),)),
            Parameter("out", (2, 12), (Block((Fixed(2), channels), wires=(("channels", 1, -1),)),)),
        ],
        [Wire("channels", channels, frozenset({POSITIVE, SIGN}))],
    )


def run_unfused(rows: torch.Tensor) -> torch.Tensor:
    """A bilinear read-out of the values, each head with a scale of its own."""
    scale = rows[:, :3].repeat_interleave(4, 1).unsqueeze(-1)
    return rows[:, 63:].reshape(-1, 2, 12) @ (scale * rows[:, 3:63].reshape(-1, 12, 5))


def mixed() -> Architecture:
    """Every kind of change in one network: scalings, then flips, then signs and phases, then degree three."""
    layers = [Layer("linear", "0", 3, 5)]
    for i, (kind, p, k) in enumerate([("relu", 5, 4), ("sigmoid", 4, 6), ("sine", 6, 5), ("relu_power", 5, 2)]):
        argument = {"sine": 3.0, "relu_power": 3.0}.get(kind)
        layers += [Layer(kind, f"{kind}", argument=argument), Layer("linear", str(i + 1), p, k)]
    return Architecture.sequential(layers)


def linear_stream() -> Architecture:
    """A stream on which a linear layer adds to itself: x = embed + W x, so W has the stream on both axes."""
    stream = NeuronGroup("stream", 5)
    rows = [
        Parameter("embed", (5, 3), (Block((stream, Fixed(3)), wires=(("x", 0, 1),)),)),
        Parameter("self", (5, 5), (Block((stream, stream), wires=(("x", 0, 1), ("x", 1, -1))),)),
        Parameter("head", (2, 5), (Block((Fixed(2), stream), wires=(("x", 1, -1),)),)),
    ]
    return Architecture(tuple(rows), (Wire("x", stream, frozenset({POSITIVE, SIGN})),))


def run_linear_stream(rows: torch.Tensor) -> torch.Tensor:
    """What networks of `linear_stream` make of the unit vectors."""
    embed, again, head = (
        rows[:, a:b].reshape(-1, *s) for a, b, s in ((0, 15, (5, 3)), (15, 40, (5, 5)), (40, 50, (2, 5)))
    )
    return head @ (embed + again @ embed)


def separate() -> Architecture:
    """sin(3 z)^2 between linear layers: its signs vanish behind it, so signs and phases have wires of their own."""
    group = NeuronGroup("hidden", 4)
    made = (("signs", 0, 1),)
    bias = Block((group,), wires=made, shifts=(("phases", 0, np.pi / 3),))
    out = Block((Fixed(2), group), wires=(("signs", 1, -2), ("phases", 1, -2)))
    return Architecture(
        (
            Parameter("weight", (4, 3), (Block((group, Fixed(3)), wires=made),)),
            Parameter("bias", (4,), (bias,)),
            Parameter("out", (2, 4), (out,)),
        ),
        (Wire("signs", group, frozenset({SIGN})), Wire("phases", group, frozenset({PHASE}))),
    )


def run_separate(rows: torch.Tensor) -> torch.Tensor:
    """What networks of `separate` make of the unit vectors."""
    weight, bias, out = rows[:, :12].reshape(-1, 4, 3), rows[:, 12:16].unsqueeze(-1), rows[:, 16:].reshape(-1, 2, 4)
    return out @ (3 * (weight + bias)).sin().square()


def nested_twice() -> Architecture:
    """Channels within parts within heads: all three on axes of their own, then channels on one axis."""
    heads = NeuronGroup("heads", 2)
    parts = NeuronGroup("parts", 3, parent=heads)
    channels = NeuronGroup("channels", 4, parent=parts)
    value = Block((heads, parts, channels, Fixed(5)), view=(2, 3, 4, 5), wires=(("channels", 2, 1),))
    return Architecture(
        (
            Parameter("head scale", (2,), (Block((heads,)),)),
            Parameter("part scale", (6,), (Block((parts,)),)),
            Parameter("value", (24, 5), (value,)),
            Parameter("out", (2, 24), (Block((Fixed(2), channels), wires=(("channels", 1, -1),)),)),
        ),
        (Wire("channels", channels, frozenset({POSITIVE, SIGN})),),
    )


def run_nested_twice(rows: torch.Tensor) -> torch.Tensor:
    """A bilinear read-out of the values, each head and each part with a scale of its own."""
    scale = rows[:, :2].repeat_interleave(12, 1) * rows[:, 2:8].repeat_interleave(4, 1)
    return rows[:, 128:].reshape(-1, 2, 24) @ (scale.unsqueeze(-1) * rows[:, 8:128].reshape(-1, 24, 5))


ARCHITECTURES = {
    "relu": Architecture.mlp([4, 5, 3, 2]),
    "identity": Architecture.mlp([4, 5, 3, 2], "identity"),
    "tanh": Architecture.mlp([4, 5, 3, 2], "tanh", bias=False),
    "wreath in views": handwritten.Attention.architecture(),
    "wreath on one axis": unfused(),
    "direct sum": concatenate(),
    "residual": handwritten.Residual.architecture(),
    "depthwise": handwritten.Separable.architecture(),
    "no hidden neurons": Architecture.mlp([4, 2]),
    "flips": Architecture.mlp([4, 5, 3, 2], "sigmoid"),
    "phases": Architecture.mlp([4, 5, 3, 2], "sine"),
    "everything": mixed(),
    "two axes": linear_stream(),
    "nested twice": nested_twice(),
    "signs and phases apart": separate(),
}
RUNS = {
    "direct sum": run_concatenated,
    "wreath on one axis": run_unfused,
    "two axes": run_linear_stream,
    "nested twice": run_nested_twice,
    "signs and phases apart": run_separate,
}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def incoming(weights: torch.Tensor, architecture: Architecture, wire: Wire, bias: Bias = "inside") -> torch.Tensor:
    """The incoming weights (n, neurons, fan_in) that decide on a wire's scale."""
    return take(weights, incoming_columns(architecture, wire, bias))


def random_action(architecture: Architecture, n: int, seed: int = 0, log_scale: float = 1.0) -> Action:
    """Action.random, by a seed."""
    return Action.random(architecture, n, torch.Generator().manual_seed(seed), log_scale)


def close(a: torch.Tensor, b: torch.Tensor, rtol: float = 1e-12) -> None:
    """Equal up to rounding."""
    torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)


class TestFunctionIsKept:
    """f(g.w) = f(w), for what the table allows and for nothing else."""

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @given(data=st.data())
    def test_by_permutations_and_scalings(self, activation, data):
        architecture = data.draw(architectures(activations=[activation]))
        w = data.draw(weights(architecture))
        assert_function_preserved(w, data.draw(actions(architecture))(w))

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_by_actions_that_move_the_weights(self, activation):
        architecture = Architecture.mlp([5, 6, 4, 3], activation)
        w = WeightArray(drawn(20, architecture.n_weights).numpy(), architecture)
        moved = random_action(architecture, 20)(w)
        assert type(moved) is WeightArray
        assert (np.abs(moved - w).max(axis=1) > 0.1).all()
        assert_function_preserved(w, moved)

    @pytest.mark.parametrize(("activation", "kind"), FORBIDDEN)
    def test_not_by_what_the_table_forbids(self, activation, kind):
        architecture = Architecture.mlp([5, 4, 3], activation)
        w = WeightArray(drawn(3, architecture.n_weights).numpy(), architecture)
        factor = 2.0 if kind == POSITIVE else -1.0
        moved = Action(architecture, {}, {"hidden1": torch.full((3, 4), factor, dtype=torch.float64)})(w)
        assert (function_deviation(w, moved) > 1e-3).all()
        with pytest.raises(AssertionError, match="is another function"):
            assert_function_preserved(w, moved, rtol=1e-3)

    def test_not_by_a_permutation_that_consumers_do_not_follow(self):
        architecture = Architecture.mlp([5, 4, 3])
        w = drawn(3, architecture.n_weights)
        moved = torch.cat([random_action(architecture, 3)(w)[:, :24], w[:, 24:]], 1)
        before, after = (WeightArray(x.numpy(), architecture) for x in (w, moved))
        assert (function_deviation(before, after) > 1e-3).all()

    @pytest.mark.parametrize("name", RUNS)
    def test_on_sums_nested_groups_and_two_axes_of_one_group(self, name):
        architecture, run = ARCHITECTURES[name], RUNS[name]
        w = drawn(20, architecture.n_weights)
        moved = random_action(architecture, 20)(w)
        assert not torch.equal(moved, w)
        close(run(moved), run(w))

    def test_in_float32(self):
        architecture = Architecture.mlp([5, 6, 4, 3])
        w = WeightArray(drawn(20, architecture.n_weights).float().numpy(), architecture)
        moved = random_action(architecture, 20)(w)
        assert moved.dtype == np.float32
        assert_function_preserved(w, moved, rtol=1e-4)


class TestGroupLaws:
    """Actions of every kind of space compose, invert and have an identity."""

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_composition_is_one_after_the_other(self, name):
        architecture = ARCHITECTURES[name]
        w = drawn(4, architecture.n_weights)
        a, b = (random_action(architecture, 4, seed) for seed in (1, 2))
        close((a @ b)(w), a(b(w)))

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_composition_is_associative(self, name):
        architecture = ARCHITECTURES[name]
        a, b, c = (random_action(architecture, 4, seed) for seed in (1, 2, 3))
        left, right = (a @ b) @ c, a @ (b @ c)
        for group in architecture.groups:
            assert torch.equal(left.permutations[group.name], right.permutations[group.name])
        for wire in architecture.wires:
            close(left.scales[wire.name], right.scales[wire.name])
        assert all(torch.equal(k, right.phases[name]) for name, k in left.phases.items())

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_inverse_and_identity(self, name):
        architecture = ARCHITECTURES[name]
        w = drawn(4, architecture.n_weights)
        a, e = random_action(architecture, 4), Action.identity(architecture, 4)
        close(a.inverse()(a(w)), w)
        close((a @ a.inverse())(w), w)
        close((a.inverse() @ a)(w), w)
        assert torch.equal(e(w), w)
        assert torch.equal((a @ e)(w), a(w))
        assert torch.equal((e @ a)(w), a(w))

    @given(data=st.data())
    def test_actions_that_name_only_some_groups_compose(self, data):
        architecture = data.draw(st.sampled_from([a for a in ARCHITECTURES.values() if a.groups]))
        w = drawn(3, architecture.n_weights)
        a, b = (data.draw(actions(architecture)) for _ in range(2))
        close((a @ b)(w), a(b(w)))
        close(a.inverse()(a(w)), w)

    @pytest.mark.parametrize("name", ["wreath in views", "wreath on one axis"])
    def test_a_parent_alone_takes_its_nested_neurons_along(self, name):
        architecture = ARCHITECTURES[name]
        w = drawn(3, architecture.n_weights)
        everything = random_action(architecture, 3)
        heads = Action(architecture, {"heads": everything.permutations["heads"]}, {})
        inside = Action(
            architecture,
            {g.name: torch.rand(3, 3, 4).argsort(-1).add(4 * torch.arange(3)[:, None]).flatten(1)
             for g in architecture.groups if g.parent is not None},
            {},
        )  # fmt: skip
        assert not torch.equal(heads(w), w)
        close((heads @ inside)(w), heads(inside(w)))
        close((inside @ heads)(w), inside(heads(w)))

    def test_nested_permutations_are_those_of_a_wreath_product(self):
        action = random_action(unfused(), 50)
        channels = action.permutations["channels"].reshape(50, 3, 4)
        # each new head holds the channels of the one head that it was, in any order
        assert torch.equal(channels // 4, action.permutations["heads"].unsqueeze(-1).expand(50, 3, 4))
        assert torch.equal(channels.flatten(1).sort(1).values, torch.arange(12).expand(50, 12))
        assert len(channels.remainder(4).flatten(0, 1).unique(dim=0)) > 12

    def test_rows_are_the_actions_of_those_networks(self):
        architecture = ARCHITECTURES["relu"]
        w = drawn(5, architecture.n_weights)
        action = random_action(architecture, 5)
        assert torch.equal(action.rows([3, 1])(w[[3, 1]]), action(w)[[3, 1]])
        with pytest.raises(ValueError, match=r"5 group elements.*got 2 rows"):
            action(w[:2])

    def test_scales_are_indexed_by_the_new_neurons(self):
        architecture = Architecture.mlp([1, 2, 1], bias=False)
        swap = {"hidden1": torch.tensor([[1, 0]])}
        action = Action(architecture, swap, {"hidden1": torch.tensor([[2.0, 1.0]])})
        assert action(torch.tensor([[3.0, 5.0, 7.0, 11.0]])).tolist() == [[10.0, 3.0, 5.5, 7.0]]

    def test_phases_are_added_after_the_scales(self):
        """w = (1, 1), b = (0, 1), v = (1, 1): swap, turn the new first neuron's sign, shift it by one half period."""
        architecture = Architecture.mlp([1, 2, 1], "sine")
        swap = {"hidden1": torch.tensor([[1, 0]])}
        scales = {"hidden1": torch.tensor([[-1.0, 1.0]], dtype=torch.float64)}
        action = Action(architecture, swap, scales, {"hidden1": torch.tensor([[1, 0]])})
        moved = action(torch.tensor([[2.0, 3.0, 0.0, 1.0, 5.0, 7.0, 11.0]], dtype=torch.float64))
        assert moved.tolist() == [[-3.0, 2.0, np.pi - 1, 0.0, 7.0, 5.0, 11.0]]

    def test_flips_move_weights_into_the_bias_behind(self):
        architecture = Architecture.mlp([1, 2, 1], "sigmoid")
        action = Action(architecture, {}, {"hidden1": torch.tensor([[-1.0, 1.0]])})
        moved = action(torch.tensor([[2.0, 3.0, 1.0, 1.0, 5.0, 7.0, 11.0]]))
        assert moved.tolist() == [[-2.0, 3.0, -1.0, 1.0, -5.0, 7.0, 16.0]]

    def test_actions_that_name_nothing(self):
        architecture = Architecture.mlp([4, 3, 2])
        nothing, a = Action(architecture, {}, {}), random_action(architecture, 3)
        w = drawn(3, architecture.n_weights)
        assert torch.equal(nothing(w), w)
        close((nothing @ a)(w), a(w))
        close((a @ nothing)(w), a(w))

    def test_random_scales_have_the_log_scale(self):
        architecture = Architecture.mlp([2, 50, 2], "identity")
        scales = random_action(architecture, 200, log_scale=1.5).scales["hidden1"]
        assert float(scales.abs().log().std()) == pytest.approx(1.5, rel=0.03)
        assert float((scales < 0).double().mean()) == pytest.approx(0.5, abs=0.02)


class TestCanonicalForm:
    """One representative of each orbit of scalings and signs."""

    @given(data=st.data(), bias=st.sampled_from(["inside", "outside"]))
    def test_keeps_the_function_and_is_idempotent(self, data, bias):
        architecture = data.draw(architectures())
        w = data.draw(weights(architecture))
        canonical = canonical_action(torch.from_numpy(np.array(w)), architecture, bias)(w)
        assert np.isfinite(canonical).all()
        assert_function_preserved(w, canonical)
        again = canonical_action(torch.from_numpy(np.array(canonical)), architecture, bias)(canonical)
        np.testing.assert_allclose(again, canonical, rtol=1e-12, atol=1e-300)

    @given(data=st.data(), bias=st.sampled_from(["inside", "outside"]))
    def test_is_constant_on_orbits(self, data, bias):
        architecture = data.draw(architectures(activations=SCALED + FLIPPED))
        w = torch.from_numpy(np.array(data.draw(weights(architecture, degenerate=False))))
        g = data.draw(actions(architecture, log_scale=1.5))
        permutation = Action(architecture, g.permutations, {})

        def form(x):
            return canonical_action(x, architecture, bias)(x)

        # a permutation commutes with the canonical form
        change = (form(g(w)) - permutation(form(w))).abs().amax(1)
        assert (change <= rounding_error(form, w) + rounding_error(form, g(w))).all()

    @pytest.mark.parametrize("bias", ["inside", "outside"])
    @pytest.mark.parametrize("activation", SCALED)
    def test_incoming_weights_have_unit_norm(self, activation, bias):
        architecture = Architecture.mlp([4, 5, 3, 2], activation)
        w = drawn(20, architecture.n_weights)
        canonical = canonical_action(w, architecture, bias)(w)
        for wire, fan_in in zip(architecture.wires, (4, 5), strict=True):
            rows = incoming(canonical, architecture, wire, bias)
            assert rows.shape == (20, wire.space.total, fan_in + (bias == "inside"))
            close(rows.norm(dim=-1), torch.ones(rows.shape[:2], dtype=torch.float64))

    @pytest.mark.parametrize("activation", FLIPPED)
    def test_the_sign_convention(self, activation):
        architecture = Architecture.mlp([4, 5, 3, 2], activation)
        w = drawn(20, architecture.n_weights)
        with_signs, without = (canonical_action(w, architecture, signs=signs) for signs in (True, False))
        for wire in architecture.wires:
            # a bias that phases shift has no sign of its own
            bias = "outside" if PHASE in wire.scalings else "inside"
            assert (incoming(with_signs(w), architecture, wire, bias).sum(-1) >= 0).all()
            assert (with_signs.scales[wire.name] < 0).any()
        assert all((scale > 0).all() for scale in without.scales.values())

    def test_activations_without_scalings_stay(self):
        architecture = Architecture.mlp([4, 5, 3, 2], "gelu")
        w = drawn(20, architecture.n_weights)
        assert torch.equal(canonical_action(w, architecture)(w), w)

    def test_dead_neurons_keep_their_scale(self):
        architecture = Architecture.mlp([4, 3, 2])
        w = drawn(2, architecture.n_weights)
        w[:, [4, 5, 6, 7, 13]] = 0.0  # weights and bias of neuron 1
        action = canonical_action(w, architecture)
        assert torch.equal(action.scales["hidden1"][:, 1], torch.ones(2, dtype=torch.float64))
        assert action(w).isfinite().all()

    def test_a_neuron_with_nothing_but_a_bias_has_a_direction_inside(self):
        architecture = Architecture.mlp([2, 1, 1])
        w = torch.tensor([[0.0, 0.0, -3.0, 5.0, 1.0]])
        assert canonical_action(w, architecture, "inside")(w).tolist() == [[0.0, 0.0, -1.0, 15.0, 1.0]]
        assert torch.equal(canonical_action(w, architecture, "outside")(w), w)


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What weight matching maximises."""
    return (a * b).sum(-1)


def algorithm_1(w: np.ndarray, reference: np.ndarray, widths: list[int]) -> list[np.ndarray]:
    """Git Re-Basin's algorithm 1 for one network, literally: layers as matrices, one assignment at a time."""

    def layers(row: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        parts, start = [], 0
        for fan_in, fan_out in zip(widths[:-1], widths[1:], strict=True):
            middle, stop = start + fan_in * fan_out, start + fan_in * fan_out + fan_out
            parts.append((row[start:middle].reshape(fan_out, fan_in), row[middle:stop]))
            start = stop
        return parts

    a, b = layers(reference), layers(w)
    perms = [np.arange(width) for width in widths]
    while True:
        changed = False
        for k in range(1, len(widths) - 1):
            before, after = perms[k - 1], perms[k + 1]
            gain = a[k - 1][0] @ b[k - 1][0][:, before].T + np.outer(a[k - 1][1], b[k - 1][1])
            gain += a[k][0].T @ b[k][0][after]
            found = linear_sum_assignment(gain, maximize=True)[1]
            rows = np.arange(widths[k])
            if gain[rows, found].sum() > gain[rows, perms[k]].sum() + 1e-12:
                perms[k], changed = found, True
        if not changed:
            return perms[1:-1]


class TestWeightMatching:
    """Coordinate ascent over groups."""

    @pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
    def test_recovers_planted_permutations_and_signs(self, activation):
        architecture = Architecture.mlp([30, 16, 16, 2], activation)
        w = drawn(20, architecture.n_weights)
        planted = random_action(architecture, 20, log_scale=0.0)
        found = weight_matching(planted(w), w, architecture)
        assert torch.equal(found(planted(w)), w)
        undo = planted.inverse()
        assert all(torch.equal(found.permutations[name], p) for name, p in undo.permutations.items())
        if activation == "tanh":
            assert all(torch.equal(found.scales[name], s) for name, s in undo.scales.items())

    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_recovers_planted_permutations_and_signs_of_wide_networks(self, activation, generator):
        architecture = Architecture.mlp([20, 512, 512, 10], activation)
        # at torch's scale; with weights of unit variance 512 misplaced neurons outweigh 20 inputs
        w = INITIALISATIONS["uniform"](architecture, 1, generator).double()
        moved = random_action(architecture, 1, log_scale=0.0)(w)
        assert torch.equal(weight_matching(moved, w[0], architecture)(moved), w)

    @pytest.mark.parametrize("name", ["depthwise", "residual", "direct sum"])
    def test_recovers_planted_permutations_of_other_architectures(self, name):
        architecture = ARCHITECTURES[name]
        w = drawn(10, architecture.n_weights)
        moved = random_action(architecture, 10, log_scale=0.0)(w)
        found = weight_matching(moved, w, architecture)(moved)
        objective, planted = inner(found, w), inner(w, w)
        # narrow networks may stop at a local optimum, but most do not
        assert (objective <= planted + 1e-9).all()
        assert int(((objective - planted).abs() < 1e-9).sum()) >= 7

    def test_nested_groups_follow_their_parents(self):
        architecture = unfused()
        w = drawn(10, architecture.n_weights)
        heads = random_action(architecture, 10).permutations["heads"]
        moved = Action(architecture, {"heads": heads}, {})(w)
        assert torch.equal(weight_matching(moved, w, architecture)(moved), w)

    @settings(max_examples=40)
    @given(data=st.data())
    def test_the_objective_never_falls(self, data):
        architecture = data.draw(architectures())
        w, reference = (torch.from_numpy(np.array(data.draw(weights(architecture)))) for _ in range(2))
        # where flips and phases are signs
        start, end = compared(w, architecture), compared(reference, architecture)
        last = inner(start, end)
        for sweeps in (1, 2, 3, 50):
            action = weight_matching(w, reference, architecture, max_sweeps=sweeps)
            value = inner(compared(action(w), architecture), end)
            assert (value >= last - 1e-12 * start.norm(dim=1) * end.norm(dim=1)).all()
            last = value

    def test_no_sweeps_change_nothing(self):
        architecture = ARCHITECTURES["tanh"]
        w = drawn(4, architecture.n_weights)
        assert torch.equal(weight_matching(w, drawn(architecture.n_weights), architecture, 0)(w), w)

    def test_a_reference_for_each_row(self):
        architecture = ARCHITECTURES["identity"]
        w, references = drawn(6, architecture.n_weights), drawn(6, architecture.n_weights, seed=1)
        together = weight_matching(w, references, architecture)(w)
        each = [weight_matching(w[i : i + 1], references[i], architecture)(w[i : i + 1]) for i in range(6)]
        assert torch.equal(together, torch.cat(each))

    @pytest.mark.parametrize("activation", ["relu", "tanh"])
    def test_one_hidden_layer_is_solved_exactly(self, activation):
        architecture = Architecture.mlp([3, 4, 2], activation)
        w, reference = drawn(10, architecture.n_weights), drawn(architecture.n_weights, seed=1)
        found = weight_matching(w, reference, architecture)
        signs = list(product([1.0, -1.0], repeat=4)) if activation == "tanh" else [(1.0,) * 4]
        values = []
        for order, sign in product(permutations(range(4)), signs):
            index = {"hidden1": torch.tensor([order]).expand(10, 4)}
            scales = {"hidden1": torch.tensor([sign], dtype=torch.float64).expand(10, 4)}
            values.append(inner(Action(architecture, index, scales)(w), reference))
        close(inner(found(w), reference), torch.stack(values).max(0).values)

    @given(st.lists(st.integers(2, 6), min_size=3, max_size=5), st.integers(0, 999))
    def test_agrees_with_algorithm_1(self, widths, seed):
        architecture = Architecture.mlp(widths)
        w, reference = drawn(3, architecture.n_weights, seed=seed), drawn(architecture.n_weights, seed=seed + 1000)
        found = weight_matching(w, reference, architecture, max_sweeps=1000)
        for i in range(3):
            expected = algorithm_1(w[i].numpy(), reference.numpy(), widths)
            for k, permutation in enumerate(expected):
                assert found.permutations[f"hidden{k + 1}"][i].tolist() == permutation.tolist()

    @given(data=st.data())
    def test_equal_and_dead_neurons_are_no_reason_to_move(self, data):
        architecture = data.draw(architectures())
        w = torch.from_numpy(np.array(data.draw(weights(architecture))))
        # nothing lies closer to a network than itself
        assert torch.equal(weight_matching(w, w, architecture)(w), w)
        reference = drawn(architecture.n_weights)
        found = weight_matching(w, reference, architecture)(w)
        assert torch.equal(found, weight_matching(w, reference, architecture)(w))
        assert torch.equal(found[1:], weight_matching(w[1:], reference, architecture)(w[1:]))

    def test_assignment_stays_among_equals_and_refuses_nan(self):
        # scipy alone answers 2, 0, 1 here, with the same sum
        tied = torch.tensor([[2.0, 0.0, 2.0], [2.0, 0.0, 1.0], [1.0, 0.0, 2.0]])
        assert assignment(torch.stack([tied, torch.ones(3, 3)])).tolist() == [[0, 1, 2]] * 2
        assert assignment(torch.eye(3)[[1, 2, 0]].unsqueeze(0)).tolist() == [[1, 2, 0]]
        with pytest.raises(ValueError, match="invalid numeric"):
            assignment(torch.full((1, 2, 2), float("nan")))

    def test_signs_of_dead_neurons_are_never_zero(self):
        architecture = Architecture.mlp([3, 4, 2], "tanh")
        w = torch.zeros(2, architecture.n_weights, dtype=torch.float64)
        action = weight_matching(w, drawn(architecture.n_weights), architecture)
        assert (action.scales["hidden1"].abs() == 1).all()
