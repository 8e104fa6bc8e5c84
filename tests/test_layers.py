"""Asymmetric layers: which constants they have, that they are the same everywhere, and what they compute."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wsflow
from wsflow import Architecture, WeightArray
from wsflow.architecture.fixed_entries import array_of, layers_that_differ
from wsflow.architecture.program import Constant
from wsflow.exceptions import InvalidInputError
from wsflow.layers import AsymmetricConv1d, AsymmetricConv2d, AsymmetricLinear, FiGLU, asymmetrize
from wsflow.layers.constants import default_pattern, fixed_entries, normal_constants

LAYERS = {
    "linear": lambda **k: AsymmetricLinear(12, 8, **{"n_fixed": 3, **k}),
    "conv1d": lambda **k: AsymmetricConv1d(6, 8, 3, **{"n_fixed": 3, **k}, padding=1),
    "conv2d": lambda **k: AsymmetricConv2d(6, 8, (3, 2), **{"n_fixed": 3, **k}, stride=2),
}
INPUTS = {"linear": (5, 12), "conv1d": (5, 6, 7), "conv2d": (5, 6, 7, 7)}
# SHA-256 of constants and masks, which no machine and no version may change
PINNED = {
    "constants": "7174bb00a27615a4c48e5d0303c14e15d58ab8e6e1c02d3ee4e466319cbcdf68",
    "mask": "84e02b5da8ed75dfa3bf979e039e970d37b975b9d1b475389c5b2d270a763a33",
}
DIGESTS = """
import hashlib
from wsflow.layers.constants import fixed_entries, normal_constants
constants, mask = normal_constants((40, 30), 0.5, 7, "body.3"), fixed_entries(40, 30, 4, 7, "body.3")
print(*(hashlib.sha256(x.numpy().tobytes()).hexdigest() for x in (constants, mask)))
"""
WIDTHS, X = (6, 5, 4, 3), torch.zeros(2, 6)


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    a, b, c, d = WIDTHS
    return nn.Sequential(nn.Linear(a, b), activation(), nn.Linear(b, c), activation(), nn.Linear(c, d))


@cache
def architecture(seed: int) -> Architecture:
    return Architecture.from_module(asymmetrize(mlp(), X, seed=seed), X)


@pytest.mark.parametrize("hashseed", ["0", "1"])
def test_constants_are_bit_equal_in_every_process(hashseed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hashseed}
    found = subprocess.run([sys.executable, "-c", DIGESTS], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == list(PINNED.values())


def test_constants_are_normal() -> None:
    values = normal_constants((300, 300), 2.0, 0, "a").double()
    # standard errors of the moments of 90,000 numbers
    assert abs(values.mean()) < 4 * 2 / 300
    assert abs(values.std() - 2) < 4 * 2 / (2**0.5 * 300)
    assert abs((values / 2).pow(4).mean() - 3) < 4 * 96**0.5 / 300
    assert len(values.unique()) > 89_000


def test_seeds_and_names_change_the_constants() -> None:
    drawn = [normal_constants((4, 4), 1.0, seed, name) for seed in (0, 1) for name in ("a", "b")]
    assert not any(torch.equal(one, other) for i, one in enumerate(drawn) for other in drawn[:i])


@pytest.mark.parametrize(("rows", "columns", "n_fixed"), [(6, 4, 2), (20, 6, 3), (5, 30, 1), (30, 30, 29)])
def test_rows_fix_different_entries(rows: int, columns: int, n_fixed: int) -> None:
    mask = fixed_entries(rows, columns, n_fixed, 0, "a")
    assert (mask.sum(1) == n_fixed).all()
    assert len(mask.unique(dim=0)) == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((7, 4, 2), "7 outputs of the layer 'a'.* in 6 ways"),
        ((2, 4, 0), "layer 'a', at least one is fixed.* from 1 to 3, got 0"),
        ((2, 4, 4), "from 1 to 3"),
    ],
)
def test_masks_that_do_not_tell_rows_apart_are_refused(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fixed_entries(*arguments, 0, "a")


def test_the_default_adds_the_same_variance_at_every_width() -> None:
    for rows, columns, kernel in ((512, 512, 1), (32, 32, 1), (8, 16, 9), (30, 8, 1)):
        n_fixed, kappa = default_pattern(rows, columns, kernel)
        assert n_fixed * kernel * kappa**2 == pytest.approx(64)
    with pytest.raises(ValueError, match="cannot all have other fixed entries"):
        default_pattern(4, 2)
    with pytest.raises(ValueError, match="standard deviation kappa from 0 on"):
        default_pattern(4, 8, kappa=-1.0)


@pytest.mark.parametrize("kappa", [None, 0.0])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_with_its_constants_and_trains_the_rest(name: str, kappa: float | None) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name](kappa=kappa, seed=3, name="0")
    raw, mask = dict(layer.named_parameters())["weight"], layer.fixed.expand(layer.weight.shape)
    constants = torch.zeros(raw.shape) if layer.constants is None else layer.constants
    with torch.no_grad():
        raw.copy_(torch.randn(raw.shape))
    plain: nn.Module = copy.deepcopy(layer)
    plain.__class__ = type(layer).__mro__[2]
    with torch.no_grad():
        plain.weight.copy_(torch.where(mask, constants, raw))
    x = torch.randn(INPUTS[name])
    assert torch.equal(layer(x), plain(x))
    layer(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert torch.equal(raw.grad, torch.where(mask, 0.0, plain.weight.grad))
    assert (layer.constants is None) == (kappa == 0.0)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_keep_their_constants_when_copied_saved_and_reset(name: str) -> None:
    layer = LAYERS[name](seed=3, name="0")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other.weight, layer.weight)
    other = LAYERS[name](seed=4, name="0")
    assert not torch.equal(other.constants, layer.constants)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)
    before = layer.weight
    layer.reset_parameters()
    mask = layer.fixed.expand(before.shape)
    assert torch.equal(before[mask], layer.weight[mask])
    assert not torch.equal(before[~mask], layer.weight[~mask])
    assert torch.equal(dict(layer.named_parameters())["weight"], layer.weight)


def test_figlu_is_a_gate_by_a_fixed_matrix() -> None:
    layer, x = FiGLU(6, seed=1, name="g"), torch.randn(4, 6)
    gate = normal_constants((6, 6), (512 / 6) ** 0.5, 1, "g")
    assert torch.equal(layer.gate, gate)
    assert torch.allclose(layer(x), torch.sigmoid(x @ gate.T) * x)
    for shape in ((4, 6), (4, 6, 3), (4, 6, 3, 2), (4, 6, 1, 2, 2)):
        x = torch.randn(shape)
        expected = layer(x.movedim(1, -1)).movedim(-1, 1)
        assert torch.allclose(FiGLU(6, dim=1, seed=1, name="g")(x), expected, atol=1e-6)
    for wrong in ({"dim": 2}, {"kappa": 0.0}):
        with pytest.raises(ValueError, match="FiGLU "):
            FiGLU(6, **wrong)


def test_asymmetrize_keeps_the_weights_that_are_not_fixed() -> None:
    net = mlp()
    result, anchored = asymmetrize(net, X, n_fixed=2, kappa=1.0), asymmetrize(net, X, n_fixed=2, kappa=1.0, anchor=True)
    assert [type(layer) for layer in anchored] == [type(layer) for layer in net]
    for plain, layer, anchor in zip(net[::2], result[::2], anchored[::2], strict=True):
        assert isinstance(layer, AsymmetricLinear)
        assert torch.equal(layer.weight, torch.where(layer.fixed, layer.constants, plain.weight))
        assert torch.equal(layer.weight, anchor.weight)
        assert torch.equal(layer.bias, plain.bias)
    assert not torch.equal(result[0].weight, net[0].weight), "the module that was given is as it was"
    assert len(list(anchored.buffers())) == 0


def test_asymmetrize_takes_numbers_by_layer() -> None:
    result = asymmetrize(mlp(), X, n_fixed={"0": 3, "4.weight": 0})
    assert result[0].n_fixed == 3
    assert type(result[4]) is nn.Linear
    with pytest.raises(ValueError, match=r"a layer 'x', which is none of '0', '2', '4'"):
        asymmetrize(mlp(), X, n_fixed={"x": 3})
    with pytest.raises(
        ValueError,
        match=r"of the layer '2', at least one is fixed.* from 1 to 4",
    ):
        asymmetrize(mlp(), X, n_fixed={"2": 5})
    with pytest.raises(ValueError, match="put into weights or activations, got 'both'"):
        asymmetrize(mlp(), X, kind="both")


def test_asymmetrize_replaces_activations() -> None:
    result = asymmetrize(mlp(nn.Tanh), X, kind="activations", seed=2)
    assert [type(layer) for layer in result] == [nn.Linear, FiGLU, nn.Linear, FiGLU, nn.Linear]
    assert (result[1].features, result[3].features, result[3].name, result[3].seed) == (5, 4, "3", 2)
    with pytest.raises(InvalidInputError, match="no module of an elementwise activation"):
        asymmetrize(nn.Linear(3, 2), torch.zeros(2, 3), kind="activations")


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 10, 0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


def test_attention_has_constants_that_torchs_fused_kernels_read_too() -> None:
    x = torch.randn(2, 4, 5)
    result = asymmetrize(Encoder(), x)
    attention = result.encoder.self_attn
    entries = attention.parametrizations.in_proj_weight[0]
    assert torch.equal(attention.in_proj_weight[entries.fixed], entries.constants[entries.fixed])
    for parameter in result.parameters():
        # as after weight decay: what is kept in the constants' places has no effect
        parameter.data.mul_(0.5)
    assert torch.equal(attention.in_proj_weight[entries.fixed], entries.constants[entries.fixed])
    expected = result(x).detach()
    with torch.no_grad():
        assert torch.allclose(result.eval()(x), expected, atol=1e-5)


def test_rows_of_asymmetric_networks_hold_the_constants_and_run() -> None:
    net = asymmetrize(mlp(), X, seed=0)
    for parameter in net.parameters():
        parameter.data.mul_(0.5)
    table = architecture(0)
    weights = WeightArray.from_modules([net, net], table)
    assert sum(layer.fixed.sum() for layer in net[::2]) == len(table.fixed_columns)
    assert np.array_equal(np.asarray(weights)[0, table.fixed_columns], table.fixed_values)
    x = torch.randn(7, 6)
    assert torch.allclose(wsflow.running.forward(torch.from_numpy(np.asarray(weights)), table, x)[1], net(x), atol=1e-6)
    assert Architecture.from_json(table.to_json()).fixed_entries.keys() == {"0.weight", "2.weight", "4.weight"}
    assert torch.allclose(weights.to_modules()[0](x), net(x), atol=1e-6)


def test_networks_of_different_constants_are_refused_by_name() -> None:
    one, two = architecture(0), architecture(1)
    assert one != two
    assert layers_that_differ(one, two) == ("0", "2", "4")
    assert layers_that_differ(one, one) == layers_that_differ(one, Architecture.mlp(WIDTHS)) == ()
    a, b = (WeightArray(np.zeros((2, table.n_weights)), table) for table in (one, two))
    named = "different constants in the layers '0', '2', '4'"
    for mix in (lambda: wsflow.concatenate([a, b]), lambda: WeightArray.concatenate([a, b])):
        with pytest.raises(InvalidInputError, match=named):
            mix()
    with pytest.raises(InvalidInputError, match=named):
        wsflow.interpolate(a, b, np.linspace(0, 1, 3))
    aligner = wsflow.PermutationAligner().fit(a)
    with pytest.raises(InvalidInputError, match=named):
        aligner.transform(b)
    nets = [asymmetrize(mlp(), X, seed=seed) for seed in (0, 1)]
    with pytest.raises(InvalidInputError, match="seed=1"):
        WeightArray.from_modules(nets, example_input=X)
    with pytest.raises(InvalidInputError, match=r"has other constants in '0\.fixed'"):
        WeightArray.from_modules([nets[1]], one)
    with pytest.raises(ValueError, match=r"The template has other constants in '0\.fixed'"):
        a.to_modules(nets[1])


def test_the_pinned_constants_are_those_of_this_process() -> None:
    drawn = normal_constants((40, 30), 0.5, 7, "body.3"), fixed_entries(40, 30, 4, 7, "body.3")
    assert [hashlib.sha256(x.numpy().tobytes()).hexdigest() for x in drawn] == list(PINNED.values())


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_numbers_of_constants_are_those_of_torch(dtype):
    x = torch.tensor([[1.5, -0.25, 0.0], [3e-5, -2.0, 7.0]]).to(dtype)
    constant = Constant("c", str(dtype).removeprefix("torch."), (2, 3), x.view(torch.uint8).numpy().tobytes())
    np.testing.assert_array_equal(array_of(constant), x.double().numpy() if x.is_floating_point() else x.numpy())
