"""The baseline: a residual network on the flat vector, which knows no symmetry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsflow.velocity.embedding import TimeEmbedding, zero


class FlatMLP(nn.Module):
    """A residual multi-layer perceptron on standardized columns.

    Parameters
    ----------
    size : int
        Number of columns.
    dim, depth : int
        Width and number of residual blocks.

    Examples
    --------
    >>> import torch
    >>> from wsflow.velocity.mlp import FlatMLP
    >>> FlatMLP(6, dim=8, depth=1)(torch.zeros(2, 6), torch.zeros(2)).shape
    torch.Size([2, 6])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int, *, dim: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.time = TimeEmbedding(dim)
        self.read = nn.Linear(size, dim)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim)) for _ in range(depth)
        )
        self.write = zero(nn.Linear(dim, size))

    def fit_scale(self, x: Tensor) -> None:
        """Take the standardization from points of shape (n, size).

        Parameters
        ----------
        x : Tensor
        """
        self.mean.copy_(x.mean(0))
        self.deviation.copy_(x.std(0, correction=0).clamp_min(1e-6))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """From points (n, size) and times (n,) to vectors (n, size)."""
        h = self.read((x - self.mean) / self.deviation)
        time = self.time(t)
        for block in self.blocks:
            h = h + block(h + time)
        return self.write(h) * self.deviation
