"""Weights of several neurons each that are no matrices between two groups, such as those within each head.

A weight W_ijk of three neurons sends to i what j and k have in common, sum_jk W_ijk (V h_j * U h_k), and is read from
the sum over the width of A h_i * B h_j * C h_k. Neurons that share a parent share an index.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsflow.metanetworks.layers import zero_initialized
from wsflow.metanetworks.signed_blocks import SignedBlock


class TensorMessages(nn.Module):
    """What neurons receive along a tensor of weights of c channels each."""

    def __init__(self, block: SignedBlock, dim: int, channels: int) -> None:
        super().__init__()
        k = len(block.groups)
        self.first = nn.ModuleList(nn.Linear(dim, channels * dim, bias=False) for _ in range(k))
        self.others = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(k if k > 2 else 0))

    def forward(self, block: SignedBlock, states: list[Tensor], w: Tensor) -> list[Tensor]:
        """Return messages (n, neurons, dim) to each group, for states of all groups and w (n, *extents, c)."""
        return [self._to(receiver, block, states, w) for receiver in range(len(block.groups))]

    def _to(self, receiver: int, block: SignedBlock, states: list[Tensor], w: Tensor) -> Tensor:
        groups, k = block.groups, len(block.groups)
        first, *others = (m % k for m in range(receiver + 1, receiver + k))
        channel, width = len(block.extents) + 1, len(block.extents) + 2
        values = self.first[first](states[groups[first].number]).unflatten(2, (w.shape[-1], -1))
        operands: list[Any] = [w, [*range(channel), channel]]
        operands += [block.unfolded(groups[first], values), [*groups[first].labels, channel, width]]
        for i in others:
            values = self.others[i](states[groups[i].number])
            operands += [block.unfolded(groups[i], values), [*groups[i].labels, width]]
        return torch.einsum(*operands, [*groups[receiver].labels, width]).flatten(1, -2)


class TensorReadout(nn.Module):
    """A tensor of weights from the states of its neurons."""

    def __init__(self, block: SignedBlock, dim: int) -> None:
        super().__init__()
        self.first = zero_initialized(nn.Linear(dim, block.columns.shape[-1] * dim))
        self.others = nn.ModuleList(nn.Linear(dim, dim) for _ in block.groups[1:])

    def forward(self, block: SignedBlock, states: list[Tensor]) -> Tensor:
        """Return weights (n, *extents, channels) from the states of all groups."""
        channel, width = len(block.extents) + 1, len(block.extents) + 2
        first, *others = block.groups
        values = self.first(states[first.number]).unflatten(2, (block.columns.shape[-1], -1))
        operands: list[Any] = [block.unfolded(first, values), [*first.labels, channel, width]]
        for member, layer in zip(others, self.others, strict=True):
            operands += [block.unfolded(member, layer(states[member.number])), [*member.labels, width]]
        return torch.einsum(*operands, [*range(channel), channel]) / states[0].shape[-1] ** 0.5
