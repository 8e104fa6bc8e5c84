"""Weight matching of every architecture: what was planted comes back, orbits are one point, nothing gets worse."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import handwritten
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import nn

from wsflow.activations import POSITIVE, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, Fixed, Layer, NeuronGroup, Parameter, Wire
from wsflow.architecture.restriction import restricted
from wsflow.symmetry.actions import Action
from wsflow.symmetry.batches import concatenate, extended
from wsflow.symmetry.canonical import canonical_action
from wsflow.symmetry.centring import compared
from wsflow.symmetry.matching.assignment import Signs, assignment
from wsflow.symmetry.matching.fixed_groups import fixed_groups, rows_by_fixed_groups
from wsflow.symmetry.matching.solution import signs_and_phases
from wsflow.symmetry.matching.subproblems import MatchingProblem
from wsflow.symmetry.matching.universe import _best, _identity, _matrices, _transformed, between, universe_matching
from wsflow.symmetry.matching.weight import ascend, objective, orbit_matching, weight_matching

BOTH = frozenset({POSITIVE, SIGN})


def grouped(groups: int = 3, inner: int = 4) -> Architecture:
    """A grouped convolution between two layers: inputs and outputs are nested in its groups, a wreath product."""
    group = NeuronGroup("groups", groups)
    inputs, outputs = NeuronGroup("inputs", inner, parent=group), NeuronGroup("outputs", inner, parent=group)
    kernel = Block((group, outputs, inputs, Fixed(3)), (groups, inner, inner, 3), wires=(("out", 1, 1), ("in", 2, -1)))
    total = groups * inner
    return Architecture(
        [
            Parameter("expand", (total, 5), (Block((inputs, Fixed(5)), wires=(("in", 0, 1),)),)),
            Parameter("conv", (total, inner, 3), (kernel,)),
            Parameter("bias", (total,), (Block((outputs,), wires=(("out", 0, 1),)),)),
            Parameter("head", (2, total), (Block((Fixed(2), outputs), wires=(("out", 1, -1),)),)),
        ],
        [Wire("in", inputs, BOTH), Wire("out", outputs, BOTH)],
    )


def recurrent(size: int = 12) -> Architecture:
    """h <- tanh(W x + U h): the group is on both axes of U."""
    hidden = NeuronGroup("hidden", size)
    return Architecture(
        [
            Parameter("input", (size, 3), (Block((hidden, Fixed(3)), wires=(("h", 0, 1),)),)),
            Parameter("hidden", (size, size), (Block((hidden, hidden), wires=(("h", 0, 1), ("h", 1, -1))),)),
            Parameter("output", (2, size), (Block((Fixed(2), hidden), wires=(("h", 1, -1),)),)),
        ],
        [Wire("h", hidden, frozenset({SIGN}))],
    )


def periodic(*kinds: str) -> Architecture:
    """Two hidden layers with these activations; of a sine a period is so short that biases lie several apart."""
    first, second = (Layer(kind, kind, argument=9.0 if kind == "sine" else None) for kind in (kinds * 2)[:2])
    linear = [Layer("linear", str(i), *sizes, bias=True) for i, sizes in enumerate([(4, 6), (6, 5), (5, 2)])]
    return Architecture.sequential([linear[0], first, linear[1], replace(second, name="second"), linear[2]])


def padded() -> Architecture:
    """A shortcut that pads channels: the later stream is the earlier one and new channels."""
    early, late = NeuronGroup("early", 5), NeuronGroup("late", 4)
    stream = DirectSum((early, late))
    return Architecture(
        [
            *handwritten.linear("embed", early, Fixed(3), produces="early"),
            Parameter("block", (9, 5), (Block((stream, early), wires=(("early", 1, -1), ("stream", 0, 1))),)),
            Parameter("head", (2, 9), (Block((Fixed(2), stream), wires=(("stream", 1, -1),)),)),
        ],
        [Wire("early", early, frozenset()), Wire("stream", stream, frozenset())],
    )


def deep_nest() -> Architecture:
    """Neurons within blocks within groups."""
    outer = NeuronGroup("outer", 2)
    middle = NeuronGroup("middle", 3, parent=outer)
    inner = NeuronGroup("inner", 3, parent=middle)
    return Architecture(
        [
            Parameter("in", (18, 4), (Block((inner, Fixed(4)), wires=(("w", 0, 1),)),)),
            Parameter("gain", (6,), (Block((middle,)),)),
            Parameter("out", (2, 18), (Block((Fixed(2), inner), wires=(("w", 1, -1),)),)),
        ],
        [Wire("w", inner, BOTH)],
    )


ARCHITECTURES = {
    "relu": Architecture.mlp([4, 6, 5, 2]),
    "tanh": Architecture.mlp([4, 6, 5, 2], "tanh", bias=False),
    "identity": Architecture.mlp([4, 6, 5, 2], "identity"),
    "sigmoid": Architecture.mlp([4, 6, 5, 2], "sigmoid"),
    "sine": periodic("sine"),
    "cosine": periodic("cosine"),
    "sines behind sigmoids": periodic("sigmoid", "sine"),
    "attention": handwritten.Attention.architecture(6, 3, 4),
    "convolutional": handwritten.Convolutional.architecture(),
    "batch norm": handwritten.BatchNormed.architecture(compensated=True),
    "residual": handwritten.Residual.architecture(),
    "depthwise": handwritten.Separable.architecture(),
    "grouped": grouped(),
    "recurrent": recurrent(),
    "padded": padded(),
    "nested twice": deep_nest(),
}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(architecture: Architecture, n: int, log_scale: float = 0.0, seed: int = 0) -> Action:
    """Random group elements."""
    return Action.random(architecture, n, torch.Generator().manual_seed(seed), log_scale)


def weights_alone(rows: torch.Tensor, architecture: Architecture) -> torch.Tensor:
    """Rows without statistics, which have no say."""
    rows = rows.clone()
    rows[:, architecture.statistic_columns] = 0
    return rows


class TestPlanted:
    """What was moved comes back, exactly."""

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_permutations_and_signs_of_every_architecture(self, name):
        architecture = ARCHITECTURES[name]
        w = drawn(12, architecture.n_weights)
        moved = planted(architecture, 12)(w)
        assert not torch.equal(moved, w)
        found = orbit_matching(moved, w, architecture)(moved)
        torch.testing.assert_close(found, w, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sine", "sigmoid", "gelu"])
    def test_scalings_too_where_canonical_forms_are_compared(self, activation):
        architecture = Architecture.mlp([20, 64, 64, 10], activation)
        w = drawn(3, architecture.n_weights)
        moved = planted(architecture, 3, log_scale=1.0)(w)
        forms = [canonical_action(rows, architecture)(rows) for rows in (w, moved)]
        found = orbit_matching(forms[1], forms[0], architecture)(forms[1])
        torch.testing.assert_close(found, forms[0], rtol=1e-10, atol=1e-10)

    @pytest.mark.slow
    @pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sine", "sigmoid", "gelu"])
    def test_of_width_512_at_unit_variance(self, activation):
        architecture = Architecture.mlp([20, 512, 512, 10], activation)
        w = drawn(2, architecture.n_weights)
        moved = planted(architecture, 2, log_scale=1.0)(w)
        forms = [canonical_action(rows, architecture)(rows) for rows in (w, moved)]
        found = orbit_matching(forms[1], forms[0], architecture)(forms[1])
        torch.testing.assert_close(found, forms[0], rtol=1e-10, atol=1e-10)

    @pytest.mark.slow
    @pytest.mark.parametrize("shape", [(64, 8, 64), (48, 12, 32)])
    def test_of_wide_attention(self, shape):
        architecture = handwritten.Attention.architecture(*shape)
        w = drawn(1, architecture.n_weights)
        moved = planted(architecture, 1)(w)
        torch.testing.assert_close(orbit_matching(moved, w, architecture)(moved), w, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_members_of_an_orbit_go_to_one_point(self, name):
        architecture = ARCHITECTURES[name]
        w, reference = drawn(12, architecture.n_weights), drawn(architecture.n_weights, seed=5)
        moved = planted(architecture, 12)(w)
        one, two = (orbit_matching(rows, reference, architecture)(rows) for rows in (w, moved))
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


class TestShortCuts:
    """What saves time changes nothing."""

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_scaling_on_the_way_is_scaling_before(self, name):
        architecture = ARCHITECTURES[name]
        w, reference = drawn(12, architecture.n_weights), drawn(architecture.n_weights, seed=5)
        scaling = canonical_action(w, architecture)
        before = ascend(scaling(w), reference, architecture).action()
        on_the_way = ascend(w, reference, architecture, scaling=scaling).action()
        torch.testing.assert_close(on_the_way(scaling(w)), before(scaling(w)), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_actions_written_in_place_are_those_with_a_gradient(self, name):
        architecture = ARCHITECTURES[name]
        w, action = drawn(12, architecture.n_weights), planted(architecture, 12, log_scale=1.0)
        leaf = w.clone().requires_grad_()
        moved = action(leaf)
        assert torch.equal(moved.detach(), action(w))
        # linear up to what phases and flips add: g w = J w + g 0
        (gradient,) = torch.autograd.grad((moved - action(torch.zeros_like(w))).sum(), leaf)
        torch.testing.assert_close((gradient * w).sum(), (action(w) - action(torch.zeros_like(w))).sum())

    def test_reduced_costs_have_the_same_best_assignments(self):
        scores = drawn(40, 9, 9) * torch.exp(3 * drawn(40, 1, 9, seed=1)) + 100 * drawn(40, 1, 9, seed=2)
        found = assignment(scores)
        for score, columns in zip(scores.numpy(), found.numpy(), strict=True):
            assert np.array_equal(columns, linear_sum_assignment(score, maximize=True)[1])

    def test_scores_are_left_as_they_are(self):
        scores = drawn(4, 5, 5)
        before = scores.clone()
        assignment(scores)
        assert torch.equal(scores, before)


class TestAscent:
    """One step is the best one, and no step is a loss."""

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_the_objective_never_falls(self, name):
        architecture = ARCHITECTURES[name]
        w, reference = drawn(12, architecture.n_weights), drawn(architecture.n_weights, seed=5)
        last = objective(w, reference, architecture)
        assert (objective(weight_matching(w, reference, architecture)(w), reference, architecture) > last + 0.1).any()
        for sweeps in (1, 2, 3, 50):
            moved = weight_matching(w, reference, architecture, max_sweeps=sweeps)(w)
            value = objective(moved, reference, architecture)
            assert (value >= last - 1e-10).all()
            last = value

    def test_heads_are_matched_by_the_best_matchings_of_their_channels(self):
        architecture = handwritten.Attention.architecture(3, 2, 2)
        w, reference = drawn(4, architecture.n_weights), drawn(architecture.n_weights, seed=5)
        rows = []
        for heads, orders in product(permutations(range(2)), product(permutations(range(2)), repeat=4)):
            places = [[2 * head + c for head, order in zip(heads, pair, strict=True) for c in order]
                      for pair in (orders[:2], orders[2:])]  # fmt: skip
            rows += [(heads, *places, signs) for signs in product([1.0, -1.0], repeat=8)]
        heads, qk, vo, signs = (torch.tensor(column) for column in zip(*rows, strict=True))
        scales = {"qk": signs[:, :4].double(), "vo": signs[:, 4:].double()}
        every = Action(architecture, {"heads": heads, "qk": qk, "vo": vo}, scales)
        assert len(every) == 2 * 2**4 * 2**8
        best = torch.stack([objective(every(row.expand(len(every), -1)), reference, architecture).max() for row in w])
        found = weight_matching(w, reference, architecture, max_sweeps=1)(w)
        torch.testing.assert_close(objective(found, reference, architecture), best, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ["grouped", "nested twice", "attention"])
    def test_what_is_found_keeps_neurons_within_their_parents(self, name):
        architecture = ARCHITECTURES[name]
        w = drawn(12, architecture.n_weights)
        action = orbit_matching(w, drawn(architecture.n_weights, seed=5), architecture)
        for group in (group for group in architecture.groups if group.parent is not None):
            places = action.permutations[group.name].reshape(12, -1, group.size)
            parents = action.permutations[group.parent.name].unsqueeze(-1)
            assert torch.equal(places // group.size, parents.expand_as(places))

    @pytest.mark.parametrize("match", [weight_matching, orbit_matching])
    @pytest.mark.parametrize("name", ["relu", "attention", "recurrent"])
    def test_one_reference_for_all_is_one_for_each(self, name, match):
        architecture = ARCHITECTURES[name]
        w, reference = drawn(7, architecture.n_weights), drawn(architecture.n_weights, seed=5)
        together, expanded = match(w, reference, architecture)(w), match(w, reference.expand(7, -1), architecture)(w)
        each = torch.cat([match(row[None], reference.repeat(1, 1), architecture)(row[None]) for row in w])
        assert torch.equal(together, expanded) and torch.equal(together, each)

    def test_statistics_have_no_say(self):
        architecture = ARCHITECTURES["batch norm"]
        w, reference = drawn(6, architecture.n_weights), drawn(architecture.n_weights, seed=5)
        other = w.clone()
        other[:, architecture.statistic_columns] = drawn(6, len(architecture.statistic_columns), seed=8)
        one, two = (weight_matching(rows, reference, architecture) for rows in (w, other))
        assert torch.equal(one.permutations["hidden"], two.permutations["hidden"])
        # but go along
        mean = architecture.slices["norm.running_mean"]
        assert not torch.equal(two(other)[:, mean], other[:, mean])

    def test_passes_are_counted_until_nothing_changes(self):
        architecture = ARCHITECTURES["relu"]
        w = drawn(6, architecture.n_weights)
        assert ascend(w, w, architecture).passes.tolist() == [1] * 6
        apart = ascend(w, drawn(architecture.n_weights, seed=5), architecture)
        assert (apart.passes >= 1).all() and (apart.passes < 50).all()
        assert ascend(w, w, Architecture.mlp([4, 6, 2]).mlp([4, 6, 5, 2]), max_sweeps=0).passes.tolist() == [0] * 6

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_dead_and_equal_neurons_are_deterministic(self, name):
        architecture = ARCHITECTURES[name]
        w, reference = torch.zeros(4, architecture.n_weights, dtype=torch.float64), drawn(architecture.n_weights)
        w[1:3] = 1.0
        found = orbit_matching(w, reference, architecture)
        assert torch.equal(found(w)[1], found(w)[2])
        assert all(torch.equal(scale.abs(), torch.ones_like(scale)) for scale in found.scales.values())
        assert torch.equal(found(w)[2:], orbit_matching(w[2:], reference, architecture)(w[2:]))

    def test_networks_without_neurons_stay(self):
        architecture = Architecture.mlp([4, 2])
        w = drawn(3, architecture.n_weights)
        assert torch.equal(orbit_matching(w, w[0], architecture)(w), w)

    def test_no_networks_are_no_error(self):
        architecture = ARCHITECTURES["attention"]
        found = orbit_matching(torch.zeros(0, architecture.n_weights), drawn(architecture.n_weights), architecture)
        assert found(torch.zeros(0, architecture.n_weights)).shape == (0, architecture.n_weights)

    @pytest.mark.parametrize("name", ["relu", "tanh", "attention", "grouped"])
    def test_float32_finds_the_same(self, name):
        architecture = ARCHITECTURES[name]
        w, reference = drawn(6, architecture.n_weights), drawn(architecture.n_weights, seed=5)
        double, single = (
            orbit_matching(w.to(dtype), reference.to(dtype), architecture) for dtype in (torch.float64, torch.float32)
        )
        assert all(torch.equal(p, single.permutations[group]) for group, p in double.permutations.items())
        assert all(torch.equal(s.float(), single.scales[wire]) for wire, s in double.scales.items())

    def test_the_first_group_is_the_one_that_fixed_axes_say_most_of(self):
        problem = MatchingProblem.of(Architecture.mlp([3, 5, 6, 40]))
        assert [problem.subproblems[i].group.name for i, _ in problem.layer_order] == ["hidden2", "hidden1"]


class TestAssignment:
    """Assignment problems and the signs within them."""

    def test_the_scores_are_left_as_they_were(self):
        scores = drawn(5, 6, 6)
        before = scores.clone()
        index = assignment(scores)
        assert torch.equal(scores, before)
        assert torch.equal(index.sort(1).values, torch.arange(6).expand(5, 6))

    @given(st.sets(st.frozensets(st.sampled_from("abcd"), max_size=3), min_size=1, max_size=6), st.integers(0, 99))
    def test_signs_are_the_best_of_all_patterns(self, sets, seed):
        parities = [frozenset((wire, 0) for wire in parity) for parity in sorted(sets, key=sorted)]
        scores = {parity: drawn(3, 4, seed=seed + 100 * i) for i, parity in enumerate(parities)}
        wires = sorted(set().union(*parities))
        values = [
            sum(np.prod([dict(zip(wires, pattern, strict=True))[w] for w in p]) * s for p, s in scores.items())
            for pattern in product([1.0, -1.0], repeat=len(wires))
        ]
        signs = Signs.of(parities)
        best = signs.best(scores)
        torch.testing.assert_close(best, torch.stack(values).amax(0))
        chosen = signs.choose(scores, torch.zeros(3, dtype=torch.float64))
        reached = sum(
            s * torch.stack([torch.ones(3, 4).double(), *(chosen[w] for w in p)]).prod(0) for p, s in scores.items()
        )
        torch.testing.assert_close(reached, best)

    def test_signs_stay_where_a_flip_gains_nothing(self):
        odd = frozenset({("wire", 0)})
        chosen = Signs.of([odd]).choose({odd: torch.tensor([[-1e-9, -1.0, 0.0]])}, torch.tensor([1e-6]))
        assert chosen["wire", 0].tolist() == [[1.0, -1.0, 1.0]]


class TestHolding:
    """What is equal in all networks stays where it is."""

    architecture = Architecture.mlp([4, 6, 5, 2])

    def rows(self, *equal: str) -> torch.Tensor:
        w = drawn(5, self.architecture.n_weights)
        for name in equal:
            w[:, self.architecture.slices[name]] = w[0, self.architecture.slices[name]]
        return w

    @pytest.mark.parametrize(
        ("equal", "held"),
        [
            ((), []),
            (("0.weight",), ["hidden1"]),
            (("0.bias",), ["hidden1"]),
            (("2.weight",), ["hidden1", "hidden2"]),
            (("4.weight", "4.bias"), ["hidden2"]),
            (("4.bias",), []),
        ],
    )
    def test_groups_whose_neurons_equal_weights_tell_apart(self, equal, held):
        assert list(fixed_groups(self.rows(*equal), self.architecture)) == held

    def test_not_by_biases_of_zero_nor_by_one_network_alone(self):
        w = self.rows()
        w[:, self.architecture.slices["0.bias"]] = 0.0
        assert fixed_groups(w, self.architecture) == {}
        assert fixed_groups(w[:1].repeat(4, 1), self.architecture) == {}

    def test_by_the_weights_of_inputs_that_training_never_changed(self):
        w = self.rows()
        w[:, 0:24:4] = w[0, 0:24:4]
        assert list(fixed_groups(w, self.architecture)) == ["hidden1"]

    def test_heads_with_the_channels_within_them(self):
        architecture = handwritten.Attention.architecture()
        w = drawn(3, architecture.n_weights)
        w[:, architecture.slices["qkv.weight"]] = w[0, architecture.slices["qkv.weight"]]
        assert list(fixed_groups(w, architecture)) == ["heads", "qk", "vo"]

    @pytest.mark.parametrize("name", ["out.weight", "qkv.weight"])
    def test_heads_with_the_channels_that_equal_weights_tell_apart(self, name):
        architecture = handwritten.Attention.architecture()
        w = drawn(3, architecture.n_weights)
        w[:, architecture.slices[name]] = w[0, architecture.slices[name]]
        assert list(fixed_groups(w, architecture)) == (
            ["heads", "vo"] if name == "out.weight" else ["heads", "qk", "vo"]
        )

    def test_neurons_that_rounding_alone_tells_apart_are_not_told_apart(self):
        w = self.rows()
        w[:, self.architecture.slices["0.bias"]] = 1 + torch.finfo(w.dtype).eps * torch.arange(-3, 3)
        assert fixed_groups(w, self.architecture) == {}

    @pytest.mark.parametrize("name", [name for name, a in ARCHITECTURES.items() if any(g.parent for g in a.groups)])
    def test_what_is_nested_moves_within_neurons_that_stay(self, name):
        """A planted orbit whose parents stay is one point, though the parents are held."""
        architecture = ARCHITECTURES[name]
        parent = next(group for group in architecture.groups if group.parent is None)
        few = restricted(architecture, [parent.name])
        assert [g.name for g in few.groups] == [g.name for g in architecture.groups if g != parent]
        assert Architecture.from_json(few.to_json()) == few
        w, reference = drawn(1, architecture.n_weights).expand(6, -1), drawn(architecture.n_weights, seed=5)
        moved = planted(few, 6)(w)
        assert (moved != w).any(1).all()
        found = orbit_matching(moved, reference, few)(moved)
        torch.testing.assert_close(found, found[:1].expand(6, -1), rtol=1e-12, atol=1e-12)
        found = extended(orbit_matching(moved, w[0], few), architecture, 6)(moved)
        torch.testing.assert_close(found, w, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "nested twice"])
    def test_fixed_groups_stay_and_others_move(self, name):
        architecture = ARCHITECTURES[name]
        first = architecture.groups[0]
        few = restricted(architecture, [first.name])
        assert few.n_weights == architecture.n_weights and first not in few.groups
        w = drawn(5, architecture.n_weights)
        action = extended(orbit_matching(w, drawn(architecture.n_weights, seed=5), few), architecture, 5)
        assert torch.equal(action.permutations[first.name], torch.arange(first.total).expand(5, -1))
        assert not any(wire.name in action.scales for wire in architecture.wires if wire.space == first)
        assert torch.equal(action(w), orbit_matching(w, drawn(architecture.n_weights, seed=5), few)(w))

    def test_rows_by_what_they_share(self):
        w = self.rows("0.weight")
        held = fixed_groups(w, self.architecture)
        w[3, 0] += 1
        parts = rows_by_fixed_groups(w, w[0], held)
        assert [(index.tolist(), names) for index, names in parts] == [([3], ()), ([0, 1, 2, 4], ("hidden1",))]
        actions = [(index, planted(self.architecture, len(index))) for index, _ in parts]
        order = torch.cat([index for index, _ in actions]).argsort()
        whole = concatenate(self.architecture, [action for _, action in actions]).rows(order)
        for index, action in actions:
            assert torch.equal(whole(w)[index], action(w[index]))


class TestUniverse:
    """Cycle-consistent matching."""

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_an_orbit_is_one_point(self, name):
        architecture = ARCHITECTURES[name]
        orbit = planted(architecture, 5)(drawn(1, architecture.n_weights).expand(5, -1))
        aligned = weights_alone(universe_matching(orbit, architecture)(orbit), architecture)
        torch.testing.assert_close(aligned, aligned[:1].expand(5, -1), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_maps_between_networks_compose_exactly(self, name):
        architecture = ARCHITECTURES[name]
        w = drawn(4, architecture.n_weights)
        g = universe_matching(w, architecture, max_iter=5)
        i, j, k = [0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1]
        direct, around = between(g, i, k), between(g, i, j) @ between(g, j, k)
        assert all(torch.equal(p, around.permutations[name]) for name, p in direct.permutations.items())
        assert all(torch.equal(s, around.scales[name]) for name, s in direct.scales.items())
        torch.testing.assert_close(g.rows(j).inverse()(g.rows(i)(w)), between(g, j, i)(w), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_networks_are_closer_to_each_other_than_when_matched_to_one(self, name):
        architecture = ARCHITECTURES[name]
        w = 0.6 * drawn(1, architecture.n_weights, seed=3) + 0.8 * drawn(8, architecture.n_weights)
        w = planted(architecture, 8)(w)
        one, all_of_them = orbit_matching(w, w[0], architecture), universe_matching(w, architecture)
        sums = [
            float(weights_alone(compared(g(w), architecture), architecture).sum(0).norm()) for g in (one, all_of_them)
        ]
        assert sums[1] >= sums[0]

    @pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "nested twice"])
    def test_relaxed_elements_act_as_group_elements_at_the_corners(self, name):
        architecture = ARCHITECTURES[name]
        problem, w = MatchingProblem.of(architecture), drawn(3, architecture.n_weights)
        soft = {key: drawn(3, *matrix.shape[1:], seed=7) for key, matrix in _corner(problem, w).items()}
        moves = _best(soft, problem)
        places = {}
        for move in moves:
            for group, within in move.within.items():
                parents = places[group.parent.name].repeat_interleave(group.size, 1) if group.parent else 0
                places[group.name] = within + (group.size * parents if group.parent else 0)
        turned = signs_and_phases({part: sign for move in moves for part, sign in move.signs.items()}, problem, 3)
        plain = Action(Architecture(architecture.parameters, architecture.wires), places, *turned)
        before, after = compared(w, architecture), compared(plain(w), architecture)
        corner = _matrices(moves, problem, w)
        for subblock in problem.subblocks:
            torch.testing.assert_close(_transformed(corner, subblock, subblock.of(before)), subblock.of(after))


def _corner(problem: MatchingProblem, w: torch.Tensor) -> dict:
    return _matrices(_identity(problem, len(w), w), problem, w)


def test_trained_statistics_go_along_with_their_channels(generator):
    module = handwritten.randomised(handwritten.BatchNormed(eps=1e-5), generator)
    architecture = handwritten.BatchNormed.architecture(compensated=True)
    state = module.state_dict()
    w = torch.cat([state[name].double().reshape(-1) for name in architecture.names])[None]
    reference = drawn(architecture.n_weights)
    moved = orbit_matching(w, reference, architecture)(w)
    other = handwritten.BatchNormed(eps=1e-5).double().eval()
    tensors = {
        name: moved[0, columns].reshape(state[name].shape).to(state[name].dtype)
        for name, columns in architecture.slices.items()
    }
    other.load_state_dict(tensors)
    x = drawn(10, 4)
    assert isinstance(other, nn.Module) and not torch.equal(moved, w)
    torch.testing.assert_close(other(x), module(x), rtol=1e-10, atol=1e-10)
