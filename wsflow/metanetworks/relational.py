"""The relational transformer over the real edges of a network, in both directions.

Every neuron is a node, inputs and outputs included; every weight is an edge with a state of its own.
Each node attends to the nodes of the layer before it and of the layer behind it, over the edges
that exist; edges are then updated from their two nodes.

References
----------
Diao and Loynd 2023, "Relational attention", arXiv:2210.05062; Erdogan 2025 (for weights, there over all pairs).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture, Fixed
from wsflow.metanetworks.conditions import TimeEmbedding
from wsflow.metanetworks.layers import AdaptiveNorm, ParameterScale, dropout_of, feed_forward
from wsflow.metanetworks.tokens import EdgeBlock, EdgeTokens
from wsflow.running.rows import take


class RelationalAttention(nn.Module):
    """Nodes i attend to nodes j over edges e_ij: q_i = Q h_i + Q' e_ij, and so for keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.edge = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, receivers: Tensor, senders: Tensor, edges: Tensor) -> Tensor:
        """Return updates (n, i, dim) of nodes (n, i, dim) from nodes (n, j, dim) and edges (n, i, j, dim)."""
        n, i, dim = receivers.shape
        q_edge, k_edge, v_edge = self.edge(edges).chunk(3, -1)
        key, value = self.key_value(senders).unsqueeze(1).chunk(2, -1)
        q = (self.query(receivers).unsqueeze(2) + q_edge).unflatten(-1, (self.heads, -1))
        k = (key + k_edge).unflatten(-1, (self.heads, -1))
        logits = (q * k).sum(-1) / k.shape[-1] ** 0.5
        v = (value + v_edge).unflatten(-1, (self.heads, -1))
        return self.out((logits.softmax(2).unsqueeze(-1) * v).sum(2).reshape(n, i, dim))


class RelationalLayer(nn.Module):
    """One round: nodes attend both ways along every block of edges, then edges follow their nodes."""

    def __init__(self, dim: int, heads: int, n_blocks: int, dropout: float) -> None:
        super().__init__()
        self.norm = AdaptiveNorm(dim)
        self.norm_edge = nn.LayerNorm(dim)
        self.forwards = nn.ModuleList(RelationalAttention(dim, heads) for _ in range(n_blocks))
        self.backwards = nn.ModuleList(RelationalAttention(dim, heads) for _ in range(n_blocks))
        self.feed = feed_forward(dim, 2 * dim)
        self.edge_in = nn.Linear(dim, dim)
        self.edge_ends = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(n_blocks))
        self.edge_out = nn.Linear(dim, dim)
        self.dropout = dropout_of(dropout)

    def forward(
        self, nodes: list[Tensor], edges: list[Tensor], context: Tensor, blocks: list[EdgeBlock]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return nodes (n, nodes, dim) of each space, and edges (n, targets, sources, dim) of each block."""
        y = self.norm(nodes, context)
        e = [self.norm_edge(edge) for edge in edges]
        updates = [torch.zeros_like(h) for h in nodes]
        for b, (target, source) in enumerate((block.target, block.source) for block in blocks):
            updates[target] = updates[target] + self.forwards[b](y[target], y[source], e[b])
            updates[source] = updates[source] + self.backwards[b](y[source], y[target], e[b].transpose(1, 2))
        nodes = [h + self.dropout(u) for h, u in zip(nodes, updates, strict=True)]
        nodes = [h + self.dropout(self.feed(h)) for h in nodes]
        changes = (self._edge(b, e[b], nodes[block.target], nodes[block.source]) for b, block in enumerate(blocks))
        return nodes, [edge + self.dropout(change) for edge, change in zip(edges, changes, strict=True)]

    def _edge(self, b: int, edge: Tensor, targets: Tensor, sources: Tensor) -> Tensor:
        at_target = self.edge_ends[b](targets)[..., : edge.shape[-1]].unsqueeze(2)
        at_source = self.edge_ends[b](sources)[..., edge.shape[-1] :].unsqueeze(1)
        return self.edge_out(nn.functional.gelu(self.edge_in(edge) + at_target + at_source))


class RelationalEncoder(nn.Module):
    """Encode networks as one vector for each neuron, input and output, and one for each weight between two of them.

    It reads matrices between spaces and vectors on spaces, as in an MLP; parameters are those of
    `wsflow.metanetworks.neuron.NeuronEncoder`, but that it reads no hints.

    Parameters
    ----------
    n_extra : int
        Coordinates behind the weights; they belong to the output nodes.
    identity : {None, "learned"}
        Whether hidden neurons have names; inputs and outputs always do.

    Raises
    ------
    ValueError
        If a parameter is neither a matrix nor a vector.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.relational import RelationalEncoder
    >>> encoder = RelationalEncoder(Architecture.mlp([4, 3, 2]), dim=8, depth=1, heads=2)
    >>> nodes, edges = encoder(torch.zeros(5, 23), torch.zeros(5))
    >>> [tuple(h.shape) for h in nodes], [tuple(e.shape) for e in edges]
    ([(5, 4, 8), (5, 3, 8), (5, 2, 8)], [(5, 3, 4, 8), (5, 2, 3, 8)])
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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.n_hints, self.has_one_width = dim, 0, identity == "learned"
        self.scale = ParameterScale(architecture, n_extra)
        self.tokens = tokens = EdgeTokens(architecture, n_extra)
        sizes = [s.total if isinstance(s, Fixed) or identity == "learned" else 1 for s in tokens.spaces]
        self.names = nn.ParameterList(nn.Parameter(0.5 * torch.randn(size, dim)) for size in sizes)
        self.time = TimeEmbedding(dim, condition)
        self.read_vector = nn.ModuleList(nn.Linear(1, dim, bias=False) for _ in tokens.vectors)
        self.read_free = nn.Linear(len(tokens.free), dim) if len(tokens.free) else None
        self.read_edge = nn.ModuleList(nn.Linear(1, dim) for _ in tokens.edges)
        self.layers = nn.ModuleList(RelationalLayer(dim, heads, len(tokens.edges), dropout) for _ in range(depth))

    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, hints: None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return nodes (n, nodes, dim) of each space, and edges (n, targets, sources, dim) of each block."""
        x, tokens = self.scale(x), self.tokens
        nodes = [name.expand(len(x), space.total, -1) for name, space in zip(self.names, tokens.spaces, strict=True)]
        for vector, read in zip(tokens.vectors, self.read_vector, strict=True):
            nodes[vector.space] = nodes[vector.space] + read(take(x, vector.columns).unsqueeze(-1))
        if self.read_free is not None:
            nodes[-1] = nodes[-1] + self.read_free(take(x, tokens.free)).unsqueeze(1)
        edges = [
            read(take(x, block.columns).unsqueeze(-1)) for block, read in zip(tokens.edges, self.read_edge, strict=True)
        ]
        context = self.time(t, condition)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges, context, tokens.edges)
        return nodes, edges
