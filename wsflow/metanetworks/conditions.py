"""Time and conditions: numbers or labels that a velocity depends on beside the point.

A condition is one number for each network, (n,); for labels it is their position in a list. NaN stands for an unknown
condition, so that one network learns the velocity with and without its condition.

References
----------
Vaswani et al. 2017, arXiv:1706.03762 (time); Ho and Salimans 2022, "Classifier-free diffusion guidance",
arXiv:2207.12598 (conditions).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sines and cosines of t at 16 frequencies from 1/4 to 8 periods, and t, through a small network, plus a condition.

    `condition` makes the embedding of conditions from the width, or there is none.
    """

    frequencies: Tensor

    def __init__(self, dim: int, condition: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.linspace(-1, 4, 16))
        self.network = _perceptron(33, dim)
        self.condition = None if condition is None else condition(dim)

    def forward(self, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return embeddings (n, dim) of times (n,) and conditions (n,); None is an unknown condition."""
        phase = t.unsqueeze(-1) * self.frequencies.to(t)
        time = self.network(torch.cat([phase.sin(), phase.cos(), t.unsqueeze(-1)], -1))
        if self.condition is None:
            return time
        return time + self.condition(torch.full_like(t, math.nan) if condition is None else condition.to(t))


class ScalarEmbedding(nn.Module):
    """A number, standardized over the population, through a small network; a learned vector where it is unknown."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, n_labels: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.network = _perceptron(1, dim)
        self.unknown = nn.Parameter(torch.zeros(dim))

    def fit(self, condition: Tensor) -> None:
        """Take the standardization from the conditions (n,) of a population."""
        self.mean.copy_(condition.mean())
        self.deviation.copy_(condition.std(correction=0).clamp_min(1e-6))

    def forward(self, condition: Tensor) -> Tensor:
        """Return embeddings (n, dim) of conditions (n,)."""
        known = ~condition.isnan()
        z = (condition.nan_to_num() - self.mean) / self.deviation
        return torch.where(known.unsqueeze(-1), self.network(z.unsqueeze(-1)), self.unknown)


class LabelEmbedding(nn.Module):
    """A learned vector for each label, and one for an unknown label."""

    def __init__(self, dim: int, n_labels: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_labels + 1, dim)

    def fit(self, condition: Tensor) -> None:
        """Do nothing: labels have no scale."""

    def forward(self, condition: Tensor) -> Tensor:
        """Return embeddings (n, dim) of positions (n,)."""
        return self.vectors(condition.nan_to_num(self.vectors.num_embeddings - 1).long())


def _perceptron(inputs: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, dim), nn.SiLU(), nn.Linear(dim, dim))


CONDITIONS: dict[str, Callable[..., nn.Module]] = {"scalar": ScalarEmbedding, "label": LabelEmbedding}
