"""The graph network: principal neighbourhood aggregation on the graphs of networks, with edge updates.

It is built for one architecture or several, and networks of different architectures may be in one batch.

References
----------
Kofinas et al. 2024, "Graph neural networks for learning equivariant representations of neural networks",
arXiv:2403.12143; Corso et al. 2020, "Principal neighbourhood aggregation for graph nets", arXiv:2004.05718.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.devices import placed
from wsflow.exceptions import InvalidInputError
from wsflow.metanetworks.graph_of_network import EDGE_MARKS, NODE_MARKS, NetworkGraph, graph_of
from wsflow.metanetworks.layers import dropout_of, feed_forward
from wsflow.running.rows import take

AGGREGATORS = ["mean", "min", "max", "std"]
SCALERS = ["identity", "amplification", "attenuation"]


class GraphLayer(nn.Module):
    """Nodes aggregate their neighbours and edges, then edges follow their nodes."""

    def __init__(self, dim: int, degrees: Tensor, dropout: float) -> None:
        super().__init__()
        from torch_geometric.nn import PNAConv

        self.norm = nn.LayerNorm(dim)
        self.norm_edge = nn.LayerNorm(dim)
        self.convolution = PNAConv(dim, dim, AGGREGATORS, SCALERS, degrees, edge_dim=dim)
        self.feed = feed_forward(dim, 2 * dim)
        self.edge = nn.Sequential(nn.Linear(3 * dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.dropout = dropout_of(dropout)

    def forward(self, nodes: Tensor, edges: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Return nodes (nodes, dim) and edges (edges, dim), for the numbers of sources and targets, (2, edges)."""
        y, e = self.norm(nodes), self.norm_edge(edges)
        nodes = nodes + self.dropout(self.convolution(y, ends, e))
        nodes = nodes + self.dropout(self.feed(nodes))
        change = self.edge(torch.cat([e, nodes[ends[0]], nodes[ends[1]]], 1))
        return nodes, edges + self.dropout(change)


class NeuralGraphEncoder(nn.Module):
    """Encode networks by a graph network, and by means and maxima over their neurons and over other nodes.

    Parameters
    ----------
    architecture : Architecture, or several of them
        The first one is that of rows given without one.
    dim, depth : int
        Width of nodes and edges, number of layers.
    dropout : float
        Probability for what a layer adds, in training.

    Raises
    ------
    InvalidInputError
        Without torch-geometric.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.graph import NeuralGraphEncoder
    >>> narrow, deep = Architecture.mlp([4, 3, 2]), Architecture.mlp([4, 3, 3, 2], "tanh")
    >>> encoder = NeuralGraphEncoder([narrow, deep], dim=8, depth=1)
    >>> encoder.mixed([(torch.zeros(5, 23), narrow), (torch.zeros(2, 35), deep)]).shape
    torch.Size([7, 32])
    """

    rms: Tensor

    def __init__(
        self,
        architecture: Architecture | Sequence[Architecture],
        *,
        dim: int = 32,
        depth: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _require_torch_geometric()
        known = [architecture] if isinstance(architecture, Architecture) else list(architecture)
        self.architecture = known[0]
        graphs = [graph_of(own) for own in known]
        self._graphs = list(zip(known, graphs, strict=True))
        self.n_slots = max(1, *(int(graph.slots.max()) for graph in graphs))
        self.n_channels = max(graph.edge_columns.shape[1] for graph in graphs)
        # of edges, and of numbers of nodes
        self.register_buffer("rms", torch.ones(2))
        self.read_node = nn.Linear(self.n_slots + NODE_MARKS, dim)
        self.read_edge = nn.Linear(self.n_channels + EDGE_MARKS, dim)
        degrees = torch.cat([torch.bincount(graph.edges[1], minlength=graph.n_nodes) for graph in graphs])
        self.layers = nn.ModuleList(GraphLayer(dim, torch.bincount(degrees), dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def fit_scale(self, x: Tensor, architecture: Architecture | None = None) -> None:
        """Take the scales of weights between nodes, and of numbers of nodes, from networks (n, d)."""
        numbers, weights = self._values(x, self._graph(architecture))
        means = [(values.square().sum() / (values != 0).sum().clamp_min(1)).sqrt() for values in (weights, numbers)]
        self.rms.copy_(torch.stack(means).clamp_min(1e-6))

    def forward(self, x: Tensor, architecture: Architecture | None = None) -> Tensor:
        """Return states (n, 4 * dim) of networks (n, d), of the first architecture by default."""
        return self.mixed([(x, architecture or self.architecture)])

    def mixed(self, networks: Sequence[tuple[Tensor, Architecture]]) -> Tensor:
        """Return states (n, 4 * dim) of all networks, which are given as rows (n, d) with their architectures."""
        nodes: list[Tensor] = []
        edges: list[Tensor] = []
        ends: list[Tensor] = []
        graph_numbers: list[Tensor] = []
        neurons: list[Tensor] = []
        n_nodes = n_graphs = 0
        for x, architecture in networks:
            graph, n = self._graph(architecture), len(x)
            numbers, weights = self._values(x, graph)
            nodes.append(self._read(self.read_node, numbers / self.rms[1], graph.node_marks))
            edges.append(self._read(self.read_edge, weights / self.rms[0], graph.edge_marks))
            starts = n_nodes + graph.n_nodes * torch.arange(n)
            ends.append((graph.edges.unsqueeze(1) + starts.reshape(1, n, 1)).flatten(1))
            graph_numbers.append(n_graphs + torch.arange(n).repeat_interleave(graph.n_nodes))
            neurons.append(graph.is_neuron.repeat(n))
            n_nodes, n_graphs = n_nodes + n * graph.n_nodes, n_graphs + n
        h, e, where = torch.cat(nodes), torch.cat(edges), torch.cat(ends, 1).to(nodes[0].device)
        for layer in self.layers:
            h, e = layer(h, e, where)
        return _pooled(self.norm(h), torch.cat(graph_numbers).to(h.device), torch.cat(neurons).to(h.device), n_graphs)

    def _values(self, x: Tensor, graph: NetworkGraph) -> tuple[Tensor, Tensor]:
        """Return the numbers of nodes (n, nodes, slots) and the weights of edges (n, edges, channels)."""
        numbers = x.new_zeros(len(x), graph.n_nodes, self.n_slots)
        for nodes, slots, columns in graph.vectors:
            numbers[:, placed(nodes, x.device), placed(slots, x.device)] = take(x, columns)
        columns, factors = placed(graph.edge_columns, x.device), placed(graph.edge_factors, x.device)
        found = take(x, columns.clamp_min(0)) * (columns >= 0).to(x) * factors.to(x).unsqueeze(1)
        return numbers, nn.functional.pad(found, (0, self.n_channels - columns.shape[1]))

    def _read(self, layer: nn.Module, values: Tensor, marks: Tensor) -> Tensor:
        marks = placed(marks, values.device).to(values)
        inputs = torch.cat([values, marks.expand(len(values), -1, -1)], 2)
        return layer(inputs).flatten(0, 1)

    def _graph(self, architecture: Architecture | None) -> NetworkGraph:
        architecture = architecture or self.architecture
        graph = next((graph for known, graph in self._graphs if known is architecture or known == architecture), None)
        if graph is not None:
            return graph
        graph = graph_of(architecture)
        if int(graph.slots.max()) > self.n_slots or graph.edge_columns.shape[1] > self.n_channels:
            raise InvalidInputError(
                f"These networks, {architecture}, have more numbers for each neuron or weight than those that this "
                "graph network was built for. Build it with all architectures: NeuralGraphEncoder([first, second])."
            )
        self._graphs.append((architecture, graph))
        return graph


def _pooled(h: Tensor, graphs: Tensor, neurons: Tensor, n: int) -> Tensor:
    """Return means and maxima (n, 4 * dim) of neurons and of other nodes."""
    from torch_geometric.nn import global_max_pool, global_mean_pool

    found: list[Tensor] = []
    for chosen in (neurons, ~neurons):
        # a graph that has none of them has zeros
        found += [pool(h[chosen], graphs[chosen], n) for pool in (global_mean_pool, global_max_pool)]
    return torch.cat(found, 1)


def _require_torch_geometric() -> None:
    try:
        import torch_geometric  # noqa: F401
    except ImportError as error:
        raise InvalidInputError(
            "The encoder 'neural_graph' needs torch-geometric, which is not installed: pip install 'wsflow[graphs]'."
        ) from error
