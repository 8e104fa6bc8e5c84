"""Weights of several neurons each that are no matrices between two groups, such as those within each head.

A weight W_ijk of three neurons sends to i what j and k have in common, sum_jk W_ijk (V h_j * U h_k), and is read from
the sum over the width of A h_i * B h_j * C h_k. Neurons that share a parent share an index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsflow.metanetworks.layers import zero_initialized


@dataclass(frozen=True)
class TensorBlock:
    """The columns of such weights: a `Piece`, with groups by their number."""

    groups: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]
    columns: Tensor

    @property
    def extents(self) -> tuple[int, ...]:
        """Sizes of the axes of neurons."""
        return tuple(self.columns.shape[:-1])

    @property
    def senders(self) -> float:
        """The largest number of weights through which a neuron receives."""
        return math.prod(self.extents) / min(math.prod(self._extents(line)) for line in self.axes)

    def _extents(self, line: tuple[int, ...]) -> list[int]:
        return [self.columns.shape[axis] for axis in line]

    def unfolded(self, member: int, states: Tensor) -> Tensor:
        """States (n, neurons, ...) of a group with an axis for each of its axes here."""
        return states.unflatten(1, self._extents(self.axes[member]))

    def spread(self, member: int, states: Tensor) -> Tensor:
        """States (n, neurons, f) of a group as (n, *extents, f), with extents of 1 on the axes of other groups."""
        line = self.axes[member]
        order = sorted(range(len(line)), key=line.__getitem__)
        states = self.unfolded(member, states).permute(0, *(1 + i for i in order), len(line) + 1)
        shape = [self.columns.shape[a] if a in line else 1 for a in range(len(self.extents))]
        return states.reshape(len(states), *shape, -1)

    def labels(self, member: int) -> list[int]:
        """The axes of `unfolded` for torch.einsum; the batch is 0."""
        return [0, *(1 + axis for axis in self.axes[member])]


class TensorMessages(nn.Module):
    """What neurons receive along a tensor of weights of c channels each."""

    def __init__(self, block: TensorBlock, dim: int, channels: int) -> None:
        super().__init__()
        k = len(block.groups)
        self.first = nn.ModuleList(nn.Linear(dim, channels * dim, bias=False) for _ in range(k))
        self.others = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(k if k > 2 else 0))

    def forward(self, block: TensorBlock, states: list[Tensor], w: Tensor) -> list[Tensor]:
        """Return messages (n, neurons, dim) to each group, for states of all groups and w (n, *extents, c)."""
        return [self._to(receiver, block, states, w) for receiver in range(len(block.groups))]

    def _to(self, receiver: int, block: TensorBlock, states: list[Tensor], w: Tensor) -> Tensor:
        first, *others = (m % len(block.groups) for m in range(receiver + 1, receiver + len(block.groups)))
        channel, width = len(block.extents) + 1, len(block.extents) + 2
        values = self.first[first](states[block.groups[first]]).unflatten(2, (w.shape[-1], -1))
        operands = [
            w,
            [*range(channel), channel],
            block.unfolded(first, values),
            [*block.labels(first), channel, width],
        ]
        for member in others:
            values = self.others[member](states[block.groups[member]])
            operands += [block.unfolded(member, values), [*block.labels(member), width]]
        return torch.einsum(*operands, [*block.labels(receiver), width]).flatten(1, -2)


class TensorReadout(nn.Module):
    """A tensor of weights from the states of its neurons."""

    def __init__(self, block: TensorBlock, dim: int) -> None:
        super().__init__()
        self.first = zero_initialized(nn.Linear(dim, block.columns.shape[-1] * dim))
        self.others = nn.ModuleList(nn.Linear(dim, dim) for _ in block.groups[1:])

    def forward(self, block: TensorBlock, states: list[Tensor]) -> Tensor:
        """Return weights (n, *extents, channels) from the states of all groups."""
        channel, width = len(block.extents) + 1, len(block.extents) + 2
        values = self.first(states[block.groups[0]]).unflatten(2, (block.columns.shape[-1], -1))
        operands = [block.unfolded(0, values), [*block.labels(0), channel, width]]
        for member, layer in enumerate(self.others, 1):
            values = layer(states[block.groups[member]])
            operands += [block.unfolded(member, values), [*block.labels(member), width]]
        return torch.einsum(*operands, [*range(channel), channel]) / states[0].shape[-1] ** 0.5
