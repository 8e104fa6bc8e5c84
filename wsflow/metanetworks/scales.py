"""Scales: encoders see, and readouts give, numbers of order one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture


class ParameterScale(nn.Module):
    """Divide each column by the root mean square of its parameter over the population.

    There is one number for each parameter tensor, so that the scale commutes with permutations of neurons and fits any
    hidden width; each of `n_extra` coordinates behind the weights has its own.
    """

    rms: Tensor

    def __init__(self, architecture: Architecture, n_extra: int = 0) -> None:
        super().__init__()
        self.register_buffer("rms", torch.ones(len(architecture.parameters) + n_extra))
        self.set_architecture(architecture, n_extra)

    def set_architecture(self, architecture: Architecture, n_extra: int) -> None:
        """Use the columns of another width of the same architecture."""
        sizes = [p.size for p in architecture.parameters] + [1] * n_extra
        self._parameter = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))

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

    def forward(self, x: Tensor) -> Tensor:
        """Return standardized points (n, size)."""
        return (x - self.mean) / self.deviation

    def inverse(self, v: Tensor) -> Tensor:
        """Return vectors (n, size) that are given in units of the standard deviations."""
        return v * self.deviation
