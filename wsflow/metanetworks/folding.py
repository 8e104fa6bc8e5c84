"""Folding: fixed axes become features of neurons, so that only pairs of neuron groups need edges.

A 784-10-10 network is then 10 tokens with 795 features each, instead of 804 nodes and their pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture, Block, NeuronGroup


@dataclass(frozen=True)
class Edges:
    """The weights between two neuron groups.

    Parameters
    ----------
    target, source : int
        Positions of the groups on the block's first and second neuron axis.
    columns : LongTensor of shape (target size, source size, channels)
    """

    target: int
    source: int
    columns: Tensor


class Folding:
    """Where the columns of a row go: features of neurons, edges between them, and global coordinates.

    Parameters
    ----------
    architecture : Architecture
    n_extra : int
        Coordinates behind the weights; they are global.

    Raises
    ------
    ValueError
        If a weight lies between more than two neuron groups, or its groups are nested.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.folding import Folding
    >>> folding = Folding(Architecture.mlp([30, 16, 16, 2]))
    >>> [tuple(f.shape) for f in folding.features], [tuple(e.columns.shape) for e in folding.edges]
    ([(16, 31), (16, 3)], [(16, 16, 1)])
    """

    def __init__(self, architecture: Architecture, n_extra: int = 0) -> None:
        self.groups: tuple[NeuronGroup, ...] = architecture.groups
        self.edges: list[Edges] = []
        features: list[list[Tensor]] = [[] for _ in self.groups]
        free: list[Tensor] = [torch.arange(n_extra) + architecture.n_weights]
        for parameter, block, columns in architecture.blocks:
            axes = self._neuron_axes(parameter.name, block)
            index = torch.from_numpy(np.moveaxis(columns, axes, range(len(axes))))
            members = [self.groups.index(block.axes[axis]) for axis in axes]
            if len(axes) == 2:
                self.edges.append(
                    Edges(members[0], members[1], index.flatten(2) if index.dim() > 2 else index[..., None])
                )
            elif len(axes) == 1:
                features[members[0]].append(index.reshape(len(index), -1))
            else:
                free.append(index.reshape(-1))
        self.features = [
            torch.cat(f, 1) if f else torch.empty(g.size, 0, dtype=torch.long)
            for f, g in zip(features, self.groups, strict=True)
        ]
        self.free = torch.cat(free)
        order = [*self.features, *(e.columns for e in self.edges), self.free]
        flat = torch.cat([columns.reshape(-1) for columns in order])
        self._back = flat.argsort()

    @staticmethod
    def _neuron_axes(name: str, block: Block) -> tuple[int, ...]:
        axes = block.neuron_axes()
        spaces = [block.axes[axis] for axis in axes]
        if len(axes) > 2 or any(not isinstance(space, NeuronGroup) or space.parent for space in spaces):
            raise ValueError(
                f"The neuron transformer reads weights between at most two plain neuron groups, but {name!r} has "
                "others. Use velocity='mlp'."
            )
        return axes

    def join(self, features: list[Tensor], edges: list[Tensor], free: Tensor) -> Tensor:
        """Put features (n, size, f), edges (n, target, source, channels) and global coordinates back into rows.

        Parameters
        ----------
        features, edges : list of Tensor
        free : Tensor of shape (n, globals)

        Returns
        -------
        Tensor of shape (n, size)
        """
        flat = [part.reshape(len(free), -1) for part in (*features, *edges, free)]
        return torch.cat(flat, 1).index_select(1, self._back.to(free.device))
