"""Pieces of parameters: which neurons each weight belongs to, and which signs turn it, for blocks of any axes.

An axis of a direct sum has a piece for each summand. An axis of a nested group is one of neurons together with the axis
of its parent, where the block has one: a weight (heads, channels, features) belongs to channels, counted over all
heads, and to features. Several axes may share a parent, as the channels that go into a group of a convolution and those
that come out of it do.

A sign of a wire turns every weight that is produced on it or consumed from it with an odd power. A product of a weight
and the odd states of all its wires is even; of all but one of them it is odd in that one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsflow.activations import SIGN
from wsflow.architecture import Architecture, Block, DirectSum, Fixed, NeuronGroup
from wsflow.symmetry.actions import nested_axes


@dataclass(frozen=True)
class Member:
    """States of neurons along some axes of a piece, the outermost first.

    Parameters
    ----------
    number : int
        Of the neuron group, or of the wire where the states are odd.
    axes : tuple of int
    rows : slice
        The states that belong to the piece: of a wire along a direct sum, those of one summand.
    is_odd : bool
        Whether the states turn with the signs of a wire.
    """

    number: int
    axes: tuple[int, ...]
    rows: slice = field(default_factory=lambda: slice(None))
    is_odd: bool = False

    @property
    def labels(self) -> list[int]:
        """The axes of `SignedBlock.unfolded` states for torch.einsum; the batch is 0."""
        return [0, *(1 + axis for axis in self.axes)]


@dataclass(frozen=True)
class SignedBlock:
    """Columns (*extents, channels) of weights of one neuron each of some groups, and wires whose signs turn them."""

    groups: tuple[Member, ...]
    wires: tuple[Member, ...]
    columns: Tensor

    @property
    def is_matrix(self) -> bool:
        """Whether it has weights between any neuron of one group and any of another."""
        return [member.axes for member in self.groups] == [(0,), (1,)]

    @property
    def extents(self) -> tuple[int, ...]:
        """Sizes of the axes of neurons."""
        return tuple(self.columns.shape[:-1])

    @property
    def senders(self) -> float:
        """The largest number of weights through which a neuron receives."""
        return math.prod(self.extents) / min(math.prod(self._extents(member)) for member in self.groups)

    def _extents(self, member: Member) -> list[int]:
        return [self.columns.shape[axis] for axis in member.axes]

    def unfolded(self, member: Member, states: Tensor) -> Tensor:
        """States (n, neurons, ...) of a member with an axis for each of its axes here."""
        return states.unflatten(1, self._extents(member))

    def spread(self, member: Member, states: Tensor) -> Tensor:
        """States (n, neurons, f) of a member as (n, *extents, f), with extents of 1 on the axes of others."""
        line = member.axes
        order = sorted(range(len(line)), key=line.__getitem__)
        states = self.unfolded(member, states).permute(0, *(1 + i for i in order), len(line) + 1)
        shape = [self.columns.shape[a] if a in line else 1 for a in range(len(self.extents))]
        return states.reshape(len(states), *shape, -1)

    @property
    def plain(self) -> tuple[Member, ...]:
        """Neurons of the groups along whose axes no sign acts."""
        signed = {axis for wire in self.wires for axis in wire.axes}
        return tuple(member for member in self.groups if not signed & set(member.axes))

    def receivers(self) -> Iterator[tuple[Member, tuple[Member, ...], bool]]:
        """Yield each receiver with the senders of its messages, and whether these are along absolute values."""
        for member in self.groups:
            yield member, tuple(other for other in self.groups if other is not member), bool(self.wires)
            if self.wires:
                yield member, (*self.wires, *(other for other in self.plain if other is not member)), False
        for wire in self.wires:
            yield wire, (*(other for other in self.wires if other is not wire), *self.plain), False

    def rows_of(self, member: Member) -> Tensor:
        """Return the columns (neurons, rest) of the weights of each neuron of a member."""
        axes = member.axes
        return self.columns.movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1).flatten(1)


def signed_blocks(architecture: Architecture, wires: Sequence[str] = ()) -> Iterator[SignedBlock]:
    """Yield the pieces of all blocks, with the numbers of groups and of these wires, and what no block covers."""
    covered = torch.zeros(architecture.n_weights, dtype=torch.bool)
    for _, block, columns in architecture.blocks:
        index = torch.from_numpy(np.asarray(columns))
        covered[index.reshape(-1)] = True
        for parts in itertools.product(*(_summands(block, axis) for axis in range(len(block.axes)))):
            spaces, rows = zip(*parts, strict=True) if parts else ((), ())
            yield _signed(block, spaces, rows, index[rows], architecture.groups, wires)
    if not covered.all():
        yield SignedBlock((), (), (~covered).nonzero().squeeze(1))


def _summands(block: Block, axis: int) -> list[tuple[Fixed | NeuronGroup, slice]]:
    """Return the summands of an axis, and their positions on it; the axis itself where it is no direct sum."""
    space = block.axes[axis]
    if not isinstance(space, DirectSum):
        return [(space, slice(None))]
    stops = list(itertools.accumulate(part.total for part in space.parts))
    return [(part, slice(stop - part.total, stop)) for part, stop in zip(space.parts, stops, strict=True)]


def _signed(
    block: Block,
    spaces: Sequence[Fixed | NeuronGroup],
    rows: Sequence[slice],
    columns: Tensor,
    groups: Sequence[NeuronGroup],
    wires: Sequence[str],
) -> SignedBlock:
    parents = {block.parent_axis(axis) for axis in range(len(spaces))}
    numbers = {a: groups.index(s) for a, s in enumerate(spaces) if isinstance(s, NeuronGroup) and a not in parents}
    lines = [(number, nested_axes(block, axis)) for axis, number in numbers.items()]
    acting = [
        (wires.index(name), nested_axes(block, axis), rows[axis])
        for name, axis, exponent in block.wires
        if exponent % 2 and name in wires
    ]
    order = list(dict.fromkeys(itertools.chain(*(axes for _, axes in lines), *(axes for _, axes, _ in acting))))
    rest = [axis for axis in range(len(spaces)) if axis not in order]
    columns = columns.permute((*order, *rest))
    return SignedBlock(
        tuple(Member(number, tuple(map(order.index, axes))) for number, axes in lines),
        tuple(Member(wire, tuple(map(order.index, axes)), where, True) for wire, axes, where in acting),
        columns.reshape(*columns.shape[: len(order)], -1),
    )


def sign_wires(architecture: Architecture) -> list[str]:
    """Return the names of the wires that have signs."""
    return [wire.name for wire in architecture.wires if SIGN in wire.scalings]


class Contraction(nn.Module):
    """Sum weights (n, *extents, channels) times a product of states over all axes but those of a receiver.

    The first state is mapped to one vector for each channel of the weights; there are no biases, so that the result is
    odd in each state.
    """

    def __init__(
        self, columns: Tensor, receiver: Member, senders: tuple[Member, ...], is_absolute: bool, dim: int
    ) -> None:
        super().__init__()
        self.receiver, self.senders, self.is_absolute = receiver, senders, is_absolute
        self.extents = tuple(columns.shape[:-1])
        sizes = [columns.shape[-1] * dim, *(dim for _ in senders[1:])]
        self.maps = nn.ModuleList(nn.Linear(dim, size, bias=False) for size in sizes)
        self.n_summed = columns.numel() / max(1, math.prod(self.extents[a] for a in receiver.axes))

    def forward(self, w: Tensor, even: list[Tensor], odd: list[Tensor]) -> Tensor:
        """Return messages (n, neurons, dim) to the receiver, for the states (n, neurons, dim) of groups and wires."""
        channel, width = len(self.extents) + 1, len(self.extents) + 2
        operands: list[Any] = [w.abs() if self.is_absolute else w, list(range(channel + 1))]
        for i, (member, layer) in enumerate(zip(self.senders, self.maps, strict=True)):
            values = layer((odd if member.is_odd else even)[member.number][:, member.rows])
            values = values if i else values.unflatten(2, (w.shape[-1], -1))
            operands.append(values.unflatten(1, [self.extents[a] for a in member.axes]))
            operands.append([*member.labels, *([] if i else [channel]), width])
        found = torch.einsum(*operands, [*self.receiver.labels, width])
        return found.flatten(1, -2) / self.n_summed**0.5
