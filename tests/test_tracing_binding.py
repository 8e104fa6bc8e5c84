"""Every rule takes the arguments that torch's operations have, under the names of their schemas."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
import zoo
from torch import Tensor, nn

from wsflow import Architecture, WeightArray
from wsflow.tracing.interpreter import ARGUMENTS
from wsflow.tracing.rules import RULES

SKIPPED = ("dtype", "memory_format", "out")


@pytest.mark.parametrize("name", sorted(name for name in RULES if hasattr(torch.ops.aten, name)))
def test_a_rule_binds_to_the_schema_of_its_operation(name: str) -> None:
    packet = getattr(torch.ops.aten, name)
    known = ("default", "Tensor", "Tensor_Scalar", "input", "vec", "dim", "using_ints", "self")
    overloads = [o for o in packet.overloads() if o in known and not (name == "where" and o == "default")]
    rule = RULES[name]
    given = set(rule.keywords) if isinstance(rule, partial) else set()
    parameters = inspect.signature(rule).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for overload in overloads:
        arguments = getattr(packet, overload)._schema.arguments
        names = [ARGUMENTS.get(a.name, a.name) for a in arguments if a.name not in SKIPPED]
        if {"a", "b"} <= {*names}:
            continue  # of two numbers
        positional = [a for a in names if a not in given]
        assert open_ended or {*positional} <= {*parameters}, (overload, positional, list(parameters))
        required = {k for k, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
        optional = {ARGUMENTS.get(a.name, a.name) for a in arguments if a.has_default_value()}
        assert not required - {"t"} - given - {*names}, (overload, required, names)
        assert not (required & optional) - {"mode"}, (overload, required & optional)


class WithWeights(nn.Module):
    """torch's attention as it is called by default, which also returns its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(5, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.attention(x, x, x)[0])


def test_attention_with_weights_and_plain_products_is_read() -> None:
    x = torch.randn(2, 4, 5)
    architecture = Architecture.from_module(WithWeights(), x)
    assert [(g.size, g.parent and g.parent.size) for g in architecture.groups if g.parent] == [(4, 2), (4, 2)]
    assert architecture.certify(inputs=x) < 1e-12


def tied() -> nn.Sequential:
    """A plain sequence, but for a matrix that is used twice."""
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    network[4].weight = network[2].weight
    return network.append(nn.Linear(6, 2))


def test_a_sequence_with_tied_weights_is_traced() -> None:
    x = torch.randn(3, 4)
    architecture = Architecture.from_module(tied(), x)
    assert not architecture.layers and [g.size for g in architecture.groups] == [6]
    assert architecture.certify(inputs=x) < 1e-12
    with pytest.raises(ValueError, match=r"uses '4.weight' more than once"):
        Architecture.from_module(tied())


def test_a_layer_that_stands_twice_is_traced() -> None:
    layer = nn.Linear(5, 5)
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(5, 2))
    architecture = Architecture.from_module(network, torch.randn(3, 4))
    assert [g.size for g in architecture.groups] == [5] and architecture.certify(inputs=torch.randn(3, 4)) < 1e-12
    assert WeightArray.from_modules([network], architecture).to_modules(network)


def test_a_sequence_with_a_hook_is_traced() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    network[0].register_forward_hook(lambda module, inputs, output: output + torch.arange(5.0).to(output))
    architecture = Architecture.from_module(network, torch.randn(3, 4))
    assert not architecture.layers and architecture.certify(inputs=torch.randn(3, 4)) < 1e-12


class Centred(nn.Module):
    """An MLP with a constant in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)
        self.register_buffer("mean", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.b((self.a(x - self.mean)).relu())


def test_constants_stay_the_templates_own() -> None:
    network = Centred()
    weights = WeightArray.from_modules([network], example_input=torch.zeros(2, 3))
    assert weights.architecture.constants == ("mean",)
    x = torch.randn(4, 3)
    torch.testing.assert_close(weights.to_modules(Centred())[0](x), network(x))
    with pytest.raises(ValueError, match="template is not one of this architecture"):
        weights.to_modules(nn.Linear(3, 5))


class Neighbours(nn.Module):
    """A graph convolution with a normalised matrix of neighbours, which has no negative entries."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor, matrix: Tensor) -> Tensor:
        scale = matrix.sum(1).rsqrt()
        matrix = scale[:, None] * matrix * scale
        return matrix @ self.b((matrix @ self.a(x)).relu())


def test_inputs_that_cannot_be_random_are_taken_as_they_are() -> None:
    matrix = torch.eye(4) + torch.eye(4).roll(1, 0)
    architecture = Architecture.from_module(Neighbours(), (torch.randn(4, 3), matrix))
    assert [g.size for g in architecture.groups] == [5]


@pytest.mark.parametrize("resize", [nn.Upsample(scale_factor=2), nn.AvgPool2d(2), nn.MaxPool2d(2), nn.Identity()])
def test_a_linear_layer_viewed_as_an_image_has_channels(resize: nn.Module) -> None:
    """The generators and decoders that begin with a linear layer: channels move with all of their pixels."""
    network = nn.Sequential(nn.Linear(3, 5 * 16), nn.Unflatten(1, (5, 4, 4)), resize, nn.Conv2d(5, 4, 3, padding=1))
    network.extend([nn.ReLU(), nn.Conv2d(4, 1, 1)])
    architecture = Architecture.from_module(network, torch.randn(2, 3))
    assert [g.size for g in architecture.groups] == [5, 4]
    assert architecture.certify(inputs=torch.randn(2, 3)) < 1e-12


def test_what_is_no_module_is_refused() -> None:
    for thing in (zoo.GPT, {"a": torch.zeros(2)}, nn.ReLU6()):
        with pytest.raises(ValueError, match="torch module with parameters"):
            Architecture.from_module(thing, torch.zeros(2, 3))


def test_a_flip_does_not_pass_a_number_that_stretches_it() -> None:
    """2 sigmoid(-z) = 2 - 2 sigmoid(z): what is left behind is not the table's, so there is no flip."""

    class Stretched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(2 * torch.sigmoid(self.a(x)))

    architecture = Architecture.from_module(Stretched(), torch.randn(2, 3))
    assert [g.size for g in architecture.groups] == [5] and not architecture.wires


def test_flips_pass_means_over_pixels_views_and_concatenations() -> None:
    """What keeps c - a keeps the flip; the next layer's bias takes what it leaves."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3), nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            parts = [nn.functional.adaptive_avg_pool2d(torch.sigmoid(f(x)), 1) for f in (self.a, self.b)]
            return self.c(torch.cat(parts, 1).flatten(1))

    x = torch.randn(2, 3, 8, 8)
    architecture = Architecture.from_module(Pooled(), x)
    assert [sorted(wire.scalings) for wire in architecture.wires] == [["flip"], ["flip"]]
    assert architecture.certify(inputs=x) < 1e-12
