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

from wsflow.architecture import Architecture, Fixed, NeuronGroup, Space
from wsflow.metanetworks.embedding import Scale, TimeEmbedding, thinned, zero
from wsflow.running import take


class RelationalAttention(nn.Module):
    """Nodes i attend to nodes j over edges e_ij: q_i = Q h_i + Q' e_ij, and so for keys and values.

    Parameters
    ----------
    dim, heads : int
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.edge = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, receivers: Tensor, senders: Tensor, edges: Tensor) -> Tensor:
        """From nodes (n, i, dim), (n, j, dim) and edges (n, i, j, dim) to updates (n, i, dim)."""
        n, i, dim = receivers.shape
        q_edge, k_edge, v_edge = self.edge(edges).chunk(3, -1)
        key, value = self.key_value(senders).unsqueeze(1).chunk(2, -1)
        q = (self.query(receivers).unsqueeze(2) + q_edge).unflatten(-1, (self.heads, -1))
        k = (key + k_edge).unflatten(-1, (self.heads, -1))
        logits = (q * k).sum(-1) / k.shape[-1] ** 0.5
        v = (value + v_edge).unflatten(-1, (self.heads, -1))
        return self.out((logits.softmax(2).unsqueeze(-1) * v).sum(2).reshape(n, i, dim))


class Layer(nn.Module):
    """One round: nodes attend both ways along every weight block, then edges follow their nodes.

    Parameters
    ----------
    dim, heads, n_blocks : int
    dropout : float
        Of what each part adds to nodes and edges.
    """

    def __init__(self, dim: int, heads: int, n_blocks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        self.norm_edge = nn.LayerNorm(dim)
        self.ahead = nn.ModuleList(RelationalAttention(dim, heads) for _ in range(n_blocks))
        self.behind = nn.ModuleList(RelationalAttention(dim, heads) for _ in range(n_blocks))
        self.dropout = thinned(dropout)
        self.feed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.edge_in = nn.Linear(dim, dim)
        self.edge_ends = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(n_blocks))
        self.edge_out = nn.Linear(dim, dim)

    def forward(
        self, nodes: list[Tensor], edges: list[Tensor], ends: list[tuple[int, int]], time: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """From nodes and edges to nodes and edges."""
        scale, shift = self.modulation(time).unsqueeze(1).chunk(2, -1)
        y = [self.norm(h) * (1 + scale) + shift for h in nodes]
        e = [self.norm_edge(edge) for edge in edges]
        updates = [torch.zeros_like(h) for h in nodes]
        for b, (target, source) in enumerate(ends):
            updates[target] = updates[target] + self.ahead[b](y[target], y[source], e[b])
            updates[source] = updates[source] + self.behind[b](y[source], y[target], e[b].transpose(1, 2))
        nodes = [h + self.dropout(u) for h, u in zip(nodes, updates, strict=True)]
        nodes = [h + self.dropout(self.feed(h)) for h in nodes]
        return nodes, [edge + self.dropout(self._edge(b, e[b], nodes, *ends[b])) for b, edge in enumerate(edges)]

    def _edge(self, b: int, edge: Tensor, nodes: list[Tensor], target: int, source: int) -> Tensor:
        at_target = self.edge_ends[b](nodes[target])[..., : edge.shape[-1]].unsqueeze(2)
        at_source = self.edge_ends[b](nodes[source])[..., edge.shape[-1] :].unsqueeze(1)
        return self.edge_out(nn.functional.gelu(self.edge_in(edge) + at_target + at_source))


class RelationalTransformer(nn.Module):
    """The thesis' velocity network, over the edges that exist.

    Parameters
    ----------
    architecture : Architecture
        Its parameters are matrices between spaces and vectors on spaces, as in an MLP.
    n_extra : int
        Coordinates behind the weights; they ride on the output nodes.
    dim, depth, heads : int
    identity : {None, "learned"}
        Whether hidden neurons have names; inputs and outputs always do.
    condition : callable, optional
        As in `TimeEmbedding`.
    dropout : float
        Of what each part of a layer adds to nodes and edges, in training.

    Raises
    ------
    ValueError
        If a parameter is neither a matrix nor a vector.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.relational import RelationalTransformer
    >>> network = RelationalTransformer(Architecture.mlp([4, 3, 2]), dim=8, depth=1, heads=2)
    >>> network(torch.zeros(5, 23), torch.zeros(5)).shape
    torch.Size([5, 23])
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
        self.scale = Scale(architecture, n_extra)
        self.identity = identity
        self.bind(architecture, n_extra)
        self.names = nn.ParameterList(
            nn.Parameter(0.5 * torch.randn(space.total if self._named(space) else 1, dim)) for space in self._spaces
        )
        blocks = len(self._ends)
        self.time = TimeEmbedding(dim, condition)
        self.read_vector = nn.ModuleList(nn.Linear(1, dim, bias=False) for _ in self._vectors)
        self.read_free = nn.Linear(n_extra, dim) if n_extra else None
        self.read_edge = nn.ModuleList(nn.Linear(1, dim) for _ in range(blocks))
        self.layers = nn.ModuleList(Layer(dim, heads, blocks, dropout) for _ in range(depth))
        self.write_vector = nn.ModuleList(zero(nn.Linear(dim, 1)) for _ in self._vectors)
        self.write_free = zero(nn.Linear(dim, n_extra)) if n_extra else None
        self.write_edge = nn.ModuleList(zero(nn.Linear(dim, 1)) for _ in range(blocks))

    def _named(self, space: object) -> bool:
        return isinstance(space, Fixed) or self.identity == "learned"

    def bind(self, architecture: Architecture, n_extra: int = 0) -> None:
        """Use another hidden width of the same architecture (with ``identity=None``).

        Parameters
        ----------
        architecture : Architecture
        n_extra : int

        Raises
        ------
        ValueError
            If the neurons have names, or a parameter is neither a matrix nor a vector.
        """
        if self.identity == "learned" and hasattr(self, "names"):
            raise ValueError(
                "This network knows its neurons by name, so it has one width. Fit with identity=None to use others."
            )
        self._spaces: list[Space] = []
        self._ends: list[tuple[int, int]] = []
        self._vectors: list[int] = []
        self._edge_columns: list[Tensor] = []
        self._vector_columns: list[Tensor] = []
        self._free = torch.arange(n_extra) + architecture.n_weights
        for parameter, block, columns in architecture.blocks:
            if len(block.axes) not in (1, 2):
                raise ValueError(
                    f"The relational transformer reads matrices and vectors, but {parameter.name!r} has "
                    f"{len(block.axes)} axes. Use velocity='neuron'."
                )
            if len(block.axes) == 2:
                self._add_edges(block.axes, torch.from_numpy(columns))
            else:
                # fixed coordinates have no name: a vector on them is the bias of the matrix before it
                ends = [] if isinstance(block.axes[0], NeuronGroup) else self._ends
                self._vectors.append(ends[-1][0] if ends else self._node(block.axes[0]))
                self._vector_columns.append(torch.from_numpy(columns))
        order = [*self._edge_columns, *self._vector_columns, self._free]
        self._back = torch.cat([c.reshape(-1) for c in order]).argsort()
        self.scale.bind(architecture, n_extra)

    def _add_edges(self, axes: tuple[Space, ...], columns: Tensor) -> None:
        # a fixed space on the source side is the input, on the target side the output: never the same node
        source = self._node(axes[1]) if isinstance(axes[1], NeuronGroup) else self._new(axes[1])
        target = self._node(axes[0]) if isinstance(axes[0], NeuronGroup) else self._new(axes[0])
        self._ends.append((target, source))
        self._edge_columns.append(columns)

    def _node(self, space: Space) -> int:
        return self._spaces.index(space) if space in self._spaces else self._new(space)

    def _new(self, space: Space) -> int:
        self._spaces.append(space)
        return len(self._spaces) - 1

    def fit_scale(self, x: Tensor) -> None:
        """Take the scale of the inputs from points of shape (n, size).

        Parameters
        ----------
        x : Tensor
        """
        self.scale.fit(x)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """From points (n, size), times (n,) and conditions (n,), if there are some, to vectors (n, size)."""
        x = self.scale(x)
        n = len(x)
        nodes = [name.expand(n, space.total, -1) for name, space in zip(self.names, self._spaces, strict=True)]
        for node, columns, read in zip(self._vectors, self._vector_columns, self.read_vector, strict=True):
            nodes[node] = nodes[node] + read(take(x, columns).unsqueeze(-1))
        if self.read_free is not None:
            nodes[-1] = nodes[-1] + self.read_free(take(x, self._free)).unsqueeze(1)
        edges = [
            read(take(x, columns).unsqueeze(-1))
            for columns, read in zip(self._edge_columns, self.read_edge, strict=True)
        ]
        time = self.time(t, condition)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges, self._ends, time)
        parts = [write(edge).reshape(n, -1) for edge, write in zip(edges, self.write_edge, strict=True)]
        parts += [write(nodes[v]).reshape(n, -1) for v, write in zip(self._vectors, self.write_vector, strict=True)]
        if self.write_free is not None:
            parts.append(self.write_free(nodes[-1].mean(1)))
        return self.scale.inverse(torch.cat(parts, 1).index_select(1, self._back.to(x.device)))
