"""Stacked parameters: members of an ensemble with units of their own, heads with channels, groups of a convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from counting import Counts, counted, members, weight
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, WeightArray
from wsflow.symmetry.actions import Action
from wsflow.tracing.certificate import random_weights

MEMBERS = 3
EXAMPLES = torch.zeros(7, 4)


class Ensemble(nn.Module):
    """Networks 4-5-6-2 in stacked parameters, run by a function."""

    def __init__(self, run: Callable[[Ensemble, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.w1, self.w2, self.w3 = weight(MEMBERS, 4, 5), weight(MEMBERS, 5, 6), weight(MEMBERS, 6, 2)
        self.w4 = weight(MEMBERS, 5, 2)
        self.b1, self.b2, self.b3 = weight(MEMBERS, 1, 5), weight(MEMBERS, 1, 6), weight(MEMBERS, 1, 2)
        self.gain, self.share = weight(MEMBERS, 1, 5), weight(MEMBERS, 1, 1)
        self.shared = nn.Linear(5, 2)
        self.register_buffer("temperatures", torch.arange(1.0, 4.0).view(MEMBERS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def _bmm(net: Ensemble, x: Tensor) -> Tensor:
    x = F.relu(torch.bmm(x.expand(MEMBERS, *x.shape), net.w1) + net.b1)
    return torch.bmm(F.relu(torch.bmm(x, net.w2) + net.b2), net.w3) + net.b3


def _baddbmm(net: Ensemble, x: Tensor) -> Tensor:
    x = F.relu(torch.baddbmm(net.b1, x.expand(MEMBERS, *x.shape), net.w1))
    return torch.baddbmm(net.b3, F.relu(torch.baddbmm(net.b2, x, net.w2)), net.w3)


def _matmul(net: Ensemble, x: Tensor) -> Tensor:
    return F.relu(F.relu(x @ net.w1 + net.b1) @ net.w2 + net.b2) @ net.w3 + net.b3


def _einsum(net: Ensemble, x: Tensor) -> Tensor:
    x = F.relu(torch.einsum("bi,mio->mbo", x, net.w1) + net.b1)
    x = F.relu(torch.einsum("mbi,mio->mbo", x, net.w2) + net.b2)
    return torch.einsum("mbi,mio->mbo", x, net.w3) + net.b3


def _members_last(net: Ensemble, x: Tensor) -> Tensor:
    x = F.relu(torch.einsum("...i,mio->...mo", x, net.w1) + net.b1[:, 0])
    x = F.relu(torch.einsum("...mi,mio->...mo", x, net.w2) + net.b2[:, 0])
    return (torch.einsum("...mi,mio->...mo", x, net.w3) + net.b3[:, 0]).transpose(-3, -2)


def _transposed(net: Ensemble, x: Tensor) -> Tensor:
    x = F.relu(net.w1.transpose(1, 2) @ x.T + net.b1.transpose(1, 2))
    x = F.relu(net.w2.transpose(1, 2) @ x + net.b2.transpose(1, 2))
    return x.transpose(1, 2) @ net.w3 + net.b3


def _broadcast(net: Ensemble, x: Tensor) -> Tensor:
    x = F.relu((x[:, :, None] * net.w1[:, None]).sum(2) + net.b1)
    x = F.relu((x.unsqueeze(-1) * net.w2.unsqueeze(1)).sum(-2) + net.b2)
    return (x.unsqueeze(-1) * net.w3.unsqueeze(1)).sum(-2) + net.b3


def _broadcast_behind(net: Ensemble, x: Tensor) -> Tensor:
    x = F.relu((net.w1.mT * x[:, None, None]).sum(-1) + net.b1[:, 0])
    x = F.relu(torch.mul(net.w2.mT, x.unsqueeze(2)).sum(-1, keepdim=True).squeeze(-1) + net.b2[:, 0])
    return ((net.w3.mT * x.unsqueeze(2)).sum(-1) + net.b3[:, 0]).transpose(0, 1)


def _scaled(net: Ensemble, x: Tensor) -> Tensor:
    return net.share * _matmul(net, x)


def _gains(net: Ensemble, x: Tensor) -> Tensor:
    x = F.relu(net.gain * (x @ net.w1) + net.b1)
    return F.relu(x @ net.w2 + net.b2) @ net.w3 + net.b3


def _normed(net: Ensemble, x: Tensor) -> Tensor:
    return F.tanh(F.layer_norm(x @ net.w1 + net.b1, (5,)) @ net.w2 + net.b2) @ net.w3 + net.b3


UNITS = {(MEMBERS, 0): 1, (5, MEMBERS): 1, (6, MEMBERS): 1}
# members, and the units of each layer within each member
ENSEMBLES: dict[str, tuple[Callable[[Ensemble, Tensor], Tensor], Counts]] = {
    "bmm": (lambda net, x: _bmm(net, x).mean(0), Counts(UNITS, 2)),
    "baddbmm": (lambda net, x: _baddbmm(net, x).mean(0), Counts(UNITS, 2)),
    "matmul": (lambda net, x: _matmul(net, x).mean(0), Counts(UNITS, 2)),
    "einsum": (lambda net, x: _einsum(net, x).mean(0), Counts(UNITS, 2)),
    "members behind examples": (lambda net, x: _members_last(net, x).mean(0), Counts(UNITS, 2)),
    "transposed": (lambda net, x: _transposed(net, x).mean(0), Counts(UNITS, 2)),
    "broadcasting": (lambda net, x: _broadcast(net, x).mean(0), Counts(UNITS, 2)),
    "broadcasting, members behind examples": (lambda net, x: _broadcast_behind(net, x).mean(0), Counts(UNITS, 2)),
    "averaged probabilities": (lambda net, x: _matmul(net, x).softmax(-1).mean(0), Counts(UNITS, 2)),
    "maximum": (lambda net, x: _matmul(net, x).amax(0), Counts(UNITS, 2)),
    "deviation": (lambda net, x: _matmul(net, x).std(0), Counts(UNITS, 2)),
    # a share of each member scales against its last layer
    "weighted": (lambda net, x: _scaled(net, x).sum(0), Counts(UNITS, 3, 1)),
    # a gain scales against the weights in front of it, by signs too
    "gains": (lambda net, x: _gains(net, x).mean(0), Counts(UNITS, 3, 1)),
    "normed": (lambda net, x: _normed(net, x).mean(0), Counts(UNITS, 0, 1)),
    # all units of all members are one group: those within members, and the members, are what blocks permute
    "summed with their units": (
        lambda net, x: torch.einsum("bmi,mio->bo", F.relu(torch.einsum("bi,mih->bmh", x, net.w1)), net.w4),
        Counts({(MEMBERS, 0): 1, (5, MEMBERS): 1}, 1),
    ),
    "one layer, broadcasting": (
        lambda net, x: ((x @ net.w1 + net.b1).relu().unsqueeze(-1) * net.w4[:, None]).sum(2).mean(0),
        Counts({(MEMBERS, 0): 1, (5, MEMBERS): 1}, 1),
    ),
    # members with places of their own: each has groups of its own
    "all outputs": (_matmul, Counts({(5, 0): MEMBERS, (6, 0): MEMBERS}, 2 * MEMBERS)),
    "temperatures": (
        lambda net, x: (_matmul(net, x) / net.temperatures).sum(0),
        Counts({(5, 0): MEMBERS, (6, 0): MEMBERS}, 2 * MEMBERS),
    ),
    # units that go into one layer of all members are the same in all of them
    "a shared layer": (
        lambda net, x: net.shared(F.relu(x @ net.w1 + net.b1)).mean(0),
        Counts({(MEMBERS, 0): 1, (5, 0): 1}, 1),
    ),
    "one by one": (
        lambda net, x: sum(F.relu(x @ net.w1[i]) @ net.w2[i] for i in range(MEMBERS)),
        Counts({(5, 0): MEMBERS}, MEMBERS),
    ),
}


@pytest.mark.parametrize(
    "name",
    members(
        ENSEMBLES,
        "bmm",
        "broadcasting",
        "summed with their units",
        "einsum",
        "weighted",
        "temperatures",
        "a shared layer",
    ),
)
def test_members_of_a_stacked_ensemble_have_units_of_their_own(name: str) -> None:
    run, expected = ENSEMBLES[name]
    assert counted(Ensemble(run), EXAMPLES) == expected


class Mapped(nn.Module):
    """An ensemble run by torch.vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bias, self.b = weight(MEMBERS, 5, 4), weight(MEMBERS, 5), weight(MEMBERS, 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        def one(a: Tensor, bias: Tensor, b: Tensor) -> Tensor:
            return F.linear(F.relu(F.linear(x, a, bias)), b)

        return torch.vmap(one)(self.a, self.bias, self.b).mean(0)


class Experts(nn.Module):
    """A mixture of experts: gates move along with experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.w, self.v = nn.Linear(4, MEMBERS), weight(MEMBERS, 4, 5), weight(MEMBERS, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        experts = torch.einsum("beh,eho->beo", F.relu(torch.einsum("bi,eih->beh", x, self.w)), self.v)
        return (self.gate(x).softmax(-1)[..., None] * experts).sum(1)


class BatchEnsemble(nn.Module):
    """Wen, Tran and Ba 2020, arXiv:2002.06715: members share a layer, and have factors of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5, bias=False), nn.Linear(5, 2)
        self.r, self.s = weight(MEMBERS, 1, 4), weight(MEMBERS, 1, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x * self.r) * self.s)).mean(0)


class Heads(nn.Module):
    """Attention with parameters (heads, inputs, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
        self.q, self.k, self.v, self.o = weight(2, 8, 3), weight(2, 8, 3), weight(2, 8, 5), weight(2, 5, 8)
        self.bias = weight(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (torch.einsum("btd,hde->bthe", x, w) for w in (self.q, self.k, self.v))
        scores = torch.einsum("bthe,bshe->bhts", q + self.bias, k)
        causal = torch.ones(scores.shape[-2:]).triu(1).bool().expand(2, -1, -1)
        mixed = scores.masked_fill(causal, -1e9).softmax(-1)
        return self.head(torch.einsum("bhts,bshe,hed->btd", mixed, v, self.o).mean(1))


class LocallyConnected(nn.Module):
    """Weights of their own for each token, whose units are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = weight(3, 4, 5), weight(3, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bto,toc->bc", F.relu(torch.einsum("bti,tio->bto", x, self.w)), self.v)


class Unfolded(nn.Module):
    """A convolution as a matrix product with patches."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.conv, self.patches = nn.Conv2d(3, 4, 3), nn.Unfold(3, padding=padding)
        self.w, self.bias, self.head = weight(5, 4 * 9), weight(5, 1), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.w @ self.patches(F.relu(self.conv(x))) + self.bias).mean(-1))


class Windowed(nn.Module):
    """Convolutions over windows of a signal; with `channels` in the windows, these stay where they are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv, self.dim = nn.Conv1d(3, 4, 3), dim
        self.w, self.head = weight(5, 4, 3) if dim == 2 else weight(5, 7, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        windows = F.relu(self.conv(x)).unfold(self.dim, 3, 2)
        windows = windows if self.dim == 2 else windows[:, 0]
        return (
            self.head(F.relu(torch.einsum("bclk,ock->bol", windows, self.w)).mean(-1))
            if self.dim == 2
            else (self.head(F.relu(torch.einsum("bck,ock->bo", windows, self.w))))
        )


def _shuffled(groups: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.ChannelShuffle(groups), nn.ReLU(), nn.Conv2d(6, 2, 1))


def _deconvolved(kind: str, inputs: int, outputs: int, groups: int) -> nn.Module:
    conv, transposed = getattr(nn, f"Conv{kind}"), getattr(nn, f"ConvTranspose{kind}")
    return nn.Sequential(
        conv(3, inputs, 1), nn.ReLU(), transposed(inputs, outputs, 3, 2, 1, 1, groups), nn.ReLU(), conv(outputs, 2, 1)
    )


SIGNAL, IMAGE = torch.zeros(2, 3, 9), torch.zeros(2, 3, 6, 6)
OTHERS: dict[str, tuple[Callable[[], nn.Module], Any, Counts]] = {
    "vmap": (Mapped, EXAMPLES, Counts({(MEMBERS, 0): 1, (5, MEMBERS): 1}, 1)),
    "mixture of experts": (Experts, EXAMPLES, Counts({(MEMBERS, 0): 1, (5, MEMBERS): 1}, 1)),
    # r against s by members; s by units against the shared layer in front, and behind the ReLU
    "batch ensemble": (BatchEnsemble, EXAMPLES, Counts({(MEMBERS, 0): 1, (5, 0): 1}, 3, 2)),
    "heads": (Heads, torch.zeros(2, 3, 4), Counts({(8, 0): 2, (2, 0): 1, (3, 2): 1, (5, 2): 1}, 4, 4)),
    "locally connected": (LocallyConnected, torch.zeros(2, 3, 4), Counts({(5, 0): 3}, 3)),
    "patches": (lambda: Unfolded(0), IMAGE, Counts({(4, 0): 1, (5, 0): 1}, 2)),
    "padded patches": (lambda: Unfolded(1), IMAGE, Counts({(4, 0): 1, (5, 0): 1}, 2)),
    "windows": (lambda: Windowed(2), SIGNAL, Counts({(4, 0): 1, (5, 0): 1}, 2)),
    "windows of channels": (lambda: Windowed(1), SIGNAL, Counts({(5, 0): 1}, 1)),
    "shuffled channels": (lambda: _shuffled(3), IMAGE, Counts({(6, 0): 1}, 1)),
    "transposed 1d": (lambda: _deconvolved("1d", 6, 9, 3), SIGNAL, Counts({(3, 0): 1, (2, 3): 1, (3, 3): 1}, 2)),
    "transposed 2d": (lambda: _deconvolved("2d", 8, 12, 4), IMAGE, Counts({(4, 0): 1, (2, 4): 1, (3, 4): 1}, 2)),
    "transposed 3d": (
        lambda: _deconvolved("3d", 4, 4, 2), torch.zeros(2, 3, 2, 2, 2), Counts({(2, 0): 1, (2, 2): 2}, 2)
    ),
    "transposed depthwise": (lambda: _deconvolved("2d", 4, 4, 4), IMAGE, Counts({(4, 0): 1}, 2)),
    "transposed depthwise, two each": (lambda: _deconvolved("2d", 4, 8, 4), IMAGE, Counts({(4, 0): 1, (2, 4): 1}, 2)),
    "transposed to one each": (lambda: _deconvolved("1d", 6, 3, 3), SIGNAL, Counts({(3, 0): 1, (2, 3): 1}, 2)),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", members(OTHERS, "mixture of experts", "heads", "patches", "windows", "transposed 1d", "transposed 2d")
)
def test_what_is_stacked_grouped_or_unfolded_is_counted(name: str) -> None:
    build, inputs, expected = OTHERS[name]
    assert counted(build(), inputs) == expected


@pytest.mark.parametrize(
    "name", members(["bmm", "weighted", "a shared layer", "temperatures", "summed with their units"], "bmm")
)
def test_orbits_of_ensembles_are_points(name: str) -> None:
    """Members and their units, permuted and scaled at random, are found again."""
    architecture = Architecture.from_module(Ensemble(ENSEMBLES[name][0]), EXAMPLES)
    generator = torch.Generator().manual_seed(0)
    row = random_weights(architecture, 1, generator)
    moved = Action.random(architecture, 4, generator)(row.expand(4, -1))
    assert float((moved - row).abs().max()) > 0.1
    steps = make_pipeline(PermutationAligner(random_state=0), ScaleCanonicalizer())
    found = np.asarray(steps.fit_transform(WeightArray(moved.numpy(), architecture)))
    assert np.abs(found - found[0]).max() < 1e-10


def _rest(pixels: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(6 * pixels, 4), nn.ReLU(), nn.Linear(4, 2)]


# six channels by twos and by threes: the mirror image of all, and the first two and the last two among themselves
CROSSING: dict[str, tuple[Callable[[], nn.Module], Counts]] = {
    "a depthwise multiplier and a group norm": (
        lambda: nn.Sequential(
            *(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False)),
            *(nn.GroupNorm(2, 6), nn.AdaptiveAvgPool2d(1), *_rest(1)),
        ),
        Counts({(2, 0): 1, (2, 2): 1, (4, 0): 1}, positive=3, signs=2),
    ),
    "two norms": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(2, 6), nn.ReLU(), nn.GroupNorm(3, 6), *_rest(16)),
        Counts({(2, 0): 1, (2, 2): 1, (4, 0): 1}, positive=2, signs=1),
    ),
    # nothing crosses: twos in fours
    "two norms, nested": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.GroupNorm(4, 8), nn.Flatten(), nn.Linear(128, 2)
        ),
        Counts({(2, 0): 1, (2, 2): 2}, positive=1, signs=1),
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CROSSING)
def test_groups_of_channels_that_cross_move_together(name: str) -> None:
    build, expected = CROSSING[name]
    assert counted(build(), torch.zeros(2, 3, 4, 4)) == expected


def test_groups_whose_channels_lie_in_other_orders_keep_their_place() -> None:
    """The mirror image would turn the inputs of each kernel around, which no permutation of neurons does."""
    norms = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(3, 6), nn.Conv2d(6, 6, 1, groups=2), *_rest(16))
    with pytest.warns(UserWarning, match="could not be certified, and are left out: group 0.groups"):
        architecture = Architecture.from_module(norms, torch.zeros(2, 3, 4, 4))
    assert [group.size for group in architecture.groups] == [4]
    assert architecture.certify(norms, torch.randn(2, 3, 4, 4)) < 1e-10
