"""The neuron transformer: one token for each neuron, messages along the weights between them.

References
----------
Zhou et al. 2023, "Permutation equivariant neural functionals", arXiv:2302.14040; Kofinas et al. 2024,
"Graph neural networks for learning equivariant representations of neural networks", arXiv:2403.12143;
Vaswani et al. 2017, arXiv:1706.03762; Peebles and Xie 2023, arXiv:2212.09748 (time as modulation).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.metanetworks.embedding import Scale, TimeEmbedding, linear, thinned, zero
from wsflow.metanetworks.folding import Folding
from wsflow.running import take


class Layer(nn.Module):
    """Attention among all tokens, messages along the weights in both directions, and a feed-forward network.

    Parameters
    ----------
    dim, heads : int
    channels : list of int
        Channels of each edge block.
    dropout : float
        Of what each part adds to the tokens.
    """

    def __init__(self, dim: int, heads: int, channels: list[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.forwards = nn.ModuleList(nn.Linear(dim, c * dim, bias=False) for c in channels)
        self.backwards = nn.ModuleList(nn.Linear(dim, c * dim, bias=False) for c in channels)
        self.norm_feed = nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))
        self.dropout = thinned(dropout)

    def forward(self, h: Tensor, time: Tensor, weights: list[tuple[int, int, Tensor]], sizes: list[int]) -> Tensor:
        """From tokens (n, tokens, dim) to tokens, with the groups' sizes and the weights between them."""
        scale, shift = self.modulation(time).unsqueeze(1).chunk(2, -1)
        y = self.norm(h) * (1 + scale) + shift
        h = h + self.dropout(self.attention(y)) + self.dropout(self.messages(y, weights, sizes))
        return h + self.dropout(self.feed(self.norm_feed(h)))

    def attention(self, y: Tensor) -> Tensor:
        """softmax(Q K^T / sqrt(dim)) V over all tokens."""
        n, tokens, dim = y.shape
        q, k, v = self.qkv(y).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, dim))

    def messages(self, y: Tensor, weights: list[tuple[int, int, Tensor]], sizes: list[int]) -> Tensor:
        """sum_j W_ij V y_j to targets i, and sum_i W_ij U y_i to sources j, for each edge block W."""
        parts = list(y.new_zeros(()).expand_as(y).split(sizes, 1))
        tokens = y.split(sizes, 1)
        for (target, source, w), ahead, behind in zip(weights, self.forwards, self.backwards, strict=True):
            parts[target] = parts[target] + _along(w, ahead(tokens[source]))
            parts[source] = parts[source] + _along(w.transpose(1, 2), behind(tokens[target]))
        return torch.cat(parts, 1)


def _along(w: Tensor, values: Tensor) -> Tensor:
    """sum over senders and channels of w (n, receivers, senders, c) with values (n, senders, c * dim)."""
    n, receivers, senders, channels = w.shape
    values = values.reshape(n, senders * channels, -1)
    return torch.bmm(w.reshape(n, receivers, senders * channels), values)


def _channels(seen: Tensor, columns: Tensor) -> Tensor:
    """Weights between neurons (n, target, source, kinds * channels), by what is seen of them (n, kinds, size)."""
    n, kinds, _ = seen.shape
    some = take(seen.flatten(0, 1), columns).reshape(n, kinds, *columns.shape) / max(columns.shape[:2]) ** 0.5
    return some.permute(0, 2, 3, 1, 4).flatten(3)


class NeuronTransformer(nn.Module):
    """A velocity network that is equivariant to permutations of neurons.

    Parameters
    ----------
    architecture : Architecture
    n_extra : int
        Coordinates behind the weights.
    dim, depth, heads : int
        Width of the tokens, number of layers, attention heads.
    identity : {None, "learned"}
        None: neurons have no names; the network is equivariant to any permutation and works on other
        hidden widths. "learned": each aligned neuron has a name, a learned vector; the width is
        fixed, and permutations commute only when the names move along.
    condition : callable, optional
        As in `TimeEmbedding`.
    n_hints : int
        Vectors that it is shown with each point, such as gradients: it reads them, and follows each of them as far as
        it learned to, by a factor for each neuron.
    dropout : float
        Of what each part of a layer adds to the tokens, in training.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.neuron import NeuronTransformer
    >>> network = NeuronTransformer(Architecture.mlp([4, 3, 3, 2]), dim=8, depth=1, heads=2)
    >>> network(torch.zeros(5, 35), torch.zeros(5)).shape
    torch.Size([5, 35])
    """

    def __init__(
        self,
        architecture: Architecture,
        n_extra: int = 0,
        *,
        dim: int = 64,
        depth: int = 3,
        heads: int = 4,
        identity: str | None = None,
        condition: Callable[[int], nn.Module] | None = None,
        n_hints: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale = Scale(architecture, n_extra)
        self.bind(architecture, n_extra)
        folding = self.folding
        channels = [edges.columns.shape[2] for edges in folding.edges]
        self.time = TimeEmbedding(dim, condition)
        self.names = nn.ParameterList(
            nn.Parameter(0.5 * torch.randn(g.size, dim)) for g in (folding.groups if identity == "learned" else ())
        )
        self.read = nn.ModuleList(linear((1 + n_hints) * f.shape[1], dim) for f in folding.features)
        self.read_free = linear((1 + n_hints) * len(folding.free), dim)
        self.kinds = nn.Parameter(0.5 * torch.randn(len(folding.groups), dim))
        read = [(1 + n_hints) * c for c in channels]
        self.layers = nn.ModuleList(Layer(dim, heads, read, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.write = nn.ModuleList(zero(linear(dim, f.shape[1])) for f in folding.features)
        self.write_free = zero(linear(dim, len(folding.free)))
        self.write_targets = nn.ModuleList(zero(nn.Linear(dim, c * dim)) for c in channels)
        self.write_sources = nn.ModuleList(nn.Linear(dim, dim) for _ in channels)
        self.follow = zero(linear(dim, n_hints)) if n_hints else None

    def bind(self, architecture: Architecture, n_extra: int = 0) -> None:
        """Use another hidden width of the same architecture (with ``identity=None``).

        Parameters
        ----------
        architecture : Architecture
        n_extra : int

        Raises
        ------
        ValueError
            If the neurons have names.
        """
        if len(getattr(self, "names", ())):
            raise ValueError(
                "This network knows its neurons by name, so it has one width. Fit with identity=None to use others."
            )
        self.folding = Folding(architecture, n_extra)
        self.scale.bind(architecture, n_extra)
        # tokens: the neurons of each group, then one for all global coordinates
        self._sizes = [*(group.size for group in self.folding.groups), 1]

    def fit_scale(self, x: Tensor) -> None:
        """Take the scale of the inputs from points of shape (n, size).

        Parameters
        ----------
        x : Tensor
        """
        self.scale.fit(x)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, hints: Tensor | None = None) -> Tensor:
        """From points (n, size), times (n,), conditions (n,) and hints (n, n_hints, size) to vectors (n, size)."""
        folding = self.folding
        seen = self.scale(x).unsqueeze(1)
        if hints is not None:
            seen = torch.cat([seen, hints], 1)
        weights = [(e.target, e.source, _channels(seen, e.columns)) for e in folding.edges]
        h = self._tokens(seen)
        time = self.time(t, condition)
        for layer in self.layers:
            h = layer(h, time, weights, self._sizes)
        *tokens, free = self.norm(h).split(self._sizes, 1)
        features = [write(token) for write, token in zip(self.write, tokens, strict=True)]
        edges = [
            self._edge(tokens[e.target], tokens[e.source], i, e.columns.shape) for i, e in enumerate(folding.edges)
        ]
        out = folding.join(features, edges, self.write_free(free.squeeze(1)))
        out = self.scale.inverse(out)
        if hints is not None and self.follow is not None:
            # hints have one scale for all columns, so that one factor is enough to follow them
            out = out + self.scale.overall.to(x) * self._followed(hints, tokens, free, self.follow)
        return out

    def _tokens(self, seen: Tensor) -> Tensor:
        folding = self.folding
        tokens = []
        for i, (read, columns) in enumerate(zip(self.read, folding.features, strict=True)):
            mine = take(seen.flatten(0, 1), columns).reshape(*seen.shape[:2], *columns.shape)
            token = read(mine.transpose(1, 2).flatten(2)) + self.kinds[i]
            tokens.append(token + self.names[i] if len(self.names) else token)
        tokens.append(self.read_free(seen[..., folding.free].flatten(1)).unsqueeze(1))
        return torch.cat(tokens, 1)

    def _followed(self, hints: Tensor, tokens: list[Tensor], free: Tensor, follow: nn.Module) -> Tensor:
        """Hints times the factors that their neurons' tokens give, the mean of two for a weight between neurons."""
        own = [follow(token) for token in tokens]
        features = [
            (take(hints.flatten(0, 1), c).reshape(*hints.shape[:2], *c.shape) * f.transpose(1, 2).unsqueeze(-1)).sum(1)
            for c, f in zip(self.folding.features, own, strict=True)
        ]
        edges = []
        for e in self.folding.edges:
            factor = (own[e.target].unsqueeze(2) + own[e.source].unsqueeze(1)) / 2
            some = take(hints.flatten(0, 1), e.columns).reshape(*hints.shape[:2], *e.columns.shape)
            edges.append((some * factor.permute(0, 3, 1, 2).unsqueeze(-1)).sum(1))
        rest = (hints[..., self.folding.free] * follow(free).transpose(1, 2)).sum(1)
        return self.folding.join(features, edges, rest)

    def _edge(self, targets: Tensor, sources: Tensor, i: int, shape: torch.Size) -> Tensor:
        """<A h_i, B h_j> for each channel."""
        n = len(targets)
        size, others, channels = shape
        a = self.write_targets[i](targets).reshape(n, size * channels, -1)
        b = self.write_sources[i](sources)
        product = torch.bmm(a, b.transpose(1, 2)) / b.shape[-1] ** 0.5
        return product.reshape(n, size, channels, others).transpose(2, 3)
