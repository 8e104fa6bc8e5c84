"""The neuron transformer: one token for each neuron, messages along the weights between them.

References
----------
Zhou et al. 2023, "Permutation equivariant neural functionals", arXiv:2302.14040; Kofinas et al. 2024,
"Graph neural networks for learning equivariant representations of neural networks", arXiv:2403.12143;
Vaswani et al. 2017, arXiv:1706.03762.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.devices import placed
from wsflow.metanetworks.conditions import TimeEmbedding
from wsflow.metanetworks.layers import AdaptiveNorm, ParameterScale, dropout_of, feed_forward, linear
from wsflow.metanetworks.nesting import NestedMessages, Places, nested_in
from wsflow.metanetworks.signed_blocks import SignedBlock
from wsflow.metanetworks.tensors import TensorMessages
from wsflow.metanetworks.tokens import EdgeBlock, NeuronTokens, take_each


class NeuronLayer(nn.Module):
    """Attention among all tokens, messages along their weights and to their parents, and a feed-forward network.

    Of each weight, `inputs` numbers are read.
    """

    def __init__(self, dim: int, heads: int, tokens: NeuronTokens, inputs: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = AdaptiveNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        channels = [inputs * edge.columns.shape[2] for edge in tokens.edges]
        self.forwards = nn.ModuleList(nn.Linear(dim, c * dim, bias=False) for c in channels)
        self.backwards = nn.ModuleList(nn.Linear(dim, c * dim, bias=False) for c in channels)
        self.feed = feed_forward(dim, 3 * dim)
        self.dropout = dropout_of(dropout)
        self.tensors = nn.ModuleList(TensorMessages(t, dim, inputs * t.columns.shape[-1]) for t in tokens.tensors)
        self.nested = nn.ModuleList(NestedMessages(dim) for _ in nested_in(tokens.groups))

    def forward(self, h: Tensor, context: Tensor, tokens: NeuronTokens, weights: list[Tensor]) -> Tensor:
        """Return tokens (n, tokens, dim), with weights for each block of edges, then for each tensor.

        These are (n, targets, sources, channels), and (n, *extents, channels).
        """
        (y,) = self.norm([h], context)
        h = h + self.dropout(self.attention(y)) + self.dropout(self.messages(y, tokens, weights))
        return h + self.dropout(self.feed(h))

    def attention(self, y: Tensor) -> Tensor:
        """Return softmax(Q K^T / sqrt(dim)) V over all tokens (n, tokens, dim)."""
        n, tokens, dim = y.shape
        q, k, v = self.qkv(y).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, dim))

    def messages(self, y: Tensor, tokens: NeuronTokens, weights: list[Tensor]) -> Tensor:
        """Return sum_j W_ij V y_j at targets i, and sum_i W_ij U y_i at sources j, over all blocks of edges W.

        To these are added messages along tensors, and between neurons and their parents.
        """
        groups, sizes = y.split(tokens.sizes, 1), tokens.sizes
        received = list(y.new_zeros(()).expand_as(y).split(sizes, 1))
        matrices, others = weights[: len(tokens.edges)], weights[len(tokens.edges) :]
        for edge, w, forwards, backwards in zip(tokens.edges, matrices, self.forwards, self.backwards, strict=True):
            target, source = edge.target, edge.source
            received[target] = received[target] + _along(w, forwards(groups[source]))
            received[source] = received[source] + _along(w.transpose(1, 2), backwards(groups[target]))
        for block, w, along in zip(tokens.tensors, others, self.tensors, strict=True):
            for member, message in zip(block.groups, along(block, list(groups), w), strict=True):
                received[member.number] = received[member.number] + message
        for (child, parent), nested in zip(nested_in(tokens.groups), self.nested, strict=True):
            down, up = nested(groups[child], groups[parent])
            received[child], received[parent] = received[child] + down, received[parent] + up
        return torch.cat(received, 1)


def _along(w: Tensor, values: Tensor) -> Tensor:
    """Sum w (n, receivers, senders, c) times values (n, senders, c * dim) over senders and channels."""
    n, receivers, senders, channels = w.shape
    values = values.reshape(n, senders * channels, -1)
    return torch.bmm(w.reshape(n, receivers, senders * channels), values)


class NeuronEncoder(nn.Module):
    """Encode networks as one vector for each neuron, and one for all global coordinates.

    Parameters
    ----------
    n_extra : int
        Coordinates behind the weights.
    dim, depth, heads : int
        Width of the tokens, number of layers, attention heads.
    identity : {None, "learned"}
        None: neurons have no names; the encoder is equivariant to any permutation and works on other
        hidden widths. "learned": each aligned neuron has a name, a learned vector; the width is
        fixed, and permutations commute only when the names move along.
    condition : callable, optional
        From the width to the embedding of a condition; a row of `wsflow.metanetworks.conditions`.
    n_hints : int
        Vectors that are read beside each point, such as gradients.
    dropout : float
        Probability for what a layer adds to the tokens, in training.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.neuron import NeuronEncoder
    >>> encoder = NeuronEncoder(Architecture.mlp([4, 3, 3, 2]), dim=8, depth=1, heads=2)
    >>> [tuple(h.shape) for h in encoder(torch.zeros(5, 35), torch.zeros(5))]
    [(5, 3, 8), (5, 3, 8), (5, 1, 8)]
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
        self.dim, self.n_hints, self.has_one_width = dim, n_hints, identity == "learned"
        self.scale = ParameterScale(architecture, n_extra)
        self.tokens = tokens = NeuronTokens(architecture, n_extra)
        self.time = TimeEmbedding(dim, condition)
        named = tokens.groups if identity == "learned" else ()
        self.names = nn.ParameterList(nn.Parameter(0.5 * torch.randn(group.total, dim)) for group in named)
        inputs = 1 + n_hints
        self.read = nn.ModuleList(linear(inputs * f.shape[1], dim) for f in tokens.features)
        self.read_free = linear(inputs * len(tokens.free), dim)
        self.group_vectors = nn.Parameter(0.5 * torch.randn(len(tokens.groups), dim))
        self.layers = nn.ModuleList(NeuronLayer(dim, heads, tokens, inputs, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.places = Places(tokens.groups, dim)

    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, hints: Tensor | None = None
    ) -> list[Tensor]:
        """Return states (n, neurons, dim) of each group and (n, 1, dim) of the rest, for hints (n, n_hints, size)."""
        inputs = self.scale(x).unsqueeze(1)
        if hints is not None:
            inputs = torch.cat([inputs, hints], 1)
        weights = [_edge_weights(inputs, edge) for edge in self.tokens.edges]
        weights += [_tensor_weights(inputs, block) for block in self.tokens.tensors]
        h, context = self._embedded(inputs), self.time(t, condition)
        for layer in self.layers:
            h = layer(h, context, self.tokens, weights)
        return list(self.norm(h).split(self.tokens.sizes, 1))

    def _embedded(self, inputs: Tensor) -> Tensor:
        """Return the first states (n, tokens, dim) of what is read, (n, 1 + n_hints, size)."""
        states = []
        for i, (read, columns) in enumerate(zip(self.read, self.tokens.features, strict=True)):
            state = read(take_each(inputs, columns).transpose(1, 2).flatten(2)) + self.group_vectors[i]
            state = state + self.places.of(i, len(columns))
            states.append(state + self.names[i] if len(self.names) else state)
        states.append(self.read_free(inputs[..., placed(self.tokens.free, inputs.device)].flatten(1)).unsqueeze(1))
        return torch.cat(states, 1)


def _edge_weights(inputs: Tensor, edge: EdgeBlock) -> Tensor:
    """Return weights (n, targets, sources, inputs * channels) of what is read, (n, inputs, size)."""
    weights = take_each(inputs, edge.columns) / max(edge.columns.shape[:2]) ** 0.5
    return weights.permute(0, 2, 3, 1, 4).flatten(3)


def _tensor_weights(inputs: Tensor, block: SignedBlock) -> Tensor:
    """Return weights (n, *extents, inputs * channels) of what is read, (n, inputs, size)."""
    weights = take_each(inputs, block.columns) / block.senders**0.5
    return weights.movedim(1, -2).flatten(-2)
