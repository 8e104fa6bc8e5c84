"""The public strategies draw what they promise, shrink to what matters, and the check fails when it should."""

from __future__ import annotations

import subprocess
import sys

import handwritten
import numpy as np
import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st

from wsflow.activations import ACTIVATIONS
from wsflow.architecture import Architecture
from wsflow.running import forward
from wsflow.symmetry.actions import Action
from wsflow.testing import (
    actions,
    architectures,
    assert_function_preserved,
    function_deviation,
    rounding_error,
    weights,
)
from wsflow.weights import WeightArray

ARCHITECTURE = Architecture.mlp([4, 5, 3, 2])
QUICK = settings(max_examples=2000, derandomize=True, database=None)


def moves(action: Action) -> set[str]:
    """The groups that an action permutes and the wires that it scales."""
    permuted = {name for name, p in action.permutations.items() if (p != torch.arange(p.shape[1])).any()}
    return permuted | {f"scaled {name}" for name, s in action.scales.items() if (s != 1).any()}


@given(architectures(max_width=4, max_depth=2, min_depth=0, activations=["tanh", "relu"]))
def test_architectures_keep_to_their_limits(architecture):
    assert 0 <= len(architecture.groups) <= 2
    assert all(group.size <= 4 for group in architecture.groups)
    assert {layer.kind for layer in architecture.layers} <= {"linear", "tanh", "relu"}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_drawn(activation):
    found = find(architectures(), lambda a: a.layers[1].kind == activation, settings=QUICK)
    assert found.layers[1].kind == activation
    # the smallest example is what is left of it
    assert found.n_weights <= 4


@given(data=st.data(), n=st.integers(1, 5), dtype=st.sampled_from([np.float32, np.float64]))
def test_weights_are_finite_networks(data, n, dtype):
    w = data.draw(weights(ARCHITECTURE, n=n, dtype=dtype))
    assert type(w) is WeightArray
    assert w.shape == (n, ARCHITECTURE.n_weights)
    assert w.dtype == dtype
    assert np.isfinite(w).all()


def dead(w: WeightArray) -> bool:
    """Whether a first-layer neuron has no incoming weights, in a network that has others."""
    neurons = np.concatenate([np.asarray(w)[:, :20].reshape(-1, 5, 4), np.asarray(w)[:, 20:25, None]], axis=2)
    silent = (neurons == 0).all(axis=2)
    return bool((silent.any(axis=1) & ~silent.all(axis=1)).any())


def repeated(w: WeightArray) -> bool:
    """Whether two first-layer neurons are equal and not zero."""
    rows = np.asarray(w)[:, :20].reshape(-1, 5, 4)
    return bool(((rows[:, 0] == rows[:, -1]).all(axis=1) & rows[:, 0].any(axis=1)).any())


@pytest.mark.parametrize(
    "condition",
    [dead, repeated, lambda w: (np.asarray(w) == 0).all(axis=1).any(), lambda w: np.abs(np.asarray(w)).max() > 50],
    ids=["dead", "repeated", "zero", "far apart"],
)
def test_degenerate_weights_are_drawn_and_can_be_left_out(condition):
    assert condition(find(weights(ARCHITECTURE), condition, settings=QUICK))
    for seed in range(20):
        w = find(weights(ARCHITECTURE, degenerate=False), lambda w, s=seed: abs(w[0, 0]) * 20 > s, settings=QUICK)
        assert not condition(w)


@given(weights(ARCHITECTURE, n=50, scale=3.0, degenerate=False))
def test_weights_have_the_scale(w):
    assert np.std(w) == pytest.approx(3, rel=0.15)


@given(data=st.data())
def test_actions_are_group_elements(data):
    architecture = data.draw(st.sampled_from([ARCHITECTURE, handwritten.Attention.architecture()]))
    action = data.draw(actions(architecture, n=4))
    assert len(action) == 4
    w = np.random.default_rng(0).standard_normal((4, architecture.n_weights))
    np.testing.assert_allclose(action.inverse()(action(w)), w, rtol=1e-12, atol=1e-12)


def test_actions_of_every_kind_are_drawn():
    for wanted in ({"hidden1"}, {"hidden2"}, {"scaled hidden1"}, {"hidden1", "scaled hidden2"}, set()):
        found = find(actions(ARCHITECTURE), lambda a, w=wanted: moves(a) >= w, settings=QUICK)
        # and shrink to what was asked for
        assert moves(found) == wanted


def test_nested_groups_are_drawn_with_and_without_their_parents():
    architecture = handwritten.Attention.architecture()
    for wanted in ({"heads"}, {"qk"}, {"vo"}):
        find(actions(architecture), lambda a, w=wanted: moves(a) >= w, settings=QUICK)


def test_a_wrong_symmetry_is_found():
    """What the strategies are for: ReLU has no sign flips, and a table that says so is caught."""
    claimed = Architecture.mlp([3, 4, 2], "tanh")

    @settings(max_examples=50, derandomize=True, database=None)
    @given(st.data())
    def check(data):
        w = data.draw(weights(claimed))
        moved = data.draw(actions(claimed))(w)
        really = Architecture.mlp([3, 4, 2], "relu")
        assert_function_preserved(WeightArray(w, really), WeightArray(moved, really))

    with pytest.raises(AssertionError, match="is another function"):
        check()


def test_the_deviation_is_relative_to_the_largest_output():
    architecture = Architecture.mlp([1, 1], bias=False)
    before, after = (WeightArray(np.array(w), architecture) for w in ([[2.0], [4.0]], [[2.0], [5.0]]))
    assert function_deviation(before, after, inputs=[[1.0], [-3.0]]).tolist() == [0.0, 0.25]
    with pytest.raises(AssertionError, match=r"Network 1 of 2 .* differ by 0\.25 of .* 0\.01 is allowed"):
        assert_function_preserved(before, after, rtol=0.01)
    assert_function_preserved(before, after, rtol=0.25, inputs=[[1.0]])


def test_nan_and_a_network_that_was_zero_are_deviations():
    architecture = Architecture.mlp([1, 1], bias=False)
    for before, after in (([[1.0]], [[np.nan]]), ([[0.0]], [[1e-300]])):
        with pytest.raises(AssertionError, match="is another function"):
            assert_function_preserved(*(WeightArray(np.array(w), architecture) for w in (before, after)))
    zero = WeightArray(np.zeros((1, 1)), architecture)
    assert_function_preserved(zero, zero)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rounding_is_within_its_error_and_wrong_symmetries_are_far_beyond(activation, dtype):
    architecture = Architecture.mlp([5, 6, 6, 4, 3], activation)
    inputs = torch.randn(16, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    w = torch.randn(100, architecture.n_weights, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    if dtype == torch.float64:
        # parameters of the first fifty are up to e^12 times larger than others
        for seed, columns in enumerate(architecture.slices.values()):
            w[:50, columns] *= torch.exp(12 * torch.rand(50, 1, generator=torch.Generator().manual_seed(seed)) - 6)
    action = Action.random(architecture, 100, torch.Generator().manual_seed(4))
    w = w.to(dtype)
    moved = action(w)

    def run(rows):
        return forward(rows, architecture, inputs).flatten(1)

    def change(rows):
        return (run(rows) - run(w)).abs().amax(1)

    error = rounding_error(run, w) + rounding_error(run, moved)
    assert (change(moved) <= error / 3).all()
    # the first layer's neurons are moved, and those behind it do not follow
    first = architecture.slices[architecture.parameters[0].name]
    swapped = w.clone()
    swapped[:, first] = w[:, first].reshape(100, 6, 5).roll(1, 1).flatten(1)
    ratio = change(swapped)[50:] / error[50:]
    assert ratio.min() > (1e3 if dtype == torch.float32 else 1e10)


def test_other_shapes_and_architectures_are_other_networks():
    w = WeightArray(np.ones((2, ARCHITECTURE.n_weights)), ARCHITECTURE)
    with pytest.raises(AssertionError, match="different networks"):
        assert_function_preserved(w, w[:1])
    with pytest.raises(AssertionError, match="different networks"):
        assert_function_preserved(w, WeightArray(w, Architecture.mlp([4, 5, 3, 2], "tanh")))


def test_modules_run_networks_that_are_not_sequential(generator):
    modules = [handwritten.randomised(handwritten.Residual(), generator) for _ in range(3)]
    w = WeightArray.from_modules(modules, architecture=handwritten.Residual.architecture())
    inputs = torch.randn(7, 3, generator=generator)
    moved = Action.random(w.architecture, 3, generator)(w)
    assert_function_preserved(w, moved, inputs=inputs, module=modules[0])
    with pytest.raises(AssertionError, match="is another function"):
        assert_function_preserved(w, w.like(2 * np.asarray(w)), inputs=inputs, module=modules[0])
    with pytest.raises(ValueError, match="inputs= and module="):
        assert_function_preserved(w, moved)


def test_without_hypothesis_it_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import wsflow.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "pip install hypothesis" in done.stderr.splitlines()[-1]
