"""Canonical forms: one point of each orbit of scalings, signs, flips and phases, and the same point twice.

WSFLOW_EXAMPLES=2000 moves this many random networks.
"""

from __future__ import annotations

import os
from itertools import pairwise

import handwritten
import numpy as np
import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from test_symmetry import ARCHITECTURES as SPACES
from test_symmetry import drawn, incoming, linear_stream, mixed, run_linear_stream
from torch import Tensor

from wsflow.activations import ACTIVATIONS, FLIP, PHASE, POSITIVE, SIGN
from wsflow.architecture import Architecture, Layer
from wsflow.estimators.canonicalizer import ScaleCanonicalizer
from wsflow.running import forward, unflatten
from wsflow.running.execution import run_module
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import balanced_scales, canonical_action
from wsflow.symmetry.canonical.incoming import incoming_weights
from wsflow.symmetry.canonical.signs import orientation
from wsflow.symmetry.centring import centred
from wsflow.testing import actions, architectures, assert_function_preserved, rounding_error, weights
from wsflow.weights import WeightArray

EXAMPLES = int(os.environ.get("WSFLOW_EXAMPLES", "400"))
FORMS = ["unit", "balanced"]
MOVING = [name for name, row in ACTIVATIONS.items() if row.scalings]


MANY = {
    **{f"mlp {name}": Architecture.mlp([4, 6, 5, 3], name) for name in MOVING},
    **SPACES,
    "batch norm": handwritten.BatchNormed.architecture(True),
    "batch norm at eps 0": handwritten.BatchNormed.architecture(False),
    "conv": handwritten.Convolutional.architecture(),
}

# at eps 0 nothing but statistics consumes the wire before a batch norm: it has no balance, and keeps unit norm
SCALED = [
    name
    for name, architecture in MANY.items()
    if any(POSITIVE in wire.scalings for wire in architecture.wires) and name != "batch norm at eps 0"
]


def random_action(architecture: Architecture, n: int, seed: int = 1) -> Action:
    """A random group element for each of n networks."""
    return Action.random(architecture, n, torch.Generator().manual_seed(seed))


def still(action: Action) -> Action:
    """The same group elements without their permutations."""
    return Action(action.architecture, {}, action.scales, action.phases)


def canonical(w: Tensor, architecture: Architecture, form: str, bias: str = "inside", signs: bool = True) -> Tensor:
    """The canonical networks of rows of weights."""
    return canonical_action(w, architecture, bias, signs, form)(w)


def largest(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((a - b).abs().max() / b.abs().max())


def assert_one_point(w: Tensor, action: Action, form: str) -> None:
    """Fail unless networks and moved ones have one canonical form, up to permutations and rounding."""

    def canon(x: Tensor) -> Tensor:
        return canonical(x, action.architecture, form)

    moved = action(w)
    permuted = Action(action.architecture, action.permutations, {})(canon(w))
    error = rounding_error(canon, w) + rounding_error(canon, moved)
    assert ((canon(moved) - permuted).abs().amax(1) <= error).all()


class TestCanonicalForms:
    """Constant on orbits, idempotent, the same function."""

    @pytest.mark.parametrize("bias", ["inside", "outside"])
    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", MANY)
    def test_one_point_for_each_orbit(self, name, form, bias):
        architecture = MANY[name]
        w = drawn(6, architecture.n_weights)
        action = random_action(architecture, 6)
        one, two = (canonical(x, architecture, form, bias) for x in (w, action(w)))
        # permutations remain
        assert largest(two, Action(architecture, action.permutations, {})(one)) < 1e-10
        assert largest(canonical(one, architecture, form, bias), one) < 1e-12
        if len(action) and any(wire.scalings for wire in architecture.wires):
            assert largest(one, w) > 1e-2

    @pytest.mark.parametrize("form", FORMS)
    @given(data=st.data())
    @settings(max_examples=30)
    def test_the_function_is_kept_whatever_the_weights(self, form, data):
        architecture = data.draw(st.one_of(architectures(activations=MOVING), st.just(mixed())))
        w = data.draw(weights(architecture))
        done = canonical_action(torch.from_numpy(np.array(w)), architecture, form=form)(w)
        assert np.isfinite(done).all()
        assert_function_preserved(w, done)

    @pytest.mark.parametrize("form", FORMS)
    @given(data=st.data())
    @settings(max_examples=30)
    def test_orbits_drawn_at_random(self, form, data):
        architecture = data.draw(st.one_of(architectures(activations=MOVING), st.just(mixed())))
        w = torch.from_numpy(np.array(data.draw(weights(architecture, degenerate=False))))
        action = data.draw(actions(architecture, log_scale=1.5))
        assert_one_point(w, action, form)

    @pytest.mark.slow
    @given(data=st.data(), form=st.sampled_from(FORMS))
    @settings(max_examples=EXAMPLES)
    def test_random_architectures(self, data, form):
        architecture = data.draw(st.one_of(architectures(), st.just(mixed())))
        w = data.draw(weights(architecture, degenerate=False))
        action = data.draw(actions(architecture))
        moved = action(w)
        assert_function_preserved(w, moved)
        np.testing.assert_allclose(action.inverse()(moved), w, rtol=1e-10, atol=1e-10)
        assert_one_point(torch.from_numpy(np.array(w)), action, form)

    def test_of_handwritten_modules(self):
        for kind, shape in ((handwritten.Residual, (7, 3)), (handwritten.Attention, (7, 4, 6))):
            architecture = kind.architecture()
            module = kind().double().eval()
            w, x = drawn(4, architecture.n_weights), drawn(*shape, seed=1)
            for form in FORMS:
                rows = [w, canonical(w, architecture, form)]
                before, after = (run_module(unflatten(r, architecture), module, x) for r in rows)
                assert largest(after, before) < 1e-12

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        ("build", "example"),
        [
            (zoo.siren, torch.zeros(3, 2)),
            (zoo.GPT, torch.zeros(2, 5, dtype=torch.long)),
            (zoo.Sigmoidal, torch.zeros(3, 3)),
        ],
        ids=["siren", "gpt", "sigmoid"],
    )
    def test_of_traced_modules(self, build, example, form):
        architecture = Architecture.from_module(build().eval(), example)
        w = drawn(3, architecture.n_weights)
        action = random_action(architecture, 3)
        one, two = (canonical(x, architecture, form) for x in (w, action(w)))
        assert largest(two, Action(architecture, action.permutations, {})(one)) < 1e-10
        assert largest(canonical(one, architecture, form), one) < 1e-12
        inputs = example if not example.is_floating_point() else drawn(*example.shape, seed=1)
        assert largest(forward(one, architecture, inputs), forward(w, architecture, inputs)) < 1e-10

    def test_of_a_stream_that_adds_to_itself(self):
        architecture = linear_stream()
        w = drawn(4, architecture.n_weights)
        for form in FORMS:
            assert largest(run_linear_stream(canonical(w, architecture, form)), run_linear_stream(w)) < 1e-12

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("kind", [None, POSITIVE])
    def test_dead_and_zero_networks_are_finite(self, form, kind):
        architecture = Architecture.mlp([4, 6, 5, 3], "relu" if kind else "sine")
        w = drawn(3, architecture.n_weights)
        w[0] = 0.0
        w[1, :30] = 0.0
        w[2, [0, 1, 2, 3, 24]] = 0.0
        done = canonical(w, architecture, form)
        assert done.isfinite().all()
        assert torch.equal(done[0], w[0])
        assert largest(canonical(done, architecture, form), done) < 1e-12


class TestConventions:
    """What a canonical form is, beside being one."""

    def test_phases_are_within_half_a_period(self):
        architecture = mixed()
        w = drawn(10, architecture.n_weights)
        w[:, architecture.slices["2.bias"]] *= 20
        done = canonical(w, architecture, "unit")
        reach = np.pi / 3.0 / 2
        biases = done[:, architecture.slices["2.bias"]]
        assert biases.abs().max() <= reach < w[:, architecture.slices["2.bias"]].abs().max()

    @pytest.mark.parametrize("form", FORMS)
    def test_a_reference_that_has_decided_keeps_its_signs(self, form):
        architecture = mixed()
        w = drawn(10, architecture.n_weights)
        action = canonical_action(w, architecture, signs=False, form=form)
        assert all((scale > 0).all() for scale in action.scales.values())
        signs = {wire.name for wire in architecture.wires if wire.scalings & {SIGN, FLIP}}
        decided = canonical_action(w, architecture, form=form).scales
        assert signs == {name for name, scale in decided.items() if (scale < 0).any()}

    def test_phases_do_not_depend_on_signs(self):
        architecture = Architecture.mlp([4, 6, 5, 3], "sine")
        w = 3 * drawn(10, architecture.n_weights)
        flips = {name: s for name, s in random_action(architecture, 10).scales.items() if (s < 0).any()}
        action = Action(architecture, {}, flips)
        one, two = (canonical(x, architecture, "unit", signs=False) for x in (w, action(w)))
        assert largest(two, action(one)) < 1e-12

    def test_streams_are_decided_by_what_comes_first(self):
        order = {d.wire.name: [p.parameter.name for p in d.producers] for d in incoming_weights(MANY["residual"])}
        assert list(order) == ["stream", "hidden1", "hidden2"]
        assert order["stream"] == ["embed.weight", "embed.bias", "down1.bias", "down2.bias"]
        assert order["hidden2"] == ["up2.weight", "up2.bias"]
        w = drawn(5, MANY["residual"].n_weights)
        done = canonical(w, MANY["residual"], "unit")
        for wire in MANY["residual"].wires:
            norms = incoming(done, MANY["residual"], wire).norm(dim=-1)
            assert largest(norms, torch.ones_like(norms)) < 1e-12

    def test_a_bias_that_flips_change_waits_for_them(self):
        architecture = Architecture.mlp([4, 3, 5, 2], "sigmoid")
        assert {p.parameter.name: p.depends_on for d in incoming_weights(architecture) for p in d.producers} == {
            "0.weight": frozenset(),
            "0.bias": frozenset(),
            "2.weight": {"hidden1"},
            "2.bias": {"hidden1"},
        }

    def test_the_scales_of_a_norm_are_weights_and_its_shift_is_a_bias(self):
        architecture = MANY["batch norm"]
        after = architecture.wire("after")
        w = drawn(4, architecture.n_weights)
        inside, outside = (canonical(w, architecture, "unit", bias) for bias in ("inside", "outside"))
        gamma, beta = (architecture.slices[f"norm.{name}"] for name in ("weight", "bias"))
        norms = (inside[:, gamma].square() + inside[:, beta].square()).sqrt()
        assert largest(norms, torch.ones_like(norms)) < 1e-12
        assert largest(outside[:, gamma].abs(), torch.ones_like(norms)) < 1e-12
        assert incoming(w, architecture, after, "outside").shape == (4, 6, 1)

    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=8), st.permutations(range(8)))
    def test_orientation_is_odd_and_blind_to_the_order(self, values, order):
        row = torch.tensor(values, dtype=torch.float64)
        sign = orientation(row)
        assert torch.equal(orientation(row[[i for i in order if i < len(row)]]), sign)
        symmetric = sorted(values) == sorted(-value for value in values)
        assert float(orientation(-row)) == (float(sign) if symmetric else -float(sign))
        assert not symmetric or float(sign) == 1

    def test_orientation_survives_rounding_and_extreme_scales(self):
        row = torch.tensor([0.1, 0.2, -0.3, 0.0], dtype=torch.float64)
        assert float(row.sum()) != 0.0
        for scale in (1e-200, 1.0, 1e200):
            assert orientation(scale * row) == -1
            assert orientation(-scale * row) == 1
        assert orientation(torch.empty(3, 0)).tolist() == [1, 1, 1]


class TestBalanced:
    """The smallest sum of squares of an orbit."""

    def test_the_closed_form_of_one_neuron(self):
        architecture = Architecture.mlp([1, 1, 1], bias=False)
        w = torch.tensor([[0.5, 8.0], [-3.0, 3.0]], dtype=torch.float64)
        # s^4 = out^2 / in^2
        assert largest(balanced_scales(w, architecture)["hidden1"], torch.tensor([[4.0], [1.0]])) < 1e-14
        cubic = Architecture.sequential(
            [Layer("linear", "a", 1, 1, False), Layer("relu_power", "b", argument=3), Layer("linear", "c", 1, 1, False)]
        )
        # in^2 s^2 + out^2 s^-6 is smallest at s^8 = 3 out^2 / in^2
        found = balanced_scales(w[:1], cubic)["hidden1"]
        assert float(found) == pytest.approx((3 * 64 / 0.25) ** (1 / 8), rel=1e-13)

    @pytest.mark.parametrize(("kind", "degree"), [("relu", 1), ("identity", 1), ("square", 2), ("relu_power", 2)])
    def test_incoming_and_outgoing_weights_balance(self, kind, degree):
        architecture = Architecture.mlp([4, 6, 5, 7, 3], kind)
        w = random_action(architecture, 10)(drawn(10, architecture.n_weights))
        layers = unflatten(canonical(w, architecture, "balanced"), architecture)
        for i, j in pairwise(range(0, 8, 2)):
            into = layers[f"{i}.weight"].square().sum(2) + layers[f"{i}.bias"].square()
            assert largest(into, degree * layers[f"{j}.weight"].square().sum(1)) < 1e-12

    @pytest.mark.parametrize("name", SCALED)
    def test_no_other_scales_have_a_smaller_sum_of_squares(self, name):
        architecture = MANY[name]
        w = drawn(5, architecture.n_weights)
        done = canonical(w, architecture, "balanced")
        counted = torch.ones(architecture.n_weights, dtype=torch.bool)
        counted[torch.from_numpy(architecture.statistic_columns)] = False
        for seed, size in ((0, 1.0), (1, 1e-2), (2, 1e-4)):
            logs = Action.random(architecture, 5, torch.Generator().manual_seed(seed), size)
            scales = {n: s.abs() for n, s in logs.scales.items() if POSITIVE in architecture.wire(n).scalings}
            other = Action(architecture, {}, scales)(done)
            sums = [rows[:, counted].square().sum(1) for rows in (done, other)]
            assert (sums[1] > sums[0] * (1 + 1e-12)).all()

    def test_scales_that_are_far_apart(self):
        architecture = Architecture.mlp([4, 6, 5, 7, 3])
        w = drawn(5, architecture.n_weights)
        far = Action.random(architecture, 5, torch.Generator().manual_seed(0), 12.0)
        assert largest(canonical(Action(architecture, {}, far.scales)(w), architecture, "balanced"),
                       canonical(w, architecture, "balanced")) < 1e-10  # fmt: skip

    def test_chunks_make_no_difference(self, monkeypatch):
        architecture = Architecture.mlp([4, 6, 5, 3])
        w = drawn(7, architecture.n_weights)
        whole = balanced_scales(w, architecture)
        monkeypatch.setattr("wsflow.symmetry.canonical.balanced._CHUNK", 100)
        for name, scale in balanced_scales(w, architecture).items():
            assert largest(scale, whole[name]) < 1e-13

    def test_a_wire_that_only_statistics_consume_keeps_unit_norm(self):
        architecture = MANY["batch norm at eps 0"]
        done = canonical(drawn(5, architecture.n_weights), architecture, "balanced")
        norms = incoming(done, architecture, architecture.wire("before")).norm(dim=-1)
        assert largest(norms, torch.ones_like(norms)) < 1e-12


class TestCharts:
    """In the centred chart an action is a gather and a multiplication, flips included."""

    @pytest.mark.parametrize("name", ["mlp sigmoid", "mlp hardsigmoid", "mlp normal_cdf", "mlp relu"])
    def test_flips_are_signs(self, name):
        architecture = MANY[name]
        w = drawn(8, architecture.n_weights)
        action = random_action(architecture, 8)
        plain = centred(w, architecture).gather(1, action.sources) * action.factors
        assert largest(centred(action(w), architecture), plain) < 1e-12
        assert torch.equal(centred(w, architecture), w) == (name == "mlp relu")


class TestScaleCanonicalizer:
    """The estimator: orbits collapse, nothing is lost, and what is dropped is said."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", [f"mlp {name}" for name in MOVING] + ["everything"])
    def test_an_orbit_without_permutations_collapses(self, name, form):
        architecture = MANY[name]
        w = drawn(1, architecture.n_weights).expand(20, -1)
        orbit = WeightArray(still(random_action(architecture, 20))(w).numpy(), architecture)
        done = ScaleCanonicalizer(form=form).fit_transform(orbit)
        assert np.ptp(orbit, axis=0).max() > 0.1
        assert np.ptp(done, axis=0).max() < 1e-10
        assert_function_preserved(orbit, done, rtol=1e-10)

    @pytest.mark.parametrize("form", FORMS)
    def test_twice_is_once_and_actions_undo(self, form):
        architecture = mixed()
        orbit = WeightArray(drawn(20, architecture.n_weights).numpy(), architecture)
        step = ScaleCanonicalizer(form=form).fit(orbit)
        done, action = step.transform(orbit, return_action=True)
        np.testing.assert_allclose(step.transform(done), done, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(action.inverse()(done), orbit, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(step.inverse_transform(done), done)
        assert step.output_change_ < 1e-12

    def test_the_balanced_form_keeps_what_a_unit_last_layer_drops_apart(self):
        architecture = Architecture.mlp([4, 6, 5, 3])
        orbit = WeightArray(drawn(20, architecture.n_weights).numpy(), architecture)
        step = ScaleCanonicalizer(form="balanced", last_layer="unit").fit(orbit)
        done = step.transform(orbit)
        norms = np.linalg.norm(np.asarray(done)[:, architecture.output_columns], axis=1)
        np.testing.assert_allclose(norms, 1, rtol=1e-12)
        back = np.linalg.norm(np.asarray(step.inverse_transform(done))[:, architecture.output_columns], axis=1)
        np.testing.assert_allclose(back, step.output_norm_, rtol=1e-12)
        assert step.output_change_ > 1e-3

    def test_an_unknown_form_is_refused(self):
        orbit = WeightArray(drawn(3, 23).numpy(), Architecture.mlp([4, 3, 2]))
        with pytest.raises(ValueError, match=r"'form' parameter of ScaleCanonicalizer must be .*'balanced'"):
            ScaleCanonicalizer(form="flat").fit(orbit)

    def test_float32_stays_float32(self):
        architecture = mixed()
        orbit = WeightArray(drawn(5, architecture.n_weights).float().numpy(), architecture)
        for form in FORMS:
            done = ScaleCanonicalizer(form=form).fit_transform(orbit)
            assert done.dtype == np.float32
            assert_function_preserved(orbit, done, rtol=1e-3)


def test_phases_are_claimed_somewhere():
    assert any(PHASE in wire.scalings for architecture in MANY.values() for wire in architecture.wires)
