"""The graph of a network: a node for each neuron and each fixed coordinate, an edge for each weight between two.

A weight of one neuron and one of several fixed coordinates (inputs, outputs, pixels of a kernel) is an edge from a node
of that coordinate, which knows its position; numbers that neurons have alone, such as biases, are features of their
nodes. A weight of three neurons or more is a node of its own, with an edge to each of them. Neurons are joined to what
they are nested in. Every edge is there in both directions.

References
----------
Kofinas et al. 2024, "Graph neural networks for learning equivariant representations of neural networks",
arXiv:2403.12143.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.metanetworks.nesting import nested_in, place_of
from wsflow.metanetworks.signed_blocks import SignedBlock, signed_blocks
from wsflow.symmetry.views import broadcastable

FREQUENCIES = 6
# of a node: whether it is a neuron, a fixed coordinate or a weight, and positions; of an edge: its direction and kind
NODE_MARKS = 3 + 4 * FREQUENCIES
EDGE_MARKS = 3 + 2 * FREQUENCIES


@dataclass
class NetworkGraph:
    """The nodes and edges of the networks of one architecture.

    Parameters
    ----------
    n_nodes : int
    is_neuron : Tensor of shape (nodes,)
    node_marks : Tensor of shape (nodes, NODE_MARKS)
    vectors : list of (nodes, slots, columns)
        In order, numbers of nodes, each of which has each of its numbers in a slot of its own.
    slots : Tensor of shape (nodes,)
        How many numbers each node has.
    edges : LongTensor of shape (2, edges)
        Sources and targets.
    edge_marks : Tensor of shape (edges, EDGE_MARKS)
    edge_columns : LongTensor of shape (edges, channels)
        The columns of the weights of each edge; -1 for none.
    edge_factors : Tensor of shape (edges,)
        What weights are multiplied with: the root of the number of weights that go into a neuron.
    """

    n_nodes: int = 0
    is_neuron: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))
    node_marks: Tensor = field(default_factory=lambda: torch.empty(0, NODE_MARKS))
    vectors: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    slots: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    edges: Tensor = field(default_factory=lambda: torch.empty(2, 0, dtype=torch.long))
    edge_marks: Tensor = field(default_factory=lambda: torch.empty(0, EDGE_MARKS))
    edge_columns: Tensor = field(default_factory=lambda: torch.empty(0, 1, dtype=torch.long))
    edge_factors: Tensor = field(default_factory=lambda: torch.empty(0))

    def add_nodes(self, kind: int, n: int, family: int, positions: Tensor | None = None) -> Tensor:
        """Add n nodes of a kind (0 neurons, 1 coordinates, 2 weights) and a family; return their numbers."""
        marks = torch.zeros(n, NODE_MARKS)
        marks[:, kind] = 1
        marks[:, 3 : 3 + 2 * FREQUENCIES] = waves(torch.tensor([float(family)]))
        if positions is not None:
            marks[:, 3 + 2 * FREQUENCIES :] = waves(positions.float())
        nodes = torch.arange(self.n_nodes, self.n_nodes + n)
        self.n_nodes += n
        self.node_marks = torch.cat([self.node_marks, marks])
        self.is_neuron = torch.cat([self.is_neuron, torch.full((n,), kind == 0)])
        self.slots = torch.cat([self.slots, torch.zeros(n, dtype=torch.long)])
        return nodes

    def add_vector(self, nodes: Tensor, columns: Tensor) -> None:
        """Give each node one more number."""
        self.vectors.append((nodes, self.slots[nodes], columns))
        self.slots[nodes] += 1

    def add_edges(self, sources: Tensor, targets: Tensor, columns: Tensor, family: int, factor: float = 1.0) -> None:
        """Add edges in both directions, with columns (edges, channels) of weights."""
        for direction, ends in enumerate(((sources, targets), (targets, sources))):
            marks = torch.zeros(len(sources), EDGE_MARKS)
            marks[:, direction] = 1
            marks[:, 2] = float(columns.shape[1] == 0)
            marks[:, 3:] = waves(torch.tensor([float(family)]))
            self.edges = torch.cat([self.edges, torch.stack(ends)], 1)
            self.edge_marks = torch.cat([self.edge_marks, marks])
            self.edge_columns = padded(self.edge_columns, columns)
            self.edge_factors = torch.cat([self.edge_factors, torch.full((len(sources),), factor)])


def waves(positions: Tensor) -> Tensor:
    """Return sines and cosines (n, 2 * FREQUENCIES) of positions (n,), with periods from 2 pi to 4 ** 5 times that."""
    phases = positions.unsqueeze(1) / 4.0 ** torch.arange(FREQUENCIES)
    return torch.cat([phases.sin(), phases.cos()], 1)


def padded(first: Tensor, second: Tensor) -> Tensor:
    """Return the rows of both, with -1 where one has more columns."""
    width = max(first.shape[1], second.shape[1])
    rows = [torch.nn.functional.pad(x, (0, width - x.shape[1]), value=-1) for x in (first, second)]
    return torch.cat(rows)


def graph_of(architecture: Architecture) -> NetworkGraph:
    """Return the graph of the networks of an architecture.

    Examples
    --------
    >>> from wsflow import Architecture
    >>> from wsflow.metanetworks.graph_of_network import graph_of
    >>> graph = graph_of(Architecture.mlp([4, 3, 2]))
    >>> graph.n_nodes, graph.edges.shape
    (9, torch.Size([2, 36]))
    """
    graph = NetworkGraph()
    groups = architecture.groups
    neurons = []
    for i, group in enumerate(groups):
        place = place_of(group)
        at = None if place is None else torch.arange(place.total).repeat_interleave(group.total // place.total)
        neurons.append(graph.add_nodes(0, group.total, i, at))
    for child, parent in nested_in(groups):
        parents = neurons[parent].repeat_interleave(groups[child].size)
        graph.add_edges(parents, neurons[child], torch.empty(len(parents), 0, dtype=torch.long), child)
    coordinates: Tensor | None = None
    for family, piece in enumerate(signed_blocks(architecture)):
        members = [neurons[member.number] for member in piece.groups]
        if not members:
            coordinates = _add_fixed(graph, piece.columns.reshape(-1), coordinates, family)
        elif len(members) == 1:
            coordinates = _add_features(graph, piece, members[0], coordinates, family)
        else:
            _add_weights(graph, piece, members, family)
    return graph


def _add_fixed(graph: NetworkGraph, columns: Tensor, coordinates: Tensor | None, family: int) -> Tensor | None:
    """Add numbers of no neuron: to the fixed coordinates before them, whose bias they are, or as nodes of their own."""
    if coordinates is None or len(coordinates) != len(columns):
        coordinates = graph.add_nodes(1, len(columns), family, torch.arange(len(columns)))
    graph.add_vector(coordinates, columns)
    return coordinates


def _add_features(
    graph: NetworkGraph, piece: SignedBlock, neurons: Tensor, coordinates: Tensor | None, family: int
) -> Tensor | None:
    """Add weights of one neuron: a number of its node, or edges from fixed coordinates."""
    columns = piece.columns.flatten(0, -2)
    if columns.shape[1] == 1:
        graph.add_vector(neurons, columns[:, 0])
        return coordinates
    fixed = graph.add_nodes(1, columns.shape[1], family, torch.arange(columns.shape[1]))
    sources = fixed.expand(len(neurons), -1).reshape(-1)
    targets = neurons.repeat_interleave(len(fixed))
    graph.add_edges(sources, targets, columns.reshape(-1, 1), family, math.sqrt(columns.shape[1]))
    return fixed


def _add_weights(graph: NetworkGraph, piece: SignedBlock, members: list[Tensor], family: int) -> None:
    """Add weights of several neurons: edges between two, or nodes of their own with edges to all of them."""
    extents = piece.columns.shape[:-1]
    ends = [
        broadcastable(nodes.unsqueeze(0), member.axes, extents)[0].expand(extents).reshape(-1)
        for nodes, member in zip(members, piece.groups, strict=True)
    ]
    columns = piece.columns.reshape(-1, piece.columns.shape[-1])
    senders = len(columns) / min(len(nodes) for nodes in members)
    if len(ends) == 2:
        graph.add_edges(ends[1], ends[0], columns, family, math.sqrt(senders))
        return
    own = graph.add_nodes(2, len(columns), family)
    for member, nodes in enumerate(ends):
        graph.add_edges(own, nodes, columns, family + member, math.sqrt(senders))
