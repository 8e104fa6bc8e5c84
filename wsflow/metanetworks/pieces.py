"""Pieces of parameters: which neurons each weight belongs to, for blocks of any axes.

An axis of a direct sum has a piece for each summand. An axis of a nested group is one of neurons together with the axis
of its parent, where the block has one: a weight (heads, channels, features) belongs to channels, counted over all
heads, and to features. Several axes may share a parent, as the channels that go into a group of a convolution and those
that come out of it do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture, Block, DirectSum, Fixed, NeuronGroup
from wsflow.symmetry.actions import nested_axes


@dataclass(frozen=True)
class Piece:
    """Weights that belong to one neuron each of some groups.

    Parameters
    ----------
    groups : tuple of NeuronGroup
    axes : tuple of tuple of int
        The axes of `columns` that range over the neurons of each group, the outermost first.
    columns : LongTensor
        Columns of a row; the last axis counts the weights of the same neurons.
    """

    groups: tuple[NeuronGroup, ...]
    axes: tuple[tuple[int, ...], ...]
    columns: Tensor

    @property
    def is_matrix(self) -> bool:
        """Whether it has weights between any neuron of one group and any of another."""
        return self.axes == ((0,), (1,))


def pieces(architecture: Architecture) -> Iterator[Piece]:
    """Yield the pieces of all blocks, and what no block covers."""
    covered = torch.zeros(architecture.n_weights, dtype=torch.bool)
    for _, block, columns in architecture.blocks:
        index = torch.from_numpy(np.asarray(columns))
        covered[index.reshape(-1)] = True
        for parts in itertools.product(*(summands(block, axis) for axis in range(len(block.axes)))):
            yield _piece(block, [space for space, _ in parts], index[tuple(rows for _, rows in parts)])
    if not covered.all():
        yield Piece((), (), (~covered).nonzero().squeeze(1))


def summands(block: Block, axis: int) -> list[tuple[Fixed | NeuronGroup, slice]]:
    """Return the summands of an axis, and their positions on it; the axis itself where it is no direct sum."""
    space = block.axes[axis]
    if not isinstance(space, DirectSum):
        return [(space, slice(None))]
    stops = list(itertools.accumulate(part.total for part in space.parts))
    return [(part, slice(stop - part.total, stop)) for part, stop in zip(space.parts, stops, strict=True)]


def _piece(block: Block, spaces: list[Fixed | NeuronGroup], columns: Tensor) -> Piece:
    parents = {block.parent_axis(axis) for axis in range(len(spaces))}
    neurons = [a for a, space in enumerate(spaces) if isinstance(space, NeuronGroup) and a not in parents]
    lines = [nested_axes(block, axis) for axis in neurons]
    order = list(dict.fromkeys(itertools.chain(*lines)))
    rest = [axis for axis in range(len(spaces)) if axis not in order]
    columns = columns.permute((*order, *rest))
    return Piece(
        tuple(space for axis in neurons if isinstance(space := spaces[axis], NeuronGroup)),
        tuple(tuple(order.index(axis) for axis in line) for line in lines),
        columns.reshape(*columns.shape[: len(order)], -1),
    )
