"""Plain MLPs and CNNs are inferred from names and shapes, truly or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wsflow.activations import ACTIVATIONS, POSITIVE
from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers import load_networks


def shapes(**tensors: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name.replace("__", "."): np.empty(shape) for name, shape in tensors.items()}


@st.composite
def networks(draw) -> tuple[nn.Module, str, torch.Tensor]:
    """A CNN with any of strides, pooling, biases and norms before or behind the activation, and its activation."""
    act = draw(st.sampled_from([kind for kind, row in ACTIVATIONS.items() if row.module and not row.learned]))
    activation = getattr(nn, ACTIVATIONS[act].module)
    layers: list[nn.Module] = []
    channels = 2
    for _ in range(draw(st.integers(1, 2))):
        outputs = draw(st.integers(2, 4))
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=draw(st.booleans())))
        norm = draw(st.sampled_from(["none", "before", "behind", "plain"]))
        after = nn.BatchNorm2d(outputs, affine=norm != "plain")
        layers += {"none": [activation()], "behind": [activation(), after]}.get(norm, [after, activation()])
        layers += draw(st.sampled_from([[], [nn.MaxPool2d(2)], [nn.AvgPool2d(2)]]))
        channels = outputs
    layers += draw(st.sampled_from([[nn.Flatten()], [nn.AdaptiveAvgPool2d(1), nn.Flatten()]]))
    with torch.random.fork_rng():
        torch.manual_seed(draw(st.integers(0, 99)))
        inputs = torch.randn(3, 2, 8, 8)
        width = nn.Sequential(*layers).eval()(inputs).shape[1]
        layers += [nn.Linear(width, 5), activation(), nn.Linear(5, 3)]
        return nn.Sequential(*layers).eval(), act, inputs


@given(networks())
def test_the_symmetries_of_inferred_networks_are_true(network):
    module, act, inputs = network
    architecture = Architecture.from_state_dict(module.state_dict(), act)
    assert set(architecture.names) == set(module.state_dict())
    assert len(architecture.groups) == sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in module) - 1
    assert architecture.certify(module, inputs) < 1e-10


@pytest.mark.parametrize("act", ["prelu", "square", "tanh"])
def test_activations_that_positive_scales_do_not_pass_unchanged(act):
    state = shapes(conv__weight=(4, 3, 3, 3), head__weight=(2, 4))
    if act == "prelu":
        with pytest.raises(ValueError, match="has weights of its own"):
            Architecture.from_state_dict(state, act)
    else:
        assert not Architecture.from_state_dict(state, act).wires[0].scalings


def test_a_norm_has_a_wire_on_either_side():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    architecture = Architecture.from_state_dict(module.state_dict(), "relu")
    assert {wire.name: set(wire.scalings) for wire in architecture.wires} == {
        "hidden1.linear": {POSITIVE},
        "hidden1": {POSITIVE},
    }
    roles = {p.name: p.role for p in architecture.parameters}
    assert [name for name, role in roles.items() if role == "statistic"] == [
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (shapes(conv__weight=(4, 3, 3, 3)), "'conv.weight', is a convolution"),
        (shapes(a__weight=(4, 3, 3, 3), b__weight=(2, 7)), r"'b.weight' of shape \(2, 7\) does not follow"),
        (shapes(a__weight=(4, 3, 3, 3), b__weight=(4, 1, 3, 3)), "does not follow"),
        (shapes(a__weight=(4, 3), b__weight=(4, 4, 3), c__weight=(2, 4)), "does not follow"),
        (shapes(a__weight=(4, 3), norm__weight=(4,), b__weight=(2, 4)), r"what is 'norm.weight', of shape \(4,\)\?"),
        (shapes(a__weight_g=(4, 1), a__weight_v=(4, 3)), "what is 'a.weight_g'"),
        (shapes(a__weight=(4, 3), layer1__0__fc__weight=(4, 4)), "'layer1.0.fc' speaks of a block"),
        (shapes(a__weight=(4, 3), skip__weight=(4, 4)), "'skip' speaks of a block"),
        (shapes(q_proj__weight=(4, 4), k_proj__weight=(4, 4)), "'q_proj' speaks of a block"),
        (shapes(embed__weight=(4, 4), head__weight=(4, 4)), "'embed' speaks of a block"),
        (
            shapes(a__weight=(4, 3), b__weight=(4, 4), bn__running_mean=(4,), bn__running_var=(4,), c__weight=(2, 4)),
            "not clear behind which layer the norm 'bn' of 4 channels is",
        ),
        (
            shapes(a__weight=(4, 3), bn__running_mean=(3,), bn__running_var=(3,), c__weight=(2, 4)),
            "not clear behind which layer",
        ),
    ],
)
def test_what_is_not_clear_is_refused_with_a_remedy(state, message):
    with pytest.raises(ValueError, match=message) as caught:
        Architecture.from_state_dict(state, "relu")
    assert "module=" in str(caught.value)


def test_norms_find_their_layers_by_number_place_or_size():
    state = shapes(conv1__weight=(4, 3, 3, 3), conv2__weight=(4, 4, 3, 3), fc__weight=(2, 4))
    state |= shapes(**{f"bn{i}__{kind}": (4,) for i in (1, 2) for kind in ("running_mean", "running_var")})
    architecture = Architecture.from_state_dict(state, "relu")
    spaces = {p.name: p.blocks[0].axes[0].name for p in architecture.parameters if p.name.startswith("bn")}
    assert spaces["bn1.running_mean"] == "hidden1" and spaces["bn2.running_mean"] == "hidden2"


@pytest.mark.parametrize("names", [["0", "2", "10"], ["input", "hidden", "output"], ["fc2", "fc10", "head"]])
def test_safetensors_finds_the_only_order(tmp_path, names):
    widths = zip([4, 5, 6], [5, 6, 2], strict=True)
    state = {f"{name}.weight": torch.ones(b, a) for name, (a, b) in zip(names, widths, strict=True)}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    population = load_networks(tmp_path, activation="relu")
    assert population.architecture.names == tuple(f"{name}.weight" for name in names)


@pytest.mark.parametrize(
    ("names", "widths", "message"),
    [
        (["input", "hidden", "more", "output"], [4, 5, 5, 5, 2], "several orders of its layers fit"),
        (["input", "output"], [4, 5, 2, 3], "no order of its layers fits"),
        ([f"fc{'abcdefghijkl'[i]}" for i in range(12)], [4] * 12 + [5, 5], "too many|several orders"),
    ],
)
def test_safetensors_without_an_order_asks(tmp_path, names, widths, message):
    pairs = list(zip(widths[:-1], widths[1:], strict=True))[-len(names) :]
    if message.startswith("no"):
        pairs = [(4, 5), (2, 3)]
    state = {f"{name}.weight": torch.ones(b, a) for name, (a, b) in zip(names, pairs, strict=True)}
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(InvalidInputError, match=message):
        load_networks(tmp_path, activation="relu")
