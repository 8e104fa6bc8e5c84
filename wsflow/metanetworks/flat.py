"""The baseline: a residual network on the flat vector, which knows no symmetry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.metanetworks.conditions import TimeEmbedding
from wsflow.metanetworks.layers import ColumnScale, residual_block
from wsflow.metanetworks.tokens import RowToken


class FlatEncoder(nn.Module):
    """Encode rows as one vector each, by a residual multi-layer perceptron on standardized columns.

    Parameters
    ----------
    architecture : Architecture or int
        Of networks, or the number of columns of other points.
    n_extra : int
        Coordinates behind the weights.
    dim, depth : int
        Width and number of residual blocks.
    condition, n_hints, dropout
        As in `wsflow.metanetworks.neuron.NeuronEncoder`.

    Examples
    --------
    >>> import torch
    >>> from wsflow.metanetworks.flat import FlatEncoder
    >>> FlatEncoder(6, dim=8, depth=1)(torch.zeros(2, 6), torch.zeros(2)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        architecture: Architecture | int,
        n_extra: int = 0,
        *,
        dim: int = 256,
        depth: int = 3,
        condition: Callable[[int], nn.Module] | None = None,
        n_hints: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.n_hints, self.has_one_width = dim, n_hints, True
        size = n_extra + (architecture if isinstance(architecture, int) else architecture.n_weights)
        self.tokens = RowToken(size)
        self.scale = ColumnScale(size)
        self.time = TimeEmbedding(dim, condition)
        self.read = nn.Linear((1 + n_hints) * size, dim)
        self.blocks = nn.ModuleList(residual_block(dim, dropout) for _ in range(depth))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, hints: Tensor | None = None) -> Tensor:
        """Return states (n, dim) of points (n, size), times (n,), conditions (n,) and hints (n, n_hints, size)."""
        inputs = self.scale(x)
        h = self.read(inputs if hints is None else torch.cat([inputs, hints.flatten(1)], 1))
        context = self.time(t, condition)
        for block in self.blocks:
            h = h + block(h + context)
        return h
