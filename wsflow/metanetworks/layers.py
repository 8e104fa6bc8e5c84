"""Layers that encoders and readouts share: scales of rows, adaptive layer norm, feed-forward networks, zero start.

References
----------
Vaswani et al. 2017, arXiv:1706.03762; Peebles and Xie 2023, arXiv:2212.09748 (adaptive layer norm, zero start).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture


class ParameterScale(nn.Module):
    """Divide each column by the root mean square of its parameter over the population.

    One number for each tensor commutes with permutations of neurons and fits any hidden width.
    """

    rms: Tensor
    _parameter: Tensor

    def __init__(self, architecture: Architecture, n_extra: int = 0) -> None:
        super().__init__()
        self.register_buffer("rms", torch.ones(len(architecture.parameters) + n_extra))
        self.set_architecture(architecture, n_extra)

    def set_architecture(self, architecture: Architecture, n_extra: int) -> None:
        """Use the columns of another width of the same architecture."""
        sizes = [p.size for p in architecture.parameters] + [1] * n_extra
        parameter = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.register_buffer("_parameter", parameter.to(self.rms.device), persistent=False)

    def fit(self, x: Tensor) -> None:
        """Take the scale from points (n, size)."""
        square = x.square().mean(0).to(self.rms)
        count = torch.bincount(self._parameter).to(square)
        mean = torch.zeros_like(self.rms).index_add_(0, self._parameter, square) / count
        self.rms.copy_(mean.sqrt().clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Return points (n, size) in units of the population's scale."""
        return x / self.rms[self._parameter].to(x)

    def inverse(self, v: Tensor) -> Tensor:
        """Return vectors (n, size) that are given in units of the population's scale."""
        return v * self.rms[self._parameter].to(v)

    @property
    def overall(self) -> Tensor:
        """The root mean square of all columns, a number."""
        return self.rms[self._parameter].square().mean().sqrt()


class ColumnScale(nn.Module):
    """Standardize each column: subtract its mean over the population, and divide by its standard deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def fit(self, x: Tensor) -> None:
        """Take means and standard deviations from points (n, size)."""
        self.mean.copy_(x.mean(0))
        self.deviation.copy_(x.std(0, correction=0).clamp_min(1e-6))

    def ignore_constants(self) -> None:
        """Let what is equal in all points, and tells nothing, stay near zero wherever other points differ in it."""
        constant = self.deviation <= 1e-6 * (1 + self.mean.abs())
        self.deviation[constant] = 1e6 * (1 + self.mean[constant].abs())

    def forward(self, x: Tensor) -> Tensor:
        """Return standardized points (n, size)."""
        return (x - self.mean) / self.deviation

    def inverse(self, v: Tensor) -> Tensor:
        """Return vectors (n, size) that are given in units of the standard deviations."""
        return v * self.deviation


class AdaptiveNorm(nn.Module):
    """(1 + a) LayerNorm(h) + b, where a and b are affine in a context (n, dim): the embedding of time and condition."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, states: list[Tensor], context: Tensor) -> list[Tensor]:
        """Return the normalized states, each of shape (n, tokens, dim)."""
        scale, shift = self.modulation(context).unsqueeze(1).chunk(2, -1)
        return [self.norm(h) * (1 + scale) + shift for h in states]


def feed_forward(dim: int, hidden: int) -> nn.Sequential:
    """Return layer norm and a network with one hidden layer."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


def residual_block(dim: int, dropout: float) -> nn.Sequential:
    """Return layer norm and a network with one hidden layer of the same width, to be added to its input."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), dropout_of(dropout))


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer that may have no inputs or no outputs, of which torch's own warns."""
    layer = nn.Linear(max(inputs, 1), max(outputs, 1))
    if not (inputs and outputs):
        layer.weight = nn.Parameter(layer.weight.detach()[:outputs, :inputs])
        layer.bias = nn.Parameter(layer.bias.detach()[:outputs])
        layer.in_features, layer.out_features = inputs, outputs
    return layer


def zero_initialized(layer: nn.Linear) -> nn.Linear:
    """Set a linear layer to zero, so that a velocity starts as the drift between Gaussians."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def dropout_of(probability: float) -> nn.Module:
    """Return dropout, or the identity: torch's own draws random numbers even with a probability of 0."""
    return nn.Dropout(probability) if probability else nn.Identity()
