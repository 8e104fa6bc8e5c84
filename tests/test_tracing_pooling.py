"""Units of several pieces, counted against theory: maxout, sums and norms of pieces, and halves of opposite signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counting import Counts, counted, members, weight
from torch import Tensor, nn

UNITS, PIECES = 5, 3
FEATURES, IMAGES = torch.zeros(7, 4), torch.zeros(2, 3, 6, 6)


class Pooled(nn.Module):
    """A layer of pieces, a function that makes units of them, and a layer of units."""

    def __init__(self, front: nn.Module, pool: Callable[[Tensor], Tensor], units: int = UNITS) -> None:
        super().__init__()
        self.front, self.pool, self.back = front, pool, nn.Linear(units, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.pool(self.front(x)))


class Pieces(nn.Module):
    """Affine maps of all pieces, by a function of their parameters."""

    def __init__(self, shape: tuple[int, ...], bias: tuple[int, ...], run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.w, self.b, self.run = weight(*shape), weight(*bias), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.w, self.b)


class Branches(nn.Module):
    """Linear layers of their own for each piece, stacked."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = nn.ModuleList([nn.Linear(4, UNITS) for _ in range(pieces)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([piece(x) for piece in self.pieces])


def _fused() -> nn.Module:
    return nn.Linear(4, UNITS * PIECES)


def _by_units(z: Tensor) -> Tensor:
    return z.unflatten(1, (UNITS, PIECES))


# units, and the pieces of each: all pieces of a unit scale alike
IN_UNITS = {(UNITS, 0): 1, (PIECES, UNITS): 1}
# Goodfellow et al. 2013, arXiv:1302.4389, and other functions that see the pieces of a unit in no order
POOLED: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor], Counts]] = {
    "maxout": (_fused, lambda z: _by_units(z).amax(-1), Counts(IN_UNITS, 1)),
    "maxout with positions": (_fused, lambda z: _by_units(z).max(-1).values, Counts(IN_UNITS, 1)),
    "maxout, pieces first": (_fused, lambda z: z.view(-1, PIECES, UNITS).amax(1), Counts(IN_UNITS, 1)),
    "maxout by einsum": (
        lambda: Pieces((UNITS, PIECES, 4), (UNITS, PIECES), lambda x, w, b: torch.einsum("bi,uki->buk", x, w) + b),
        lambda z: z.amax(-1),
        Counts(IN_UNITS, 1),
    ),
    "maxout by matmul": (
        lambda: Pieces((PIECES, 4, UNITS), (PIECES, 1, UNITS), lambda x, w, b: x @ w + b),
        lambda z: z.amax(0),
        Counts(IN_UNITS, 1),
    ),
    "minout": (_fused, lambda z: _by_units(z).amin(-1), Counts(IN_UNITS, 1)),
    "sums of rectified pieces": (_fused, lambda z: _by_units(z.relu()).sum(-1), Counts(IN_UNITS, 1)),
    "means of leaky pieces": (_fused, lambda z: _by_units(F.leaky_relu(z)).mean(-1), Counts(IN_UNITS, 1)),
    # each piece has a sign that is lost
    "norms of pieces": (_fused, lambda z: _by_units(z).norm(dim=-1), Counts(IN_UNITS, 1, 1)),
    "sums of squares": (_fused, lambda z: _by_units(z).square().sum(-1), Counts(IN_UNITS, 1, 1)),
    # each piece has the sign of its unit
    "sums of odd pieces": (_fused, lambda z: _by_units(z.tanh()).sum(-1), Counts(IN_UNITS, 0, 1)),
    "log-sums": (_fused, lambda z: _by_units(z).logsumexp(-1), Counts(IN_UNITS)),
    # the scale of a unit is lost
    "ratios": (_fused, lambda z: _by_units(z).amax(-1) / _by_units(z).norm(dim=-1), Counts(IN_UNITS, 1)),
    # pieces with parameters of their own: units alone move
    "maxout of two layers": (lambda: Branches(2), lambda z: torch.maximum(*z.unbind()), Counts({(UNITS, 0): 1}, 1)),
    "maxout of three layers": (lambda: Branches(3), lambda z: z.amax(0), Counts({(UNITS, 0): 1}, 1)),
    "maxout of halves": (
        lambda: nn.Linear(4, 2 * UNITS),
        lambda z: torch.maximum(*z.chunk(2, -1)),
        Counts({(UNITS, 0): 1}, 1),
    ),
}


@pytest.mark.parametrize("name", members(POOLED, "maxout", "maxout by matmul", "sums of odd pieces", "log-sums"))
def test_units_of_pieces_scale_as_their_pool_does(name: str) -> None:
    build, pool, expected = POOLED[name]
    assert counted(Pooled(build(), pool), FEATURES) == expected


# Shang et al. 2016, arXiv:1603.05201: a sign of a unit would exchange its halves, which no wire does
CONCATENATED: dict[str, tuple[Callable[[Tensor], Tensor], Counts]] = {
    "CReLU": (lambda z: torch.cat([z, -z], 1).relu(), Counts({(UNITS, 0): 1}, 1)),
    "CReLU of two": (lambda z: torch.cat([z.relu(), (-z).relu()], 1), Counts({(UNITS, 0): 1}, 1)),
    "CReLU, interleaved": (lambda z: torch.stack([z, -z], -1).relu().flatten(1), Counts({(UNITS, 0): 1}, 1)),
    "CReLU of bounds": (lambda z: torch.cat([z.clamp(min=0), z.clamp(max=0)], 1), Counts({(UNITS, 0): 1}, 1)),
    "concatenated ELU": (lambda z: F.elu(torch.cat([z, -z], 1)), Counts({(UNITS, 0): 1})),
    "both odd": (lambda z: torch.cat([z.tanh(), -z], 1), Counts({(UNITS, 0): 1}, 0, 1)),
    "a square": (lambda z: torch.cat([z, z.square()], 1), Counts({(UNITS, 0): 1}, 1, 1)),
}


@pytest.mark.parametrize("name", members(CONCATENATED, "CReLU", "CReLU, interleaved"))
def test_halves_of_opposite_signs_scale_together(name: str) -> None:
    run, expected = CONCATENATED[name]
    assert counted(Pooled(nn.Linear(4, UNITS), run, 2 * UNITS), FEATURES) == expected


def _two_layers() -> nn.Module:
    first = nn.Sequential(_fused(), nn.Unflatten(1, (UNITS, PIECES)), _Max(2), nn.Linear(UNITS, 12))
    return Pooled(nn.Sequential(first, nn.Unflatten(1, (6, 2))), lambda z: z.amax(-1), 6)


class _Max(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        return z.amax(self.dim)


class LinearAttention(nn.Module):
    """Attention without a softmax, whose heads mix scores of any size: values of a head scale against its queries."""

    def __init__(self, rectified: bool) -> None:
        super().__init__()
        self.embed, self.head, self.rectified = nn.Linear(4, 6), nn.Linear(6, 2), rectified
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (f(x).unflatten(-1, (2, 3)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-2, -1)
        scores = scores.relu() if self.rectified else scores
        return self.head(self.o((scores @ v).transpose(1, 2).flatten(2)).mean(1))


OTHERS: dict[str, tuple[Callable[[], nn.Module], Any, Counts]] = {
    "two layers of maxout": (_two_layers, FEATURES, Counts({**IN_UNITS, (6, 0): 1, (2, 6): 1}, 2)),
    "convolution": (
        lambda: Pooled(nn.Conv2d(3, UNITS * PIECES, 3), lambda z: _by_units(z).amax(2).mean((2, 3))),
        IMAGES,
        Counts(IN_UNITS, 1),
    ),
    # the stream; the heads, with channels of queries and keys, and of values; and each head's queries as a whole
    "linear attention": (
        lambda: LinearAttention(False), torch.zeros(2, 4, 4), Counts({(6, 0): 2, (2, 0): 1, (3, 2): 2}, 5, 5)
    ),
    "rectified attention": (
        lambda: LinearAttention(True), torch.zeros(2, 4, 4), Counts({(6, 0): 2, (2, 0): 1, (3, 2): 2}, 5, 4)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", members(OTHERS, "two layers of maxout", "linear attention"))
def test_scales_of_pools_reach_what_is_behind(name: str) -> None:
    build, inputs, expected = OTHERS[name]
    assert counted(build(), inputs) == expected
