"""Tokens: which columns of a row are features of a neuron, which are weights between two neurons, and which are global.

Fixed axes fold into features, so that only pairs of neuron groups need edges: a 784-10-10 network is 10 tokens with 795
features each, instead of 804 nodes and their pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture, Block, NeuronGroup, Space


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
    """One token for each neuron: the columns of its features, of edges between neurons, and of global coordinates.

    Parameters
    ----------
    n_extra : int
        Coordinates behind the weights; they are global.

    Raises
    ------
    ValueError
        If a weight lies between more than two neuron groups, or its groups are nested.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.tokens import NeuronTokens
    >>> tokens = NeuronTokens(Architecture.mlp([30, 16, 16, 2]))
    >>> [tuple(f.shape) for f in tokens.features], [tuple(e.columns.shape) for e in tokens.edges]
    ([(16, 31), (16, 3)], [(16, 16, 1)])
    """

    def __init__(self, architecture: Architecture, n_extra: int = 0) -> None:
        self.groups: tuple[NeuronGroup, ...] = architecture.groups
        self.edges: list[EdgeBlock] = []
        features: list[list[Tensor]] = [[] for _ in self.groups]
        free: list[Tensor] = [torch.arange(n_extra) + architecture.n_weights]
        for parameter, block, columns in architecture.blocks:
            axes = _neuron_axes(parameter.name, block)
            index = torch.from_numpy(np.moveaxis(columns, axes, range(len(axes))))
            members = [self.groups.index(block.axes[axis]) for axis in axes]
            if len(axes) == 2:
                channels = index.flatten(2) if index.dim() > 2 else index[..., None]
                self.edges.append(EdgeBlock(members[0], members[1], channels))
            elif len(axes) == 1:
                features[members[0]].append(index.reshape(len(index), -1))
            else:
                free.append(index.reshape(-1))
        self.features = [
            torch.cat(f, 1) if f else torch.empty(g.size, 0, dtype=torch.long)
            for f, g in zip(features, self.groups, strict=True)
        ]
        self.free = torch.cat(free)
        # of each group, and one token for all global coordinates
        self.sizes = [*(group.size for group in self.groups), 1]
        self._order = _positions([*self.features, *(e.columns for e in self.edges), self.free])

    def join(self, features: Sequence[Tensor], edges: Sequence[Tensor], free: Tensor) -> Tensor:
        """Put features (n, neurons, f), edges (n, targets, sources, channels) and global coordinates back into rows."""
        return _joined([*features, *edges, free], self._order)


def _neuron_axes(name: str, block: Block) -> tuple[int, ...]:
    axes = block.neuron_axes()
    spaces = [block.axes[axis] for axis in axes]
    if len(axes) > 2 or any(not isinstance(space, NeuronGroup) or space.parent for space in spaces):
        raise ValueError(
            f"The neuron transformer reads weights between at most two plain neuron groups, but {name!r} has "
            "others. Use velocity='mlp'."
        )
    return axes


class EdgeTokens:
    """A node for each neuron, inputs and outputs included, and an edge for each weight between two of them.

    Parameters
    ----------
    n_extra : int
        Coordinates behind the weights; they belong to the output nodes.

    Raises
    ------
    ValueError
        If a parameter is neither a matrix nor a vector.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.tokens import EdgeTokens
    >>> tokens = EdgeTokens(Architecture.mlp([4, 3, 2]))
    >>> [space.total for space in tokens.spaces], [(e.target, e.source) for e in tokens.edges]
    ([4, 3, 2], [(1, 0), (2, 1)])
    """

    def __init__(self, architecture: Architecture, n_extra: int = 0) -> None:
        self.spaces: list[Space] = []
        self.edges: list[EdgeBlock] = []
        self.vectors: list[NodeVector] = []
        self.free = torch.arange(n_extra) + architecture.n_weights
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
            else:
                # fixed coordinates have no name: a vector on them is the bias of the matrix before it
                is_bias = bool(self.edges) and not isinstance(block.axes[0], NeuronGroup)
                self.vectors.append(NodeVector(self.edges[-1].target if is_bias else self._node(block.axes[0]), index))
        self._order = _positions([*(e.columns for e in self.edges), *(v.columns for v in self.vectors), self.free])

    def _node(self, space: Space, is_shared: bool = True) -> int:
        if not (is_shared and space in self.spaces):
            self.spaces.append(space)
            return len(self.spaces) - 1
        return self.spaces.index(space)

    def join(self, edges: Sequence[Tensor], vectors: Sequence[Tensor], free: Sequence[Tensor] = ()) -> Tensor:
        """Put edges (n, targets, sources), vectors (n, nodes) and global coordinates back into rows."""
        return _joined([*edges, *vectors, *free], self._order)


@dataclass(frozen=True)
class RowToken:
    """One token for all columns of a row."""

    size: int


def _positions(columns: Sequence[Tensor]) -> Tensor:
    """Return where each column of a row stands among the listed ones."""
    return torch.cat([some.reshape(-1) for some in columns]).argsort()


def _joined(values: Sequence[Tensor], order: Tensor) -> Tensor:
    flat = torch.cat([value.flatten(1) for value in values], 1)
    return flat.index_select(1, order.to(flat.device))
