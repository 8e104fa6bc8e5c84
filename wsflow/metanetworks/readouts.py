"""Readouts: from the states of an encoder to vectors at the points that it read, or to numbers.

Equivariant ones, to vectors, start at zero. A readout of hints also adds each hint, times a learned factor: it follows
gradients as far as that helped in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wsflow.devices import placed
from wsflow.metanetworks.layers import ColumnScale, ParameterScale, dropout_of, linear, zero_initialized
from wsflow.metanetworks.tensors import TensorReadout
from wsflow.metanetworks.tokens import EdgeBlock, EdgeTokens, NeuronTokens, RowToken, take_each


class NeuronReadout(nn.Module):
    """Features of neurons by a linear map of their states, and weights between neurons i, j by <A h_i, B h_j>.

    Other weights of several neurons are read as `wsflow.metanetworks.tensors` says.
    """

    def __init__(self, tokens: NeuronTokens, dim: int, n_hints: int = 0) -> None:
        super().__init__()
        self.tokens = tokens
        channels = [edge.columns.shape[2] for edge in tokens.edges]
        self.write = nn.ModuleList(zero_initialized(linear(dim, f.shape[1])) for f in tokens.features)
        self.write_free = zero_initialized(linear(dim, len(tokens.free)))
        self.write_targets = nn.ModuleList(zero_initialized(nn.Linear(dim, c * dim)) for c in channels)
        self.write_sources = nn.ModuleList(nn.Linear(dim, dim) for _ in channels)
        self.hint_factors = zero_initialized(linear(dim, n_hints)) if n_hints else None
        self.write_tensors = nn.ModuleList(TensorReadout(block, dim) for block in tokens.tensors)

    def forward(self, states: list[Tensor], scale: ParameterScale, hints: Tensor | None = None) -> Tensor:
        """Return vectors (n, size) from states (n, neurons, dim) of each group and (n, 1, dim) of the rest."""
        *groups, rest = states
        features = [write(h) for write, h in zip(self.write, groups, strict=True)]
        edges = [self._edge(i, edge, groups) for i, edge in enumerate(self.tokens.edges)]
        blocks = zip(self.tokens.tensors, self.write_tensors, strict=True)
        tensors = [write(block, groups) for block, write in blocks]
        out = scale.inverse(self.tokens.join(features, edges, self.write_free(rest.squeeze(1)), tensors))
        if hints is None or self.hint_factors is None:
            return out
        # hints have one scale for all columns, so that one factor is enough to follow them
        return out + scale.overall.to(out) * self._weighted(hints, [self.hint_factors(h) for h in states])

    def _edge(self, i: int, edge: EdgeBlock, groups: list[Tensor]) -> Tensor:
        """Return <A h_i, B h_j> / sqrt(dim), (n, targets, sources, channels), with a matrix A for each channel."""
        targets, sources, channels = edge.columns.shape
        a = self.write_targets[i](groups[edge.target]).unflatten(2, (channels, -1)).flatten(1, 2)
        b = self.write_sources[i](groups[edge.source])
        product = torch.bmm(a, b.transpose(1, 2)) / b.shape[-1] ** 0.5
        return product.reshape(-1, targets, channels, sources).transpose(2, 3)

    def _weighted(self, hints: Tensor, factors: list[Tensor]) -> Tensor:
        """Sum hints (n, n_hints, size) times their neurons' factors: the mean of those for a weight of several."""
        *groups, rest = factors
        features = [
            (take_each(hints, columns) * factor.transpose(1, 2).unsqueeze(-1)).sum(1)
            for columns, factor in zip(self.tokens.features, groups, strict=True)
        ]
        edges = []
        for edge in self.tokens.edges:
            factor = (groups[edge.target].unsqueeze(2) + groups[edge.source].unsqueeze(1)) / 2
            edges.append((take_each(hints, edge.columns) * factor.permute(0, 3, 1, 2).unsqueeze(-1)).sum(1))
        tensors = []
        for block in self.tokens.tensors:
            spread = [block.spread(member, groups[member.number]) for member in block.groups]
            factor = torch.stack(torch.broadcast_tensors(*spread)).mean(0).movedim(-1, 1)
            tensors.append((take_each(hints, block.columns) * factor.unsqueeze(-1)).sum(1))
        free = (hints[..., placed(self.tokens.free, hints.device)] * rest.transpose(1, 2)).sum(1)
        return self.tokens.join(features, edges, free, tensors)


class EdgeReadout(nn.Module):
    """Each weight by a linear map of its edge's state, and each coordinate of a vector by one of its node's state."""

    def __init__(self, tokens: EdgeTokens, dim: int, n_hints: int = 0) -> None:
        super().__init__()
        self.tokens = tokens
        n_extra = len(tokens.free)
        self.write_vector = nn.ModuleList(zero_initialized(nn.Linear(dim, 1)) for _ in tokens.vectors)
        self.write_free = zero_initialized(nn.Linear(dim, n_extra)) if n_extra else None
        self.write_edge = nn.ModuleList(zero_initialized(nn.Linear(dim, 1)) for _ in tokens.edges)

    def forward(self, states: tuple[list[Tensor], list[Tensor]], scale: ParameterScale, hints: None = None) -> Tensor:
        """Return vectors (n, size) from nodes (n, nodes, dim) and edges (n, targets, sources, dim)."""
        nodes, edges = states
        matrices = [write(edge) for edge, write in zip(edges, self.write_edge, strict=True)]
        vectors = [write(nodes[v.space]) for v, write in zip(self.tokens.vectors, self.write_vector, strict=True)]
        free = [] if self.write_free is None else [self.write_free(nodes[-1].mean(1))]
        return scale.inverse(self.tokens.join(matrices, vectors, free))


class FlatReadout(nn.Module):
    """All columns by one linear map of the state."""

    def __init__(self, tokens: RowToken, dim: int, n_hints: int = 0) -> None:
        super().__init__()
        self.write = zero_initialized(nn.Linear(dim, tokens.size))
        self.hint_factors = zero_initialized(nn.Linear(dim, n_hints)) if n_hints else None

    def forward(self, states: Tensor, scale: ColumnScale, hints: Tensor | None = None) -> Tensor:
        """Return vectors (n, size) from states (n, dim)."""
        out = scale.inverse(self.write(states))
        if hints is None or self.hint_factors is None:
            return out
        return out + (self.hint_factors(states).unsqueeze(-1) * hints).sum(1)


class InvariantReadout(nn.Module):
    """Numbers from the means and maxima of states over tokens, by a network with one hidden layer."""

    def __init__(self, width: int, n_outputs: int, dropout: float = 0.0, hidden: int = 128) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), dropout_of(dropout), nn.Linear(hidden, n_outputs)
        )

    def forward(self, states: Any) -> Tensor:
        """Return numbers (n, outputs) from states (n, *tokens, dim), one tensor of them or several in any structure."""
        return self.network(pooled(tree_leaves(states)))


def pooled(states: Sequence[Tensor]) -> Tensor:
    """Return means and maxima over tokens (n, *tokens, dim) side by side; what has no tokens as it is."""
    found: list[Tensor] = []
    for h in states:
        tokens = h.flatten(1, -2) if h.dim() > 2 else h
        found += [tokens] if h.dim() == 2 else [tokens.mean(1), tokens.amax(1)]
    return torch.cat(found, 1)
