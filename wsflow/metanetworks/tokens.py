"""Tokens: which columns of a row are features of which neuron, and which are weights between which two.

Fixed axes fold into features, so that only pairs of neuron groups need edges: a 784-10-10 network is 10 tokens with 795
features each, instead of 804 nodes and their pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.architecture import Architecture, NeuronGroup, Space
from wsflow.devices import placed
from wsflow.metanetworks.signed_blocks import SignedBlock, signed_blocks
from wsflow.running.rows import take


@dataclass(frozen=True)
class EdgeBlock:
    """The columns of the weights between two groups of neurons, (targets, sources) or (targets, sources, channels)."""

    target: int
    source: int
    columns: Tensor


@dataclass(frozen=True)
class NodeVector:
    """The columns (nodes,) of a vector with one number for each node of a space, such as a bias."""

    space: int
    columns: Tensor


class NeuronTokens:
    """One token for each neuron: columns of features (neurons, f), of edges between neurons, and of the rest (`free`).

    Neurons of a nested group are counted over all neurons of its parent. Weights of several neurons that are no matrix
    between two groups are in `tensors`. The rest are weights of no neuron and `n_extra` coordinates behind the weights.
    """

    def __init__(self, architecture: Architecture, n_extra: int = 0) -> None:
        self.groups: tuple[NeuronGroup, ...] = architecture.groups
        self.edges: list[EdgeBlock] = []
        self.tensors: list[SignedBlock] = []
        features: list[list[Tensor]] = [[] for _ in self.groups]
        free: list[Tensor] = [torch.arange(n_extra) + architecture.n_weights]
        for piece in signed_blocks(architecture):
            members = [member.number for member in piece.groups]
            if piece.is_matrix:
                self.edges.append(EdgeBlock(members[0], members[1], piece.columns))
            elif len(members) > 1:
                self.tensors.append(piece)
            elif members:
                features[members[0]].append(piece.columns.flatten(0, -2))
            else:
                free.append(piece.columns.reshape(-1))
        self.features = [
            torch.cat(f, 1) if f else torch.empty(g.total, 0, dtype=torch.long)
            for f, g in zip(features, self.groups, strict=True)
        ]
        self.free = torch.cat(free)
        # of each group, and one token for all global coordinates
        self.sizes = [*(group.total for group in self.groups), 1]
        self._order = _positions(
            [*self.features, *(e.columns for e in self.edges), self.free, *(t.columns for t in self.tensors)]
        )

    def join(
        self, features: Sequence[Tensor], edges: Sequence[Tensor], free: Tensor, tensors: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return rows of features (n, neurons, f), edges (n, targets, sources, channels), the rest and tensors."""
        return _joined([*features, *edges, free, *tensors], self._order)


class EdgeTokens:
    """A node for each neuron, input and output, and an edge for each weight between two of them.

    Vectors on other fixed spaces (slopes of a PReLU) and `n_extra` coordinates behind the weights, which are `free`,
    belong to the output nodes.
    """

    def __init__(self, architecture: Architecture, n_extra: int = 0) -> None:
        self.spaces: list[Space] = []
        self.edges: list[EdgeBlock] = []
        self.vectors: list[NodeVector] = []
        free: list[Tensor] = []
        for parameter, block, columns in architecture.blocks:
            if len(block.axes) not in (1, 2):
                raise ValueError(
                    f"The relational transformer reads matrices and vectors, but {parameter.name!r} has "
                    f"{len(block.axes)} axes. Use velocity='neuron'."
                )
            index = torch.from_numpy(columns)
            if len(block.axes) == 2:
                # a fixed space on the source side is the input, on the target side the output: never the same node
                source, target = (self._node(axis, isinstance(axis, NeuronGroup)) for axis in block.axes[::-1])
                self.edges.append(EdgeBlock(target, source, index))
            elif isinstance(block.axes[0], NeuronGroup):
                self.vectors.append(NodeVector(self._node(block.axes[0]), index))
            elif self.edges and self.spaces[self.edges[-1].target] == block.axes[0]:
                # fixed coordinates have no name: a vector on them is the bias of the matrix before it
                self.vectors.append(NodeVector(self.edges[-1].target, index))
            else:
                free.append(index)
        self.free = torch.cat([*free, torch.arange(n_extra) + architecture.n_weights])
        self._order = _positions([*(e.columns for e in self.edges), *(v.columns for v in self.vectors), self.free])

    def _node(self, space: Space, is_shared: bool = True) -> int:
        if not (is_shared and space in self.spaces):
            self.spaces.append(space)
            return len(self.spaces) - 1
        return self.spaces.index(space)

    def join(self, edges: Sequence[Tensor], vectors: Sequence[Tensor], free: Sequence[Tensor] = ()) -> Tensor:
        """Return rows of edges (n, targets, sources), vectors (n, nodes) and coordinates behind the weights."""
        return _joined([*edges, *vectors, *free], self._order)


@dataclass(frozen=True)
class RowToken:
    """One token for all columns of a row."""

    size: int


def _positions(columns: Sequence[Tensor]) -> Tensor:
    """Return where each column of a row stands among the listed ones."""
    return torch.cat([block.reshape(-1) for block in columns]).argsort()


def _joined(values: Sequence[Tensor], order: Tensor) -> Tensor:
    flat = torch.cat([value.flatten(1) for value in values], 1)
    return flat.index_select(1, placed(order, flat.device))


def take_each(vectors: Tensor, columns: Tensor) -> Tensor:
    """Return columns (n, k, *columns.shape) of k vectors (n, k, size) for each point."""
    return take(vectors.flatten(0, 1), columns).reshape(*vectors.shape[:2], *columns.shape)
