"""Masks and positions that are the same for all heads keep the heads' symmetry, whatever shapes they go through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from counting import Counts, counted, members
from torch import Tensor, nn

from wsflow import Architecture, WeightArray
from wsflow.running import forward

BATCH, TOKENS, HEADS, CHANNELS = 3, 4, 2, 4
TOKENS_IN = torch.zeros(BATCH, TOKENS, 5)
PADDED = torch.tensor([[False, False, False, True], [False, False, True, True], [False, False, False, False]])
SCORES = (BATCH, HEADS, TOKENS, TOKENS)
ROWS = (BATCH * HEADS, TOKENS, TOKENS)

# the streams in front of and behind attention; heads, with channels of queries and keys, and of values
HEADED = Counts({(8, 0): 2, (2, 0): 1, (4, 2): 2}, positive=4, signs=4)
# heads are told apart: each has channels of its own
TOLD_APART = Counts({(8, 0): 2, (4, 0): 4}, positive=6, signs=6)


class Attention(nn.Module):
    """Attention by hand, whose scores (examples times heads, tokens, tokens) are masked by a function of the module."""

    def __init__(self, masked: Callable[..., Tensor]) -> None:
        super().__init__()
        self.embed, self.head, self.masked = nn.Linear(5, 8), nn.Linear(8, 2), masked
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.table = nn.Parameter(torch.randn(TOKENS, TOKENS))
        self.register_buffer("causal", torch.ones(TOKENS, TOKENS).tril().bool().repeat(HEADS, 1, 1))
        self.register_buffer("distance", torch.arange(16.0).view(4, 4).expand(HEADS, 4, 4).clone())
        self.register_buffer("slopes", torch.tensor([0.5, 0.25]))

    def forward(self, x: Tensor, *masks: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (f(x).view(BATCH, TOKENS, HEADS, CHANNELS).transpose(1, 2).flatten(0, 1) for f in self._maps())
        scores = self.masked(self, q @ k.transpose(-2, -1), *masks).view(ROWS)
        mixed = (scores.softmax(-1) @ v).view(BATCH, HEADS, TOKENS, CHANNELS)
        return self.head(self.o(mixed.transpose(1, 2).flatten(2)).mean(1))

    def _maps(self) -> tuple[nn.Module, ...]:
        return self.q, self.k, self.v


def _triangle() -> Tensor:
    return torch.ones(TOKENS, TOKENS).triu(1).bool()


SHARED: dict[str, Callable[..., Tensor]] = {
    "causal": lambda _, s: s.masked_fill(_triangle(), float("-inf")),
    "causal, a choice": lambda _, s: torch.where(_triangle(), torch.finfo(s.dtype).min, s),
    "causal, added": lambda _, s: s + torch.zeros(TOKENS, TOKENS).masked_fill(_triangle(), -1e9),
    "causal, repeated in a buffer": lambda net, s: s.view(SCORES).masked_fill(~net.causal, -1e9),
    "causal, indexed": lambda net, s: s.view(SCORES).masked_fill(~net.causal[torch.zeros(2, dtype=torch.int64)], -1e9),
    "causal, stacked": lambda _, s: s.masked_fill(torch.stack([_triangle()] * BATCH * HEADS), -1e9),
    "positions in a buffer": lambda net, s: s.view(SCORES) - net.distance,
    "positions, learned": lambda net, s: s.view(SCORES) + net.table,
    "distances": lambda _, s: s - (torch.arange(4)[:, None] - torch.arange(4)).abs().repeat(6, 1, 1),
    "padding, expanded and viewed": lambda _, s, m: s.masked_fill(
        m.view(BATCH, 1, 1, TOKENS).expand(-1, HEADS, -1, -1).reshape(6, 1, TOKENS), float("-inf")
    ),
    "padding, added": lambda _, s, m: (
        s.view(SCORES) + torch.zeros(PADDED.shape).masked_fill(m, -1e9)[:, None, None].expand(-1, HEADS, -1, -1)
    ),
    "padding, interleaved": lambda _, s, m: s.masked_fill(m.repeat_interleave(HEADS, 0)[:, None], -1e9),
    "padding, repeated": lambda _, s, m: s.masked_fill(m[:, None].repeat(1, HEADS, 1).flatten(0, 1)[:, None], -1e9),
    "padding, indexed": lambda _, s, m: s.masked_fill(m[torch.arange(6) // HEADS][:, None], -1e9),
    "padding, stacked": lambda _, s, m: s.masked_fill(torch.stack([m] * HEADS, 1).flatten(0, 1)[:, None], -1e9),
    "padding of pairs": lambda _, s, m: s.masked_fill(
        (m[:, :, None] | m[:, None]).unsqueeze(1).expand(SCORES).reshape(ROWS), -1e9
    ),
    "padding and causal": lambda _, s, m: s.view(SCORES).masked_fill(m[:, None, None] | _triangle(), -1e9),
}
DIFFERENT: dict[str, Callable[..., Tensor]] = {
    "slopes of heads": lambda net, s: s.view(SCORES) - net.slopes[:, None, None] * net.distance,
    "positions of heads": lambda _, s: s.view(SCORES) + torch.arange(8.0).view(2, 1, 4),
    "a window for each head": lambda _, s: s.view(SCORES).masked_fill(torch.stack([_triangle(), _triangle().T]), -1e9),
    # of the first head's first example, the second's second, and so on
    "padding, repeated in the other order": lambda _, s, m: s.masked_fill(m.repeat(HEADS, 1)[:, None], -1e9),
}


def _inputs(masked: Callable[..., Tensor]) -> Any:
    return (TOKENS_IN, PADDED) if masked.__code__.co_argcount == 3 else TOKENS_IN


@pytest.mark.parametrize("name", members(SHARED, "causal", "positions in a buffer", "padding, expanded and viewed"))
def test_a_mask_that_heads_share_leaves_them_exchangeable(name: str) -> None:
    assert counted(Attention(SHARED[name]), _inputs(SHARED[name])) == HEADED


@pytest.mark.parametrize("name", members(DIFFERENT, "slopes of heads", "padding, repeated in the other order"))
def test_a_mask_that_differs_between_heads_tells_them_apart(name: str) -> None:
    assert counted(Attention(DIFFERENT[name]), _inputs(DIFFERENT[name])) == TOLD_APART


class Encoder(nn.Module):
    """torch's own encoder, with masks of its callers."""

    def __init__(self, **masks: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, HEADS, 10, batch_first=True, norm_first=True)
        self.embed, self.head, self.masks = nn.Linear(5, 8), nn.Linear(8, 2), masks
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=padding, **self.masks).mean(1))


@pytest.mark.parametrize(("padded", "causal"), [(True, False), pytest.param(True, True, marks=pytest.mark.slow)])
def test_torchs_encoder_keeps_its_heads_behind_masks(padded: bool, causal: bool) -> None:
    masks = {"mask": _triangle(), "is_causal": True} if causal else {}
    inputs = (TOKENS_IN, PADDED) if padded else TOKENS_IN
    # the norm's gain in front of attention, and that of the norm in front of the hidden layer
    assert counted(Encoder(**masks), inputs) == Counts(
        {(8, 0): 1, (2, 0): 1, (4, 2): 2, (10, 0): 1}, positive=5, signs=4
    )


class Windows(nn.Module):
    """Attention in windows, some of whose pairs are masked, as in shifted-window transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.head = nn.Linear(5, 8), nn.Linear(8, 24), nn.Linear(8, 2)
        self.register_buffer("mask", torch.randn(2, TOKENS, TOKENS).gt(0) * -100.0)

    def forward(self, x: Tensor) -> Tensor:
        windows = self.embed(x).view(-1, TOKENS, 8)
        q, k, v = self.qkv(windows).view(-1, TOKENS, 3, HEADS, CHANNELS).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)).view(-1, 2, HEADS, TOKENS, TOKENS) + self.mask[:, None]
        mixed = scores.view(-1, HEADS, TOKENS, TOKENS).softmax(-1) @ v
        return self.head(mixed.transpose(1, 2).flatten(2).mean(1))


def test_masks_of_windows_leave_heads_exchangeable() -> None:
    assert counted(Windows(), torch.zeros(2, 8, 5)) == Counts({(8, 0): 1, (2, 0): 1, (4, 2): 2}, positive=3, signs=3)


def test_a_mask_of_units_that_all_share_leaves_them_exchangeable() -> None:
    """Dropped tokens, and a channel mask of ones."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            kept = (~padding)[..., None].expand(-1, -1, 6).flatten(0, 1).view(BATCH, TOKENS, 6)
            return self.b((F.relu(self.a(x)) * kept * torch.ones(6)).sum(1))

    assert counted(Masked(), (TOKENS_IN, PADDED)) == Counts({(6, 0): 1}, positive=1)


class MaskedEncoder(nn.Module):
    """A causal mask in a buffer, which torch's encoder would look at to see whether it is causal."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.register_buffer("mask", torch.triu(torch.full((5, 5), float("-inf")), 1), persistent=False)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sequences to logits of each place."""
        return self.head(self.encoder(x, mask=self.mask))


@pytest.mark.parametrize("layers", [1, 2])
def test_causal_masks_of_encoders_are_read(layers):
    torch.manual_seed(0)
    module, x = MaskedEncoder(layers).eval(), torch.randn(3, 5, 8)
    architecture = Architecture.from_module(module, x)
    sizes = {group.name: group.total for group in architecture.groups}
    heads = {name: size for name, size in sizes.items() if name.endswith("heads")}
    assert heads == {f"encoder.layers.{i}.self_attn.heads": 2 for i in range(layers)}
    assert architecture.certify(module, x) < 1e-12
    weights = torch.from_numpy(np.array(WeightArray.from_modules([module], architecture)))
    torch.testing.assert_close(forward(weights, architecture, x)[0], module(x), rtol=1e-5, atol=1e-5)
    # it is causal: the first place does not see the last one
    other = x.clone()
    other[:, -1] += 1
    torch.testing.assert_close(
        forward(weights, architecture, other)[0, :, :-1], module(x)[:, :-1], rtol=1e-5, atol=1e-5
    )
