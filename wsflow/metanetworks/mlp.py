"""The baseline: a residual network on the flat vector, which knows no symmetry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.metanetworks.embedding import TimeEmbedding, thinned, zero


class FlatMLP(nn.Module):
    """A residual multi-layer perceptron on standardized columns.

    Parameters
    ----------
    size : int
        Number of columns.
    dim, depth : int
        Width and number of residual blocks.
    condition : callable, optional
        As in `TimeEmbedding`.
    n_hints : int
        As in `wsflow.metanetworks.neuron.NeuronTransformer`, with a factor for each hint.
    dropout : float
        Of what each block adds, in training.

    Examples
    --------
    >>> import torch
    >>> from wsflow.metanetworks.mlp import FlatMLP
    >>> FlatMLP(6, dim=8, depth=1)(torch.zeros(2, 6), torch.zeros(2)).shape
    torch.Size([2, 6])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        size: int,
        *,
        dim: int = 256,
        depth: int = 3,
        condition: Callable[[int], nn.Module] | None = None,
        n_hints: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.time = TimeEmbedding(dim, condition)
        self.read = nn.Linear((1 + n_hints) * size, dim)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), thinned(dropout))
            for _ in range(depth)
        )
        self.write = zero(nn.Linear(dim, size))
        self.follow = zero(nn.Linear(dim, n_hints)) if n_hints else None

    def fit_scale(self, x: Tensor) -> None:
        """Take the standardization from points of shape (n, size).

        Parameters
        ----------
        x : Tensor
        """
        self.mean.copy_(x.mean(0))
        self.deviation.copy_(x.std(0, correction=0).clamp_min(1e-6))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, hints: Tensor | None = None) -> Tensor:
        """From points (n, size), times (n,), conditions (n,) and hints (n, n_hints, size) to vectors (n, size)."""
        seen = (x - self.mean) / self.deviation
        h = self.read(seen if hints is None else torch.cat([seen, hints.flatten(1)], 1))
        time = self.time(t, condition)
        for block in self.blocks:
            h = h + block(h + time)
        out: Tensor = self.write(h) * self.deviation
        return out if hints is None or self.follow is None else out + (self.follow(h).unsqueeze(-1) * hints).sum(1)
