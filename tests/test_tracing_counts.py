"""Symmetries counted against theory, in the many ways in which people write one network: a certificate does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counting import Counts, counted, members
from torch import Tensor, nn

from wsflow import Architecture

Function = Callable[..., Tensor]


class Hidden(nn.Module):
    """One hidden layer with any activation."""

    def __init__(self, activation: Function) -> None:
        super().__init__()
        self.a, self.b, self.activation = nn.Linear(3, 5), nn.Linear(5, 2), activation
        self.register_buffer("zero", torch.zeros(()), persistent=True)
        self.register_buffer("offsets", torch.randn(5))
        self.register_buffer("start", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.activation(self.a(x), self))


def _assigned(z: Tensor) -> Tensor:
    z = z.clone()
    z[z < 0] = 0
    return z


def _zeros(z: Tensor) -> Tensor:
    return torch.zeros_like(z)


# max(z, 0), its leaky and squared relatives, and others of one degree that are not odd
POSITIVE: dict[str, Function] = {
    "where": lambda z, _: torch.where(z > 0, z, 0.0),
    "where and zeros": lambda z, _: torch.where(z > 0, z, _zeros(z)),
    "where, turned": lambda z, _: torch.where(z.le(0), _zeros(z), z),
    "where, of nothing": lambda z, _: torch.where(torch.zeros(5, dtype=torch.bool), 2 * z.relu(), z.relu()),
    "where, a tensor": lambda z, _: torch.where(z > 0, z, torch.tensor(0.0)),
    "where, compared with zeros": lambda z, _: torch.where(z > _zeros(z), z, 0.0),
    "maximum": lambda z, _: torch.maximum(z, _zeros(z)),
    "maximum of a new tensor": lambda z, _: torch.maximum(z, torch.zeros(5, dtype=z.dtype)),
    "maximum of a buffer": lambda z, net: torch.maximum(z, net.zero),
    "max": lambda z, _: torch.max(z, _zeros(z)),
    "assignment": lambda z, _: _assigned(z),
    "hardtanh": lambda z, _: F.hardtanh(z, 0.0, float("inf")),
    "difference": lambda z, _: z - z.clamp(max=0),
    "lerp": lambda z, _: torch.lerp(0.1 * z, z, (z > 0).to(z.dtype)),
    "fmax": lambda z, _: torch.fmax(_zeros(z), z),
    "minimum": lambda z, _: -torch.minimum(-z, _zeros(z)),
    "clamp": lambda z, _: z.clamp(min=0),
    "clamp to a tensor": lambda z, net: torch.clamp(z, min=net.zero),
    "clip": lambda z, _: torch.clip(z, 0),
    "masked_fill": lambda z, _: z.masked_fill(z < 0, 0),
    "masked_fill of a complement": lambda z, _: z.masked_fill(~(z > 0), 0.0),
    "mask": lambda z, _: z * (z > 0),
    "mask of numbers": lambda z, _: z * z.gt(0).to(z.dtype),
    "mask by a difference": lambda z, _: z * (1 - (z < 0).to(z.dtype)),
    "heaviside": lambda z, _: z * torch.heaviside(z, _zeros(z)),
    "half a sum": lambda z, _: (z + z.abs()) / 2,
    "half a sum of roots": lambda z, _: 0.5 * (z + torch.sqrt(z**2)),
    "half a sum with a sign": lambda z, _: z * (torch.sign(z) + 1) / 2,
    "threshold": lambda z, _: F.threshold(z, 0, 0),
    "largest of a stack": lambda z, _: torch.stack([z, _zeros(z)]).amax(0),
    "leaky where": lambda z, _: torch.where(z > 0, z, 0.1 * z),
    "leaky where of slopes": lambda z, _: z * torch.where(z > 0, 1.0, 0.1),
    "leaky maximum": lambda z, _: torch.maximum(z, 0.1 * z),
    "leaky sum": lambda z, _: F.relu(z) - 0.1 * F.relu(-z),
    "leaky minimum": lambda z, _: z.clamp(min=0) + 0.1 * z.clamp(max=0),
    "two masks": lambda z, _: z * (z > 0) + 0.2 * z * (z <= 0),
    "squared": lambda z, _: z * torch.where(z > 0, z, 0.0),
    "cubed": lambda z, _: torch.maximum(z, _zeros(z)) ** 3,
    "a root": lambda z, _: F.relu(z).sqrt(),
    "a power": lambda z, _: F.relu(z) ** 1.5,
    "frozen slopes": lambda z, _: z * torch.where(z > 0, torch.ones(5), 0.1 * torch.ones(5)).to(z.dtype),
}


@pytest.mark.parametrize("name", members(POSITIVE, "where", "max", "masked_fill", "mask", "half a sum", "leaky where"))
def test_rectifiers_scale_however_they_are_written(name: str) -> None:
    assert counted(Hidden(POSITIVE[name]), torch.zeros(4, 3)) == Counts({(5, 0): 1}, positive=1)


# the scale in front is lost, so that positive scalings have no weight behind them; the sign has
SIGNS: dict[str, tuple[Function, int]] = {
    "z / |z|": (lambda z, _: z / z.abs(), 1),
    "z times a root": (lambda z, _: z * torch.rsqrt(z**2), 1),
    "z over a root": (lambda z, _: z / (z * z).sqrt(), 1),
    "z times a power": (lambda z, _: z * z.square().pow(-0.5), 1),
    "z times an inverse": (lambda z, _: z * z.abs().reciprocal(), 1),
    "sign": (lambda z, _: torch.sign(z), 1),
    "copysign": (lambda z, _: torch.copysign(torch.ones_like(z), z), 1),
    "signed root": (lambda z, _: z.sign() * z.abs().sqrt(), 1),
    "z |z|": (lambda z, _: z * z.abs(), 1),
    # a constant beside z: no scale
    "smoothed": (lambda z, _: z * torch.rsqrt(z**2 + 1e-3), 0),
    "softsign by hand": (lambda z, _: z / (1 + z.abs()), 0),
    # one norm for all units
    "normalize": (lambda z, _: F.normalize(z, dim=-1), 0),
    "norm": (lambda z, _: z / z.norm(dim=-1, keepdim=True), 0),
    "norm in L1": (lambda z, _: z / torch.linalg.vector_norm(z, ord=1, dim=-1, keepdim=True), 0),
    "root mean square": (lambda z, _: z / z.pow(2).mean(-1, keepdim=True).sqrt(), 0),
}


@pytest.mark.parametrize("name", members(SIGNS, "z / |z|", "z times a root", "sign", "normalize"))
def test_signs_pass_odd_functions_however_they_are_written(name: str) -> None:
    function, positive = SIGNS[name]
    assert counted(Hidden(function), torch.zeros(4, 3)) == Counts({(5, 0): 1}, positive, signs=1)


# what no scaling passes, and what no permutation passes
UNSCALED: dict[str, Function] = {
    "where, shifted": lambda z, _: torch.where(z > 0.5, z, 0.0),
    "where, another value": lambda z, _: torch.where(z > 0, z, 1.0),
    "mask, shifted": lambda z, _: z * (z >= 0.5),
    "masked_fill, another value": lambda z, _: z.masked_fill(z < 0, -1.0),
    "maximum of a number": lambda z, _: torch.maximum(z, torch.full_like(z, 0.3)),
    "threshold, shifted": lambda z, _: F.threshold(z, 0.5, 0),
    "threshold, another value": lambda z, _: F.threshold(z, 0, 1),
    "clamp, shifted": lambda z, _: z.clamp(min=-0.2),
}
FIXED: dict[str, Function] = {
    "a bias that is a buffer": lambda z, net: F.relu(z + net.offsets),
    "a bias that may be trained elsewhere": lambda z, net: F.relu(z + net.start),
    "a threshold for each unit": lambda z, net: torch.maximum(z, net.offsets),
    "slopes for each unit": lambda z, _: torch.where(z > 0, z, z * torch.arange(5)),
    "a mask for each unit": lambda z, _: z.masked_fill(torch.arange(5) > torch.arange(5).flip(0), 0),
    "a running sum": lambda z, _: torch.cumsum(torch.ones_like(z), -1) * z,
}


@pytest.mark.parametrize("name", members(UNSCALED, "where, shifted", "masked_fill, another value"))
def test_what_compares_with_other_numbers_has_no_scale(name: str) -> None:
    assert counted(Hidden(UNSCALED[name]), torch.zeros(4, 3)) == Counts({(5, 0): 1})


@pytest.mark.parametrize("name", members(FIXED, "a bias that is a buffer", "a mask for each unit"))
def test_constants_that_differ_between_units_tell_these_apart(name: str) -> None:
    architecture = Architecture.from_module(Hidden(FIXED[name]), torch.zeros(4, 3))
    assert all(group.size < 5 for group in architecture.groups)
    assert architecture.certify(inputs=torch.randn(4, 3)) < 1e-10


class Recurrent(nn.Module):
    """States of all steps, and a head."""

    def __init__(self, rnn: nn.Module, width: int) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


# states start with zeros; gates take no scale, and what they multiply is odd in the state
RECURRENT: dict[str, tuple[Callable[[], nn.Module], int, Counts]] = {
    "RNN": (lambda: nn.RNN(3, 5, num_layers=2), 5, Counts({(5, 0): 2}, signs=2)),
    "RNN of ReLUs": (lambda: nn.RNN(3, 5, nonlinearity="relu"), 5, Counts({(5, 0): 1}, positive=1)),
    "GRU": (lambda: nn.GRU(3, 5), 5, Counts({(5, 0): 1}, signs=1)),
    "LSTM in two directions": (lambda: nn.LSTM(3, 5, bidirectional=True), 10, Counts({(5, 0): 2}, signs=2)),
    "LSTM with a projection": (lambda: nn.LSTM(3, 6, proj_size=4), 4, Counts({(6, 0): 1, (4, 0): 1}, 1, 2)),
}


@pytest.mark.parametrize("name", members(RECURRENT, "RNN", "RNN of ReLUs", "LSTM with a projection"))
def test_states_have_the_signs_and_scales_of_their_activation(name: str) -> None:
    build, width, expected = RECURRENT[name]
    assert counted(Recurrent(build(), width), torch.zeros(4, 2, 3)) == expected


class Losses(Hidden):
    """A network that returns a number beside what it computes."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return {"parts": [y, y[:, :1]], "penalty": {"square": y.square().mean()}}


def test_outputs_without_dimensions_are_certified() -> None:
    assert counted(Losses(lambda z, _: z.relu()), torch.zeros(4, 3)) == Counts({(5, 0): 1}, positive=1)
