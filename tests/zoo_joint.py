"""Networks whose symmetries lie on top of each other: even activations, heads with tables and gains, ensembles."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Even(nn.Module):
    """An even function behind a linear layer: a sign of each neuron, beside the scale that some of them have."""

    def __init__(self, function: Callable[[Tensor], Tensor], bias: bool = True) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 5, bias=bias), nn.Linear(5, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return self.c(torch.relu(self.b(self.function(self.a(x)))))


class Heads(nn.Module):
    """Attention; subclasses change queries and keys, scores, or attention weights by something that each head has."""

    def __init__(self, heads: int = 3, channels: int = 2, tokens: int = 4) -> None:
        super().__init__()
        width = heads * channels
        self.heads, self.tokens = heads, tokens
        self.embed, self.head = nn.Linear(3, width), nn.Linear(width, 2)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.build(heads, channels, tokens)

    def build(self, heads: int, channels: int, tokens: int) -> None:
        """Make further parameters."""

    def queries_and_keys(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Change queries and keys (b, heads, tokens, channels)."""
        return q, k

    def scores(self, scores: Tensor) -> Tensor:
        """Change scores (b, heads, tokens, tokens)."""
        return scores

    def weights(self, weights: Tensor) -> Tensor:
        """Change attention weights (b, heads, tokens, tokens)."""
        return weights

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to logits."""
        x = self.embed(x)
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = self.queries_and_keys(q, k)
        weights = self.weights(self.scores(q @ k.transpose(-2, -1)).softmax(-1))
        return self.head(self.o((weights @ v).transpose(1, 2).reshape(b, t, d)))


class PositionTable(Heads):
    """A score for each head and pair of positions."""

    def build(self, heads: int, channels: int, tokens: int) -> None:
        """Make the table."""
        self.table = nn.Parameter(torch.randn(heads, tokens, tokens))

    def scores(self, scores: Tensor) -> Tensor:
        """Add it."""
        return scores + self.table


class RelativeTable(Heads):
    """A score for each head and distance, as in T5 and Swin."""

    def build(self, heads: int, channels: int, tokens: int) -> None:
        """Make the table."""
        self.table = nn.Embedding(2 * tokens - 1, heads)

    def scores(self, scores: Tensor) -> Tensor:
        """Add it."""
        t = scores.shape[-1]
        distance = torch.arange(t)[:, None] - torch.arange(t) + self.tokens - 1
        return scores + self.table(distance).permute(2, 0, 1)


class Slopes(Heads):
    """A slope for each head, as in ALiBi."""

    def build(self, heads: int, channels: int, tokens: int) -> None:
        """Make the slopes."""
        self.slope = nn.Parameter(torch.rand(heads))

    def scores(self, scores: Tensor) -> Tensor:
        """Subtract the slope times the distance."""
        t = scores.shape[-1]
        distance = (torch.arange(t)[:, None] - torch.arange(t)).abs().to(scores)
        return scores - self.slope[:, None, None] * distance


class TalkingHeads(Heads):
    """Attention weights are mixed over heads."""

    def build(self, heads: int, channels: int, tokens: int) -> None:
        """Make the matrix."""
        self.mix = nn.Parameter(torch.randn(heads, heads))

    def weights(self, weights: Tensor) -> Tensor:
        """Mix."""
        return torch.einsum("gh,bhij->bgij", self.mix, weights)


class HeadGains(Heads):
    """Normalised queries and keys, with gains (heads, channels)."""

    def build(self, heads: int, channels: int, tokens: int) -> None:
        """Make the gains."""
        self.gq, self.gk = (nn.Parameter(torch.rand(heads, 1, channels) + 0.5) for _ in range(2))

    def queries_and_keys(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise and stretch."""
        return F.normalize(q, dim=-1) * self.gq, F.normalize(k, dim=-1) * self.gk


class FlatGains(HeadGains):
    """The same, without an axis of one."""

    def build(self, heads: int, channels: int, tokens: int) -> None:
        """Make the gains."""
        self.gq, self.gk = (nn.Parameter(torch.rand(heads, channels) + 0.5) for _ in range(2))

    def queries_and_keys(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise and stretch."""
        return F.normalize(q, dim=-1) * self.gq[:, None], F.normalize(k, dim=-1) * self.gk[:, None]


class SharedNorms(FlatGains):
    """The norms have gains that all heads share, in front of those of each head."""

    def build(self, heads: int, channels: int, tokens: int) -> None:
        """Make gains and norms."""
        super().build(heads, channels, tokens)
        self.qn, self.kn = nn.RMSNorm(channels), nn.RMSNorm(channels)

    def queries_and_keys(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise and stretch twice."""
        return self.qn(q) * self.gq[:, None], self.kn(k) * self.gk[:, None]


class StackedEnsemble(nn.Module):
    """Members in one tensor, by batched products."""

    def __init__(self, members: int = 3, hidden: int = 4) -> None:
        super().__init__()
        shapes = [(members, 3, hidden), (members, 1, hidden), (members, hidden, 2), (members, 1, 2)]
        self.a, self.ab, self.c, self.cb = (nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        hidden = torch.relu(torch.bmm(x.expand(len(self.a), *x.shape), self.a) + self.ab)
        return (torch.bmm(hidden, self.c) + self.cb).mean(0)


class BatchEnsemble(nn.Module):
    """Members that share matrices and have gains (members, neurons) in front and behind (Wen et al. 2020)."""

    def __init__(self, function: Callable[[Tensor], Tensor], members: int = 3) -> None:
        super().__init__()
        self.function = function
        self.r = nn.ParameterList([torch.randn(members, n) for n in (3, 4, 5)])
        self.s = nn.ParameterList([torch.randn(members, n) for n in (4, 5)])
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 5)])
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        x = x[:, None]
        for layer, r, s in zip(self.layers, self.r, self.s, strict=False):
            x = self.function(layer(x * r) * s)
        return self.head(x * self.r[2]).mean(1)


class OuterGains(nn.Module):
    """Gains in front of and behind a ReLU, on all pairs of two kinds of neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 4)
        self.g, self.k = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Features to one number."""
        pairs = self.a(x)[:, :, None] * self.g * self.b(x)[:, None]
        return (torch.relu(pairs) * self.k).sum((1, 2))[:, None]


class SquaredGains(nn.Module):
    """Gains that are squared: the scale of a neuron is that of its gain, squared."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.gain = nn.Linear(3, 5), nn.Linear(5, 2), nn.Parameter(torch.rand(5))

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return self.c(torch.sigmoid(torch.relu(self.a(x)) * self.gain * self.gain))


class Pairs(nn.Module):
    """Two kinds of neurons that meet only each other: no weight is on one of them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Parameter(torch.randn(3, 4, 5)), nn.Parameter(torch.randn(4, 5, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return torch.einsum("bmh,mho->bo", F.gelu(torch.einsum("bi,imh->bmh", x, self.a)), self.c)


class Maxout(nn.Module):
    """Two layers of maxout (Goodfellow et al. 2013)."""

    def __init__(self, units: int = 4, pieces: int = 3) -> None:
        super().__init__()
        self.pieces = pieces
        self.a, self.b, self.c = nn.Linear(3, units * pieces), nn.Linear(units, 5 * pieces), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        for layer in (self.a, self.b):
            x = layer(x).unflatten(-1, (-1, self.pieces)).amax(-1)
        return self.c(x)


class BroadcastEnsemble(nn.Module):
    """Members in one tensor, by products that are summed up: hidden units of each, and outputs over all of them."""

    def __init__(self, function: Callable[[Tensor], Tensor], members: int = 3, hidden: int = 4) -> None:
        super().__init__()
        self.function = function
        shapes = [(members, 3, hidden), (members, hidden), (members, hidden, 5), (members, 5, 2)]
        self.a, self.ab, self.b, self.c = (nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        x = self.function((x[:, None, :, None] * self.a).sum(2) + self.ab)
        x = self.function((x[..., None] * self.b).sum(2))
        return torch.einsum("bmi,mio->bo", x, self.c)


class LinearAttention(Heads):
    """Attention without a softmax: queries of a head scale against its values."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to logits."""
        x = self.embed(x)
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(-2, -1)).relu() @ v
        return self.head(self.o(mixed.transpose(1, 2).flatten(2)))
