"""What every velocity network shares: the embedding of time, and the scale of its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture


class TimeEmbedding(nn.Module):
    """Sines and cosines of t at 16 frequencies from 1/4 to 8 periods, and t itself, through a small network.

    Parameters
    ----------
    dim : int
        Width of the embedding.
    condition : callable, optional
        From the width to the embedding of a condition, which is added; a row of `wsflow.metanetworks.conditions`.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762.
    """

    frequencies: Tensor

    def __init__(self, dim: int, condition: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.linspace(-1, 4, 16))
        self.network = nn.Sequential(nn.Linear(33, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.condition = None if condition is None else condition(dim)

    def forward(self, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """From times (n,), and conditions (n,) where there are some, to (n, dim); None is an unknown condition."""
        phase = t.unsqueeze(-1) * self.frequencies.to(t)
        time = self.network(torch.cat([phase.sin(), phase.cos(), t.unsqueeze(-1)], -1))
        if self.condition is None:
            return time
        return time + self.condition(torch.full_like(t, math.nan) if condition is None else condition.to(t))


class Scale(nn.Module):
    """Divides each column by the root mean square of its parameter over the population, and multiplies by it.

    One number for each parameter tensor, so that it commutes with permutations of neurons and fits any hidden width.
    Velocities have the scale of points, so that a network behind it sees and says numbers of order one.

    Parameters
    ----------
    architecture : Architecture
    n_extra : int
        Coordinates behind the weights, such as the log-norm of a polar output layer.
    """

    rms: Tensor

    def __init__(self, architecture: Architecture, n_extra: int = 0) -> None:
        super().__init__()
        self.register_buffer("rms", torch.ones(len(architecture.parameters) + n_extra))
        self.bind(architecture, n_extra)

    def bind(self, architecture: Architecture, n_extra: int) -> None:
        """Use the columns of another width of the same architecture.

        Parameters
        ----------
        architecture : Architecture
        n_extra : int
        """
        sizes = [p.size for p in architecture.parameters] + [1] * n_extra
        self._parameter = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))

    def fit(self, x: Tensor) -> None:
        """Take the scale from points of shape (n, size).

        Parameters
        ----------
        x : Tensor
        """
        square = x.square().mean(0).to(self.rms)
        count = torch.bincount(self._parameter).to(square)
        mean = torch.zeros_like(self.rms).index_add_(0, self._parameter, square) / count
        self.rms.copy_(mean.sqrt().clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """From points (n, size) to scaled points."""
        return x / self.rms[self._parameter].to(x)

    @property
    def overall(self) -> Tensor:
        """The root mean square of all columns, a number."""
        return self.rms[self._parameter].square().mean().sqrt()

    def inverse(self, x: Tensor) -> Tensor:
        """From scaled points or velocities (n, size) to those of the population's scale.

        Parameters
        ----------
        x : Tensor of shape (n, size)

        Returns
        -------
        Tensor of shape (n, size)
        """
        return x * self.rms[self._parameter].to(x)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that may have no inputs or no outputs, of which torch's own warns.

    Parameters
    ----------
    inputs, outputs : int

    Returns
    -------
    nn.Linear
    """
    layer = nn.Linear(max(inputs, 1), max(outputs, 1))
    if not (inputs and outputs):
        layer.weight = nn.Parameter(layer.weight.detach()[:outputs, :inputs])
        layer.bias = nn.Parameter(layer.bias.detach()[:outputs])
        layer.in_features, layer.out_features = inputs, outputs
    return layer


def thinned(dropout: float) -> nn.Module:
    """Dropout, or nothing: torch's own with a probability of 0 draws random numbers all the same.

    Parameters
    ----------
    dropout : float

    Returns
    -------
    nn.Module
    """
    return nn.Dropout(dropout) if dropout else nn.Identity()


def zero(layer: nn.Linear) -> nn.Linear:
    """A linear layer that starts at zero, so that the velocity starts at the drift between Gaussians.

    Parameters
    ----------
    layer : nn.Linear

    Returns
    -------
    nn.Linear
    """
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
