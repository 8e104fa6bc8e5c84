"""Other widths: tables, programs and flows of architectures whose neuron groups have other sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from click.testing import CliRunner
from kinds import Residual, Transformer
from torch import Tensor, nn

from wsflow import Architecture, WeightArray, WeightFlow, load_population, save_model
from wsflow.architecture.resizing import resized
from wsflow.cli import main
from wsflow.models.options import NeuronTransformer
from wsflow.models.widths import combined, of_hidden
from wsflow.running import forward

IMAGES, GRAY = torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 6, 6)
TOKENS = torch.zeros(2, 4, dtype=torch.long)


def convolutional(first: int, second: int) -> nn.Module:
    """Two convolutions, flattened: pixels lie behind each channel of the linear layer's inputs."""
    layers = (nn.Conv2d(1, first, 3, 2, 1), nn.ReLU(), nn.Conv2d(first, second, 3, 2, 1), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(second * 4, 3))


def attention(heads: int, width: int, hidden: int) -> nn.Module:
    """Tokens through a block with a fused qkv projection, whose heads have 3 channels."""
    net = Transformer()
    net.token, net.position = nn.Embedding(5, width), nn.Parameter(torch.zeros(4, width))
    net.block, net.norm, net.head = zoo.TransformerBlock(width, heads, hidden), nn.LayerNorm(width), nn.Linear(width, 3)
    return net


class Concatenated(nn.Module):
    """Two branches side by side, of which a depthwise and a plain convolution read all channels."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 2 * k, 3), nn.Conv2d(1, 3 * k, 3)
        self.depthwise, self.mix = nn.Conv2d(5 * k, 5 * k, 3, groups=5 * k), nn.Conv2d(5 * k, 4 * k, 1)
        self.head = nn.Linear(4 * k, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = torch.cat([self.left(x).relu(), self.right(x).tanh()], 1)
        return self.head(self.mix(self.depthwise(x)).relu().mean((2, 3)))


# how to build a network of each width, and an example input
FAMILIES: dict[str, tuple[Callable[[int], nn.Module], Tensor]] = {
    "CNN": (lambda k: convolutional(3 * k, 4 * k), GRAY),
    "residual": (lambda k: Residual(4 if k == 1 else 9), GRAY),
    "ResNet-18 with batch norm": (lambda k: zoo.ResNet18(2 * k), torch.zeros(2, 3, 32, 32)),
    "MLP with slopes": (
        lambda k: nn.Sequential(nn.Linear(4, 3 * k), nn.PReLU(3 * k), nn.Linear(3 * k, 2)),
        torch.zeros(2, 4),
    ),
    "concatenated": (Concatenated, GRAY),
    "transformer": (lambda k: attention(2 * k, 6 * k, 5 * k), TOKENS),
    "group norm": (
        lambda k: nn.Sequential(
            nn.Conv2d(3, 4 * k, 3), nn.GroupNorm(1, 4 * k), nn.Tanh(), nn.Flatten(), nn.Linear(144 * k, 2)
        ),
        IMAGES,
    ),
}


@cache
def both(name: str) -> tuple[nn.Module, Architecture, Architecture]:
    """A wide network of a family, and the architectures of a narrow and of the wide one."""
    build, example = FAMILIES[name]
    torch.manual_seed(0)
    wide = build(2).eval()
    return wide, Architecture.from_module(build(1), example), Architecture.from_module(wide, example)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_table_and_a_program_are_those_of_a_wide_module(name: str) -> None:
    wide, narrow, expected = both(name)
    sizes = {group.name: group.size for group in expected.groups}
    found = of_hidden(narrow, sizes)
    assert found.groups == expected.groups and found.parameters == expected.parameters
    assert found.wires == expected.wires and found.activation_sites == expected.activation_sites
    if expected.program is not None:
        assert found.program.operations == expected.program.operations
    row = torch.from_numpy(np.asarray(WeightArray.from_modules([wide], expected))).double()
    x = FAMILIES[name][1]
    x = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double() if x.is_floating_point() else x
    torch.testing.assert_close(forward(row, found, x)[0], wide.double()(x), rtol=1e-9, atol=1e-9)
    assert resized(found, {g.name: g.size for g in narrow.groups}).parameters == narrow.parameters


class Halves(nn.Module):
    """Uses the first two channels in another way than the others."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, channels, 3), nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.conv(x).mean((2, 3))
        return self.head(torch.cat([x[:, :2].tanh(), x[:, 2:].relu()], 1))


class Tabled(nn.Module):
    """Adds a table with a number for each channel that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.head(torch.tanh(self.conv(x).mean((2, 3))) * torch.ones(4))


@pytest.mark.parametrize(("build", "names"), [(Halves, "slice"), (Tabled, "mul")])
def test_a_program_with_a_width_in_it_is_refused_by_the_operation(build: type[nn.Module], names: str) -> None:
    architecture = Architecture.from_module(build(), GRAY)
    sizes = {group.name: 2 * group.size for group in architecture.groups}
    with pytest.raises(ValueError, match=rf"The operation '{names}\w*'.*has the old width in it.*from_module"):
        of_hidden(architecture, sizes)


def test_unknown_groups_and_sizes_are_refused() -> None:
    architecture = both("CNN")[1]
    with pytest.raises(ValueError, match="'hidden9' is no neuron group of this architecture, which has 0, 2"):
        of_hidden(architecture, {"hidden9": 3})
    with pytest.raises(ValueError, match="at least one neuron, got 0 for '0'"):
        of_hidden(architecture, {"0": 0})
    with pytest.raises(ValueError, match="does not have 1 hidden layers"):
        of_hidden(architecture, [3])


@cache
def fitted(identity: str | None) -> tuple[WeightFlow, Architecture]:
    torch.manual_seed(0)
    networks = [convolutional(4, 4) for _ in range(24)]
    architecture = Architecture.from_json(Architecture.from_module(networks[0], GRAY).to_json())
    weights = WeightArray.from_modules(networks, architecture)
    velocity = NeuronTransformer(16, 1, 2, identity=identity)
    source = "isotropic" if identity is None else "auto"
    flow = WeightFlow("euclidean", velocity=velocity, source=source, max_iter=60, random_state=0)
    return flow.fit(weights), architecture


class TestFlows:
    @pytest.mark.parametrize("channels", [(8, 8), (5, 12)])
    def test_cnns_of_four_channels_give_cnns_of_eight_that_run(self, channels: tuple[int, int]) -> None:
        flow, architecture = fitted(None)
        new = flow.sample(64, random_state=0, architecture=of_hidden(architecture, channels))
        x = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))
        module = convolutional(*channels)
        module.load_state_dict(new.to_modules()[3].state_dict())
        outputs = forward(torch.from_numpy(np.array(new)), new.architecture, x)
        assert outputs.shape == (64, 5, 3)
        torch.testing.assert_close(outputs[3], module(x), rtol=1e-4, atol=1e-5)
        # weights of a layer have the law of those of the narrow networks
        narrow = np.array(flow.sample(64, random_state=0))
        for name in ("0.weight", "2.weight", "5.weight"):
            wide = np.asarray(new)[:, new.architecture.slices[name]].std()
            assert wide == pytest.approx(narrow[:, architecture.slices[name]].std(), rel=0.15)

    def test_an_architecture_that_was_read_at_the_other_width_serves_as_well(self) -> None:
        flow, architecture = fitted(None)
        read = Architecture.from_module(convolutional(8, 8), GRAY)
        own = flow.sample(3, random_state=0, architecture=of_hidden(architecture, [8, 8]))
        np.testing.assert_array_equal(flow.sample(3, random_state=0, architecture=read), own)
        other = Architecture.from_module(nn.Sequential(*convolutional(8, 8)[:-1], nn.Linear(32, 4)), GRAY)
        with pytest.raises(ValueError, match="same layers"):
            flow.sample(3, random_state=0, architecture=other)

    def test_hidden_widths_that_neurons_of_a_name_have_are_those_of_several_networks(self) -> None:
        """With one hidden layer, a wide network's outputs are the mean of those of the networks that it is made of."""

        def build(channels: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(1, channels, 3), nn.Tanh(), nn.Flatten(), nn.Linear(channels * 16, 3))

        narrow, wide = (Architecture.from_module(build(channels), GRAY) for channels in (4, 12))
        rows = torch.randn(6, narrow.n_weights, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        outputs = forward(combined(rows, narrow, wide), wide, x)
        torch.testing.assert_close(outputs, forward(rows, narrow, x).reshape(2, 3, 5, 3).mean(1))

    def test_flows_that_know_neurons_by_name_make_wide_cnns(self) -> None:
        flow, architecture = fitted("learned")
        new = flow.sample(2, random_state=0, architecture=of_hidden(architecture, [8, 8]))
        parts = np.array(flow.sample(4, random_state=0))
        first = np.asarray(new)[0, new.architecture.slices["0.weight"]].reshape(2, 4, 9)
        np.testing.assert_allclose(first, parts[:2, architecture.slices["0.weight"]].reshape(2, 4, 9), rtol=1e-6)
        with pytest.raises(ValueError, match="identity=None"):
            flow.sample(2, random_state=0, architecture=of_hidden(architecture, [2, 4]))

    def test_the_command_samples_other_channels(self, tmp_path: Path) -> None:
        save_model(fitted(None)[0], tmp_path / "flow.st")
        model, out = str(tmp_path / "flow.st"), str(tmp_path / "wide.safetensors")
        result = CliRunner().invoke(main, ["sample", model, "-n", "3", "-o", out, "--hidden", "8,6"])
        assert result.exit_code == 0, result.output
        weights = load_population(out).weights
        assert [group.size for group in weights.architecture.groups] == [8, 6]
        assert weights.to_modules()[0](GRAY).shape == (2, 3)
