"""Reading modules: the groups that theory gives, certified; and what is refused.

WSFLOW_EXAMPLES=2000 reads this many random networks.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wsflow import Architecture, WeightArray
from wsflow.architecture import Block, DirectSum, Fixed, NeuronGroup, Parameter, Wire
from wsflow.architecture.restriction import restricted
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.running import unflatten
from wsflow.running.execution import run_module
from wsflow.running.program import ProgramModule
from wsflow.symmetry.actions import Action
from wsflow.tracing import certify
from wsflow.tracing.certificate import random_weights, without
from wsflow.tracing.modules import certified_architecture

EXAMPLES = int(os.environ.get("WSFLOW_EXAMPLES", "400"))
IMAGES = torch.zeros(2, 3, 8, 8)
TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 0, 1, 2, 3]])


@dataclass(frozen=True)
class Theory:
    """A network, and what is known of its symmetries.

    Groups are (size, size of the parent or 0), by number; signs counts the wires with signs, flips or phases.
    """

    module: Callable[[], nn.Module]
    inputs: Any
    groups: dict[tuple[int, int], int]
    positive: int
    signs: int


def _resnet20() -> dict[tuple[int, int], int]:
    # three blocks a stage: one group inside each block; the stream of a stage is the last one's, padded with as many
    return dict(Counter([(4, 0)] * 3 + [(8, 0)] * 3 + [(16, 0)] * 3 + [(4, 0), (4, 0), (8, 0)]))


def _resnet18() -> dict[tuple[int, int], int]:
    # two blocks a stage: one group inside each; a stream for each stage, as convolutions in the shortcuts part them
    return dict(Counter([(4, 0)] * 3 + [(8, 0)] * 3 + [(16, 0)] * 3 + [(32, 0)] * 3))


# positive: one wire for each ReLU layer, and one for each norm's gamma, v-o and q-k channels, layer scale
THEORY: dict[str, Theory] = {
    "MLP": Theory(
        lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)),
        torch.zeros(3, 4),
        {(5, 0): 1, (6, 0): 1},
        1,
        1,
    ),
    "VGG": Theory(zoo.vgg, IMAGES, {(6, 0): 1, (8, 0): 1, (10, 0): 1}, 3, 0),
    # positive: a gamma in front of the ReLU of each block (9); the streams' ReLUs (3, padded ones apart)
    # signs: in front of every batch norm: 9 inside and 1 + 9 into streams, of which two are in two parts
    "ResNet-20": Theory(lambda: zoo.ResNet20(3, 4), IMAGES, _resnet20(), 12, 28),
    "ResNet-18": Theory(lambda: zoo.ResNet18(4), torch.zeros(2, 3, 32, 32), _resnet18(), 12, 20),
    # the stream has a layer norm everywhere: no scale; 5 gammas; q-k and v-o of two blocks
    "ViT": Theory(zoo.ViT, IMAGES, {(12, 0): 1, (3, 0): 2, (4, 3): 4, (20, 0): 2}, 9, 9),
    "GPT": Theory(zoo.GPT, TOKENS, {(12, 0): 1, (3, 0): 2, (4, 3): 4, (16, 0): 2}, 8, 8),
    "torch's encoder layer": Theory(
        zoo.TorchTransformer, torch.zeros(2, 4, 5), {(8, 0): 1, (2, 0): 1, (4, 2): 2, (10, 0): 1}, 5, 4
    ),
    # queries come from one stream, keys and values from another
    "cross attention": Theory(
        zoo.CrossAttention,
        (torch.zeros(2, 4, 3), torch.zeros(2, 5, 4)),
        {(8, 0): 3, (2, 0): 1, (4, 2): 2},
        5,
        5,
    ),
    # rotary embeddings fix the channels of queries and keys; an RMS norm's stream has signs; gates have an open half
    "Llama": Theory(zoo.Llama, TOKENS, {(8, 0): 1, (2, 0): 1, (4, 2): 1, (12, 0): 1}, 5, 6),
    "normed heads": Theory(zoo.NormedHeads, torch.zeros(2, 5, 3), {(6, 0): 2, (2, 0): 1, (3, 0): 1, (3, 2): 1}, 4, 4),
    # tokens are fixed
    "Mixer": Theory(zoo.Mixer, IMAGES, {(6, 0): 1, (7, 0): 2, (9, 0): 2}, 3, 3),
    # gamma of the layer scale: with pwconv2's rows; the norm's gamma; the stream, as only linear maps consume it
    "ConvNeXt": Theory(zoo.ConvNeXt, IMAGES, {(6, 0): 1, (24, 0): 1}, 3, 3),
    "U-Net": Theory(zoo.UNet, torch.zeros(2, 1, 8, 8), {(4, 0): 1, (6, 0): 1, (5, 0): 1, (7, 0): 1}, 4, 0),
    # ReLU6 has no scale; a sign in front of each norm; the depthwise kernel makes up for nothing behind a ReLU6
    "separable": Theory(zoo.Separable, IMAGES, {(4, 0): 1, (6, 0): 1}, 0, 3),
    # a sign and a phase for each layer
    "SIREN": Theory(zoo.siren, torch.zeros(3, 2), {(6, 0): 1, (5, 0): 1}, 0, 4),
    "sigmoid": Theory(zoo.Sigmoidal, torch.zeros(3, 3), {(5, 0): 1, (4, 0): 1}, 0, 2),
    # tied: scaling by s in and by s out; only s = -1 is left, and not for a ReLU
    "tied tanh": Theory(zoo.TiedAutoencoder, torch.zeros(3, 9), {(5, 0): 1}, 0, 1),
    "tied ReLU": Theory(lambda: zoo.TiedAutoencoder("relu"), torch.zeros(3, 9), {(5, 0): 1}, 0, 0),
    # used twice: what goes in is what comes out
    "twice": Theory(zoo.Twice, torch.zeros(4, 3), {(5, 0): 1}, 1, 0),
    "lone residual": Theory(zoo.LoneResidual, torch.zeros(3, 4), {(7, 0): 1}, 1, 0),
    # wreath products: channels in groups, and the groups
    "grouped": Theory(zoo.Grouped, IMAGES, {(4, 0): 1, (2, 4): 1, (3, 4): 1}, 2, 0),
    "group norm": Theory(zoo.GroupNormed, IMAGES, {(2, 0): 1, (4, 2): 1}, 1, 0),
    "GLU": Theory(zoo.Gated, torch.zeros(3, 4), {(6, 0): 1}, 1, 1),
    "concatenation": Theory(zoo.Dense, IMAGES, {(4, 0): 1, (5, 0): 1}, 2, 0),
}


def _sizes(architecture: Architecture) -> Counter[tuple[int, int]]:
    return Counter((g.size, g.parent.size if g.parent else 0) for g in architecture.groups)


@pytest.mark.parametrize("name", THEORY)
def test_groups_and_wires_are_those_of_theory_and_certified(name: str) -> None:
    theory = THEORY[name]
    torch.manual_seed(0)
    module = theory.module()
    architecture = Architecture.from_module(module, theory.inputs)
    assert dict(_sizes(architecture)) == theory.groups
    kinds = [wire.scalings for wire in architecture.wires]
    assert sum("positive" in k for k in kinds) == theory.positive
    assert sum(bool(k & {"sign", "flip", "phase"}) for k in kinds) == theory.signs
    inputs = theory.inputs if isinstance(theory.inputs, tuple) else (theory.inputs,)
    inputs = tuple(torch.randn_like(x) if x.is_floating_point() else x for x in inputs)
    certificate = certify(architecture, module, inputs)
    assert certificate.deviation < 1e-12
    assert not certificate.idle
    assert Architecture.from_json(architecture.to_json()) == architecture


def test_a_graph_network_is_read_and_certified() -> None:
    pytest.importorskip("torch_geometric")
    torch.manual_seed(0)
    network, (nodes, edges) = zoo.gin(), zoo.graph()
    architecture = Architecture.from_module(network, (nodes, edges))
    assert dict(_sizes(architecture)) == {(6, 0): 1, (5, 0): 1, (7, 0): 1, (4, 0): 1}
    assert [sorted(wire.scalings) for wire in architecture.wires] == 4 * [["positive"]]
    assert certify(architecture, network, (nodes, edges)).deviation < 1e-12


@pytest.mark.parametrize("name", THEORY)
def test_activation_sites_show_the_activations_of_their_group(name: str) -> None:
    """Permuting a group permutes what its activation sites show; other groups permute it not at all."""
    theory = THEORY[name]
    module = theory.module()
    architecture = Architecture.from_module(module, theory.inputs)
    inputs = theory.inputs if isinstance(theory.inputs, tuple) else (theory.inputs,)
    inputs = tuple(torch.randn_like(x).double() if x.is_floating_point() else x for x in inputs)
    generator = torch.Generator().manual_seed(0)
    rows = random_weights(architecture, 1, generator)
    action = Action(architecture, Action.random(architecture, 1, generator).permutations, {})
    before, after = (_tapped(architecture, w, inputs) for w in (rows, action(rows)))
    for site in architecture.activation_sites:
        before[site.layer] = before[site.layer].index_select(site.axis, action.permutations[site.group][0])
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def _tapped(architecture: Architecture, rows: Tensor, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    module = copy.deepcopy(architecture.module or nn.Identity()).double()
    read: dict[str, Tensor] = {}
    for site in architecture.activation_sites:
        layer = module.get_submodule(site.layer)
        layer.register_forward_hook(lambda _, __, output, name=site.layer: read.__setitem__(name, output.clone()))
    torch.func.functional_call(module, {k: v[0] for k, v in unflatten(rows, architecture).items()}, inputs)
    return read


class Weird(nn.Module):
    """Something that no table knows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x).real


class Branching(nn.Module):
    """Control flow that depends on data."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def _resnet_with(layer: nn.Module) -> nn.Module:
    network = zoo.ResNet18(4)
    network.layer2[1].relu = layer
    return network


def test_an_unsupported_layer_is_named_and_can_be_frozen() -> None:
    network, images = _resnet_with(Weird()), torch.zeros(2, 3, 32, 32)
    with pytest.raises(InvalidInputError, match=r"The layer 'layer2\.1\.relu' \(Weird\) uses .*fft.*frozen=\('layer2"):
        Architecture.from_module(network, images)
    architecture = Architecture.from_module(network, images, frozen=("layer2.1.relu",))
    assert architecture.certify(network, torch.randn(images.shape)) < 1e-12
    moved = {group.name for group in architecture.groups}
    # the streams on both sides of it are fixed, what lies inside other blocks is not
    assert {"layer1.0.conv1", "layer3.0.conv1", "layer4.0.conv2"} <= moved
    assert "layer2.0.conv2" not in moved


def test_control_flow_that_depends_on_data_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"'layer2\.1\.relu' \(Branching\) could not be traced"):
        Architecture.from_module(_resnet_with(Branching()), torch.zeros(2, 3, 32, 32))


def test_an_example_that_does_not_fit_names_the_layer() -> None:
    with pytest.raises(ValueError, match=r"of shape \(2, 5, 32, 32\) does not fit the layer 'conv1'"):
        Architecture.from_module(zoo.ResNet18(4), torch.zeros(2, 5, 32, 32))


def test_channels_in_groups_that_overlap_are_permuted_within_what_they_share() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 5, 1),
        zoo.Concat(zoo.Concat(nn.Conv2d(5, 15, 3, padding=1, groups=5))),
        nn.Conv2d(25, 15, 3, padding=1, groups=5),
        nn.Flatten(),
        nn.Linear(15 * 64, 2),
    )
    architecture = Architecture.from_module(network, IMAGES)
    # threes of the first convolution, of which two are halved by fives of the second; and five threes of the second
    assert sorted(g.size for g in architecture.groups) == [2, 2, *[3] * 8]
    assert architecture.certify(network, torch.randn(IMAGES.shape)) < 1e-12


def test_a_flip_does_not_pass_a_depthwise_kernel() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 2)
    )
    architecture = Architecture.from_module(network, IMAGES)
    assert [sorted(wire.scalings) for wire in architecture.wires] == [["positive", "sign"]]
    assert architecture.certify(network, torch.randn(IMAGES.shape)) < 1e-12


def test_repeated_channels_tell_their_occurrences_apart() -> None:
    """Three copies of each channel go into a kernel of their own each: outputs of one copy are not those of another."""
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), zoo.Concat(zoo.Concat(nn.BatchNorm2d(5))), nn.Conv2d(15, 30, 1, groups=15), nn.Flatten()
    ).append(nn.Linear(30 * 36, 2))
    architecture = Architecture.from_module(network, IMAGES)
    assert dict(_sizes(architecture)) == {(5, 0): 1, (2, 5): 3}
    assert architecture.certify(network, torch.randn(IMAGES.shape)) < 1e-12


def test_what_is_frozen_does_not_move() -> None:
    network = zoo.vgg()
    architecture = Architecture.from_module(network, IMAGES, frozen=("3",))
    assert [(g.name, g.size) for g in architecture.groups] == [("7", 10)]
    assert architecture.certify(network, torch.randn(IMAGES.shape)) < 1e-12


def test_frozen_layers_have_to_exist() -> None:
    with pytest.raises(ValueError, match="no layer 'head'"):
        Architecture.from_module(zoo.vgg(), IMAGES, frozen=("head",))
    with pytest.raises(ValueError, match="tuple of names"):
        Architecture.from_module(zoo.vgg(), IMAGES, frozen="0")


def test_a_module_that_is_no_sequence_needs_an_example_input() -> None:
    with pytest.raises(ValueError, match="example_input"):
        Architecture.from_module(zoo.ResNet20(1, 4))


def _wrong_spec(forgotten: bool) -> Architecture:
    """conv -> batch norm -> relu -> mean -> linear by hand; the running mean may be forgotten."""
    channels = NeuronGroup("channels", 4)

    def vector(name: str, role: str = "weight", moves: bool = True) -> Parameter:
        return Parameter(name, (4,), (Block((channels if moves else Fixed(4),)),), role)  # type: ignore[arg-type]

    kernel = Block((channels, Fixed(3), Fixed(3), Fixed(3)))
    parameters = (
        Parameter("0.weight", (4, 3, 3, 3), (kernel,)),
        vector("1.weight"),
        vector("1.bias"),
        vector("1.running_mean", "statistic", moves=not forgotten),
        vector("1.running_var", "statistic"),
        Parameter("5.weight", (2, 4), (Block((Fixed(2), channels)),)),
    )
    return Architecture(parameters)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_wrong_spec_is_caught_by_the_certificate(forgotten: bool) -> None:
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), *pooled)
    network.append(nn.Linear(4, 2, bias=False))
    deviation = _wrong_spec(forgotten).certify(network, torch.randn(IMAGES.shape))
    assert deviation > 1e-3 if forgotten else deviation < 1e-12


def test_a_wrong_scaling_is_caught_and_cut() -> None:
    """A positive scale does not pass a GELU."""
    network = nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2))
    relu, x = Architecture.mlp([3, 5, 2], "relu"), torch.randn(4, 3)
    wrong = Architecture(relu.parameters, relu.wires)
    certificate = certify(wrong, network, x)
    assert list(certificate.wrong) == ["wire hidden1"]
    assert certify(without(wrong, certificate.wrong), network, x).deviation < 1e-12


def test_a_group_in_a_direct_sum_is_fixed_by_one_cut() -> None:
    """Two branches are concatenated; the one that is fixed keeps its half of the axis, and the other one moves."""
    left, right = NeuronGroup("left", 3), NeuronGroup("right", 4)
    both = DirectSum((left, right))
    architecture = Architecture(
        [
            Parameter("left", (3, 5), (Block((left, Fixed(5)), wires=(("left", 0, 1),)),)),
            Parameter("right", (4, 5), (Block((right, Fixed(5)), wires=(("right", 0, 1),)),)),
            Parameter("head", (2, 7), (Block((Fixed(2), both), wires=(("both", 1, -1),)),)),
        ],
        [Wire("left", left), Wire("right", right, frozenset({"sign"})), Wire("both", both, frozenset({"positive"}))],
    )
    cut = without(architecture, ["group left"])
    assert cut.groups == (right,) and [wire.name for wire in cut.wires] == ["right"]
    assert cut.parameters[2].blocks[0].axes == (Fixed(2), DirectSum((Fixed(3), right)))
    weights = torch.arange(float(architecture.n_weights)).reshape(1, -1)
    moved = Action(cut, {"right": torch.tensor([[1, 0, 2, 3]])}, {})(weights)[0, 35:].reshape(2, 7)
    assert moved.tolist() == weights[0, 35:].reshape(2, 7)[:, [0, 1, 2, 4, 3, 5, 6]].tolist()


def test_channels_that_share_an_axis_with_their_heads_are_fixed_with_them() -> None:
    heads = NeuronGroup("heads", 2)
    channels = NeuronGroup("channels", 3, parent=heads)
    shared = Architecture([Parameter("values", (6, 4), (Block((channels, Fixed(4))),))])
    assert restricted(shared, ["channels"]).groups == ()
    apart = Architecture([Parameter("values", (2, 3, 4), (Block((heads, channels, Fixed(4))),))])
    assert restricted(apart, ["channels"]).groups == (heads,)


def test_a_generator_that_moves_nothing_is_reported() -> None:
    mlp = Architecture.mlp([3, 5, 2])
    ghost = NeuronGroup("ghost", 3)
    extended = Architecture(mlp.parameters, (*mlp.wires, Wire("ghost", ghost, frozenset({"sign"}))), mlp.layers)
    assert certify(extended, None, torch.randn(4, 3)).idle == ("group ghost", "wire ghost")


def test_a_network_without_an_output_has_no_certificate() -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return 0 * self.layer(x)

    with pytest.raises(NumericalError, match="all zero"):
        Architecture.from_module(Silent(), torch.ones(2, 3))


def test_tracing_leaves_the_module_and_the_random_state_alone() -> None:
    network = zoo.ViT().train()
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    Architecture.from_module(network, IMAGES)
    assert network.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_half_precision_and_shared_parameters_survive_the_round_trip() -> None:
    torch.manual_seed(0)
    networks = [zoo.GPT().half() for _ in range(2)]
    architecture = Architecture.from_module(networks[0], TOKENS)
    assert architecture.parameters[0].aliases == ("lm_head.weight",)
    weights = WeightArray.from_modules(networks, architecture)
    assert weights.shape == (2, sum(p.numel() for p in networks[0].parameters()))
    back = weights.to_modules(zoo.GPT())
    assert back[1].lm_head.weight is back[1].wte.weight
    for old, new in zip(networks, back, strict=True):
        torch.testing.assert_close(new(TOKENS), old.float()(TOKENS))


def test_an_architecture_pickles_with_its_module() -> None:
    architecture = Architecture.from_module(zoo.vgg(), IMAGES)
    again = pickle.loads(pickle.dumps(architecture))
    assert again == architecture and again.certify(inputs=torch.randn(IMAGES.shape)) < 1e-12


def test_a_network_is_run_by_its_module_like_by_torch() -> None:
    torch.manual_seed(0)
    networks = [zoo.ResNet20(1, 4).eval() for _ in range(3)]
    architecture = Architecture.from_module(networks[0], IMAGES)
    rows = torch.from_numpy(np.asarray(WeightArray.from_modules(networks, architecture)))
    x = torch.randn(IMAGES.shape)
    with torch.no_grad():
        expected = torch.stack([network(x) for network in networks])
        torch.testing.assert_close(run_module(unflatten(rows, architecture), networks[0], x), expected)


ACTIVATIONS = ["ReLU", "LeakyReLU", "PReLU", "Tanh", "Softsign", "Sigmoid", "GELU", "SiLU", "ELU", "Softplus", "ReLU6"]


@st.composite
def modules(draw: Any) -> nn.Module:
    """Convolutional networks of random layers, residual and concatenated parts, and a random MLP on top."""
    channels, layers = 3, []
    for _ in range(draw(st.integers(1, 4))):
        layer, channels = draw(parts(channels, depth=2))
        layers.append(layer)
    if draw(st.booleans()):
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    else:
        layers += [draw(st.sampled_from([nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d(2)])), nn.Flatten()]
        channels *= 4
    for _ in range(draw(st.integers(0, 2))):
        width = draw(st.integers(2, 5))
        layers += [nn.Linear(channels, width, bias=draw(st.booleans())), draw(activations(width))]
        channels = width
    return nn.Sequential(*layers, nn.Linear(channels, 2, bias=draw(st.booleans())))


@st.composite
def activations(draw: Any, channels: int) -> nn.Module:
    if draw(st.integers(0, 3)) == 0:
        return zoo.Function(draw(st.sampled_from(["sin", "cos", "erf", "square", "abs", "relu", "neg"])))
    name = draw(st.sampled_from(ACTIVATIONS))
    if name == "PReLU":
        return nn.PReLU(draw(st.sampled_from([1, channels])))
    return getattr(nn, name)()


@st.composite
def parts(draw: Any, channels: int, depth: int) -> tuple[nn.Module, int]:
    kinds = ["conv", "conv", "grouped", "norm", "activation", "activation", "gate", "pool", "transposed"]
    kind = draw(st.sampled_from(kinds + (["residual", "concat"] if depth else [])))
    if kind in ("conv", "transposed"):
        width = draw(st.integers(1, 6))
        bias, size = draw(st.booleans()), draw(st.sampled_from([1, 3]))
        if kind == "transposed":
            return nn.ConvTranspose2d(channels, width, size, padding=size // 2, bias=bias), width
        return nn.Conv2d(channels, width, size, padding=size // 2, bias=bias), width
    if kind == "grouped":
        groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
        width = groups * draw(st.integers(1, 3))
        return nn.Conv2d(channels, width, 3, padding=1, groups=groups, bias=draw(st.booleans())), width
    if kind == "norm":
        divisors = [g for g in range(1, channels + 1) if channels % g == 0]
        norms = [nn.BatchNorm2d(channels), nn.BatchNorm2d(channels, affine=False), nn.InstanceNorm2d(channels)]
        norms.append(nn.GroupNorm(draw(st.sampled_from(divisors)), channels))
        return draw(st.sampled_from(norms)), channels
    if kind == "gate":
        return nn.Sequential(nn.Conv2d(channels, 4, 1), zoo.Gate(draw(activations(2)))), 2
    if kind == "pool":
        return draw(st.sampled_from([nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.Dropout2d()])), channels
    if kind == "activation":
        return draw(activations(channels)), channels
    inner, width = [], channels
    for _ in range(draw(st.integers(1, 2))):
        layer, width = draw(parts(width, depth - 1))
        inner.append(layer)
    if kind == "concat":
        return zoo.Concat(nn.Sequential(*inner)), channels + width
    return zoo.Residual(nn.Sequential(*inner, nn.Conv2d(width, channels, 1))), channels


def check_random_module(network: nn.Module) -> None:
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    architecture = certified_architecture(network, images)
    certificate = certify(architecture, network, images, n_trials=1, seed=1)
    assert certificate.deviation < 1e-10
    assert not certificate.idle


@settings(max_examples=25, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))
@given(modules())
def test_random_networks_are_read_and_certified(network: nn.Module) -> None:
    check_random_module(network)


@settings(max_examples=10, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))
@given(modules())
def test_random_networks_have_programs(network: nn.Module) -> None:
    architecture = Architecture.from_module(network, IMAGES[..., :4, :4])
    program = ProgramModule(Architecture.from_json(architecture.to_json()))
    x = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state = {name: tensor for name, tensor in network.double().state_dict().items() if name in architecture.names}
    with torch.no_grad():
        expected = network.eval()(x)
        torch.testing.assert_close(torch.func.functional_call(program, state, x), expected, rtol=1e-10, atol=1e-12)


# one in some thousand has groups that change places only together, which are left out
@pytest.mark.filterwarnings("ignore:Some symmetries:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_random_networks_are_read_and_certified(part: int) -> None:
    drawn = settings(max_examples=EXAMPLES // 4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    seed(part)(drawn(given(modules())(check_random_module)))()


FOREIGN = Path(os.environ.get("WSFLOW_NETWORKS", "nowhere"))


@pytest.mark.skipif(not FOREIGN.is_dir(), reason="WSFLOW_NETWORKS names no folder of foreign networks")
@pytest.mark.parametrize(("file", "blocks"), [("resnet20-12fca82f.th", 3), ("resnet32-d509ac18.th", 5)])
def test_foreign_resnets_keep_their_function(file: str, blocks: int) -> None:
    state = torch.load(FOREIGN / "cifar_resnets_akamaster" / file, weights_only=True, map_location="cpu")["state_dict"]
    network = zoo.ResNet20(blocks).eval()
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    _check_foreign(network, torch.randn(2, 3, 32, 32, dtype=torch.float64), 3 * blocks + 3)


@pytest.mark.skipif(not FOREIGN.is_dir(), reason="WSFLOW_NETWORKS names no folder of foreign networks")
def test_foreign_cnns_keep_their_function() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 100)
    ).extend([nn.ReLU(), nn.Linear(100, 10)])
    for path in sorted((FOREIGN / "mnist_cnn_convex_adversarial").glob("*.pth")):
        state = torch.load(path, weights_only=True, map_location="cpu")
        state = state.get("state_dict", state)
        state = state[0] if isinstance(state, list) else state
        network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
        _check_foreign(network.eval(), torch.randn(2, 1, 28, 28, dtype=torch.float64), 3)


def _check_foreign(network: nn.Module, x: Tensor, groups: int) -> None:
    """The trained weights themselves, moved by random elements of the group, compute what they computed."""
    architecture = Architecture.from_module(network, x)
    assert len(architecture.groups) == groups
    row = torch.from_numpy(np.asarray(WeightArray.from_modules([network], architecture), dtype=np.float64))
    moved = Action.random(architecture, 1, torch.Generator().manual_seed(0))(row)
    before, after = (run_module(unflatten(w, architecture), network.double(), x) for w in (row, moved))
    assert float((before - after).detach().abs().max() / before.detach().abs().max()) < 1e-10
