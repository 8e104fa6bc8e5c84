"""Layers that the encoders share: adaptive layer norm, feed-forward networks, and how layers start.

References
----------
Vaswani et al. 2017, arXiv:1706.03762; Peebles and Xie 2023, arXiv:2212.09748 (adaptive layer norm, zero start).
"""

from __future__ import annotations

from torch import Tensor, nn


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
