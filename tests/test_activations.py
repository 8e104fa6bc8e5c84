"""The activation table: what a row claims holds to rounding, and what it does not claim fails."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsflow.activations import (
    ACTIVATIONS,
    FLIP,
    PHASE,
    POSITIVE,
    SIGN,
    SYMMETRIES,
    Activation,
    activation,
)
from wsflow.architecture import Architecture, Layer
from wsflow.running import forward, unflatten
from wsflow.running.modules import to_module
from wsflow.symmetry.actions import Action
from wsflow.testing import function_deviation
from wsflow.weights import WeightArray

KINDS = (POSITIVE, SIGN, FLIP, PHASE)
ROWS = [(name, kind) for name in ACTIVATIONS for kind in KINDS]
CLAIMED = [(name, kind) for name, kind in ROWS if kind in ACTIVATIONS[name].scalings]
UNCLAIMED = [(name, kind) for name, kind in ROWS if kind not in ACTIVATIONS[name].scalings]
ARGUMENTS = {"leaky_relu": 0.2, "relu_power": 3.0, "sine": 30.0, "softshrink": 0.3, "hardshrink": 0.3, "elu": 0.7}
Z = torch.linspace(-10, 10, 401, dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def broken(row: Activation, kind: str, argument: float | None = None, degree: int | None = None) -> float:
    """By how much a row misses what it has to fulfil for one kind of change, relative to its largest value."""
    k = row.exponent(argument) if degree is None else degree
    a = row(Z, argument)
    half_period = row.half_period(argument) or math.pi
    misses = {
        POSITIVE: lambda: row(1.7 * Z, argument) - 1.7**k * a,
        SIGN: lambda: row(-Z, argument) - (-1) ** k * a,
        FLIP: lambda: row(-Z, argument) - (row.flip - a),
        PHASE: lambda: row(Z + half_period, argument) + a,
    }
    return float(misses[kind]().abs().max() / a.abs().max())


@pytest.mark.parametrize(("name", "kind"), CLAIMED)
def test_what_a_row_claims_holds(name, kind):
    assert broken(ACTIVATIONS[name], kind) < 1e-12
    assert broken(ACTIVATIONS[name], kind, ARGUMENTS.get(name)) < 1e-12
    assert SYMMETRIES[kind].exactness == "exact"


@pytest.mark.parametrize(("name", "kind"), UNCLAIMED)
def test_what_a_row_does_not_claim_fails(name, kind):
    row = ACTIVATIONS[name]
    if kind == FLIP and SIGN in row.scalings and row.degree == 1:
        assert broken(row, FLIP) < 1e-12, "an odd function is a flip that leaves nothing: the row says sign"
        return
    amounts = (row.flip, 1.0) if kind == FLIP else (0.0,)
    assert all(broken(replace(row, flip=amount), kind) > 1e-3 for amount in amounts)


@pytest.mark.parametrize("name", [name for name, kind in CLAIMED if kind == POSITIVE])
@pytest.mark.parametrize("off", [-1, 1])
def test_a_wrong_degree_fails(name, off):
    row = ACTIVATIONS[name]
    assert broken(row, POSITIVE, degree=row.exponent() + off) > 1e-3


@pytest.mark.parametrize(("name", "amount"), [("sigmoid", 0.9), ("hardsigmoid", 2.0), ("normal_cdf", 0.0)])
def test_a_wrong_flip_fails(name, amount):
    assert broken(replace(ACTIVATIONS[name], flip=amount), FLIP) > 1e-3


@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if row.module])
def test_rows_compute_what_torch_computes(name):
    row = ACTIVATIONS[name]
    module = getattr(nn, row.module)().double()
    torch.testing.assert_close(row(Z), module(Z).detach(), rtol=1e-12, atol=1e-12)
    if row.argument:
        assert getattr(module, row.argument) == row.default
        other = getattr(nn, row.module)(**{row.argument: 0.3})
        torch.testing.assert_close(row(Z, 0.3), other(Z), rtol=1e-12, atol=1e-12)
        assert not torch.equal(row(Z, 0.3), row(Z))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu_power", Z.relu() ** 2),
        ("sine", Z.sin()),
        ("cosine", Z.cos()),
        ("erf", torch.erf(Z)),
        ("abs", Z.abs()),
        ("square", Z**2),
        ("arctan", Z.atan()),
        ("arcsinh", Z.asinh()),
        ("normal_cdf", torch.special.ndtr(Z)),
    ],
)
def test_rows_without_a_module(name, expected):
    assert not ACTIVATIONS[name].module
    torch.testing.assert_close(ACTIVATIONS[name](Z), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("function", "name"),
    [(name, name) for name in ("relu", "leaky_relu", "tanh", "erf", "sigmoid", "hardtanh", "abs", "gelu")]
    + [("sin", "sine"), ("cos", "cosine"), ("asinh", "arcsinh"), ("special_erf", "erf")]
    + [("_prelu_kernel", "prelu"), ("special_ndtr", "normal_cdf"), ("log_sigmoid", "logsigmoid")],
)
def test_rows_name_functions_of_torch(function, name):
    assert function in (ACTIVATIONS[name].function, *ACTIVATIONS[name].aliases)
    assert hasattr(torch.ops.aten, function) or hasattr(torch, function) or hasattr(F, function)


def test_every_row_says_what_it_is():
    for row in ACTIVATIONS.values():
        assert row.formula
        assert row.scalings <= set(KINDS)
        assert bool(row.flip) == (FLIP in row.scalings)
        assert bool(row.phase) == (PHASE in row.scalings)
    assert all(symmetry.formula and symmetry.source for symmetry in SYMMETRIES.values())
    with pytest.raises(ValueError, match="'swish' is not in wsflow's table"):
        activation("swish")


@pytest.mark.parametrize("power", [2.5, 0.0, -1.0])
def test_a_power_is_a_whole_number(power):
    layers = [Layer("linear", "a", 2, 3), Layer("relu_power", "b", argument=power), Layer("linear", "c", 3, 1)]
    with pytest.raises(ValueError, match=r"'power' of max\(z, 0\)\^k is a whole number"):
        Architecture.sequential(layers)


OBSTACLES = {"max pooling": lambda a: F.max_pool1d(a, 2), "zero padding": lambda a: F.pad(a, (1, 1))}


@pytest.mark.parametrize(("kind", "obstacle"), list(product(KINDS, OBSTACLES)))
def test_what_a_symmetry_does_not_commute_with(kind, obstacle):
    """T(p(a)) = p(T(a)) for what T does behind the activation and the operation p that follows it."""
    a = drawn(3, 4, 10)
    behind = {POSITIVE: lambda a: 1.7 * a, SIGN: torch.neg, FLIP: lambda a: 1 - a, PHASE: torch.neg}[kind]
    operation = OBSTACLES[obstacle]
    miss = float((behind(operation(a)) - operation(behind(a))).abs().max())
    assert miss > 0.1 if obstacle in SYMMETRIES[kind].breaks_with else miss < 1e-12


def test_weights_that_feed_a_norm_are_scale_free_up_to_its_eps():
    z = drawn(50, 6)
    for eps, low, high in ((0.0, 0.0, 1e-12), (1e-5, 1e-8, 1e-3)):
        one, two = (F.layer_norm(s * z, (6,), eps=eps) for s in (1.0, 2.0))
        assert low <= float((one - two).abs().max()) <= high
    assert SYMMETRIES["norm"].exactness == "eps"


def test_a_shift_of_the_logits_keeps_the_loss_alone():
    logits, classes = drawn(7, 3), torch.arange(7) % 3
    shifted = logits + 0.3
    torch.testing.assert_close(F.cross_entropy(logits, classes), F.cross_entropy(shifted, classes), rtol=1e-12, atol=0)
    assert not torch.allclose(logits, shifted)
    assert SYMMETRIES["softmax"].exactness == "loss"


def test_only_symmetries_of_activations_are_exact():
    assert {kind for kind, symmetry in SYMMETRIES.items() if symmetry.exactness == "exact"} == set(KINDS)


def network(*kinds: str, bias: bool = True, slopes: int = 0, last_bias: bool = True) -> Architecture:
    """Two hidden layers with these activations between linear layers."""
    layers: list[Layer] = []
    for i, (p, k) in enumerate([(4, 6), (6, 5), (5, 3)]):
        layers.append(Layer("linear", f"linear{i}", p, k, bias if i < 2 else bias and last_bias))
        for j, kind in enumerate(kinds if i < 2 else ()):
            outputs = k if kind == "prelu" and slopes else 0
            layers.append(Layer(kind, f"act{i}{j}", outputs=outputs, argument=ARGUMENTS.get(kind)))
    return Architecture.sequential(layers)


def deviation(architecture: Architecture) -> float:
    """By how much a random action on random networks changes their outputs, once all of it moves."""
    w = WeightArray(drawn(20, architecture.n_weights).numpy(), architecture)
    action = Action.random(architecture, 20, torch.Generator().manual_seed(1), 0.5)
    return float(function_deviation(w, action(w)).max())


CHAINS = {
    ("relu_power",): {POSITIVE},
    ("relu", "square"): {POSITIVE},
    ("square", "relu_power"): {POSITIVE},
    ("sine",): {SIGN, PHASE},
    ("sine", "tanh"): {SIGN, PHASE},
    ("tanh", "sine"): {SIGN},
    ("tanh", "sigmoid"): {FLIP},
    ("identity", "sigmoid", "identity"): {FLIP},
    ("sigmoid", "tanh"): set(),
    ("sigmoid", "sigmoid"): set(),
    ("cosine",): {PHASE},
    ("cosine", "square"): {PHASE},
    ("prelu", "relu"): {POSITIVE},
    ("relu", "gelu"): set(),
}


@pytest.mark.parametrize("kinds", CHAINS)
def test_activations_in_a_row(kinds):
    architecture = network(*kinds)
    assert [set(wire.scalings) for wire in architecture.wires] == 2 * [CHAINS[kinds]]
    assert deviation(architecture) < 1e-10
    assert Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize(("kind", "left"), [("sigmoid", set()), ("sine", {SIGN}), ("cosine", set())])
def test_without_a_bias_nothing_takes_flips_and_phases(kind, left):
    architecture = network(kind, bias=False)
    assert [set(wire.scalings) for wire in architecture.wires] == 2 * [left]
    assert deviation(architecture) < 1e-10


def test_a_flip_needs_the_bias_behind_alone():
    architecture = network("sigmoid", last_bias=False)
    assert [set(wire.scalings) for wire in architecture.wires] == [{FLIP}, set()]
    assert deviation(architecture) < 1e-10


def test_an_exponent_that_forgets_the_power_is_caught():
    architecture = network("relu_power")
    blocks = [replace(p, blocks=tuple(replace(b, wires=tuple((w, a, max(e, -1)) for w, a, e in b.wires))
                                      for b in p.blocks)) for p in architecture.parameters]  # fmt: skip
    assert deviation(replace(architecture, parameters=tuple(blocks))) > 1e-3


@pytest.mark.parametrize("slopes", [0, 1])
def test_prelu_learns_its_slopes(slopes):
    architecture = network("prelu", slopes=slopes)
    sizes = {p.name: p.size for p in architecture.parameters if p.name.startswith("act")}
    assert sizes == ({"act00.weight": 6, "act10.weight": 5} if slopes else {"act00.weight": 1, "act10.weight": 1})
    assert deviation(architecture) < 1e-12
    w = drawn(2, architecture.n_weights)
    state = {name: tensor[1] for name, tensor in unflatten(w, architecture).items()}
    x = drawn(7, 4, seed=1)
    torch.testing.assert_close(to_module(architecture, state)(x), forward(w, architecture, x)[1])


def test_prelu_with_a_wrong_number_of_slopes_is_refused():
    layers = [Layer("linear", "a", 2, 3), Layer("prelu", "b", outputs=2), Layer("linear", "c", 3, 1)]
    with pytest.raises(ValueError, match="'b' learns 2 numbers for 3 neurons"):
        Architecture.sequential(layers)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_networks_of_every_row_become_modules(name):
    architecture = network(name)
    w, x = drawn(2, architecture.n_weights), drawn(7, 4, seed=1)
    state = {key: tensor[1] for key, tensor in unflatten(w, architecture).items()}
    torch.testing.assert_close(to_module(architecture, state)(x), forward(w, architecture, x)[1])
