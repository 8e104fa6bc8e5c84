"""Networks that give networks for latents: a residual network whose outputs are weights."""

from __future__ import annotations

from torch import Tensor, nn

from wsflow.metanetworks.layers import ColumnScale, residual_block


class WeightDecoder(nn.Module):
    """From latents (n, k) to networks (n, d): a centre, and what a residual network adds in units of spreads.

    Parameters
    ----------
    n_latent : int
    size : int
        Weights of a network.
    dim, depth : int
        Width and number of residual blocks.
    dropout : float
        Probability for what each block adds, in training.

    Examples
    --------
    >>> import torch
    >>> from wsflow.metanetworks.decoder import WeightDecoder
    >>> WeightDecoder(3, 23, dim=8, depth=1)(torch.zeros(5, 3)).shape
    torch.Size([5, 23])
    """

    def __init__(self, n_latent: int, size: int, *, dim: int = 256, depth: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.read = nn.Linear(n_latent, dim)
        self.blocks = nn.ModuleList(residual_block(dim, dropout) for _ in range(depth))
        self.write = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, size))
        self.scale = ColumnScale(size)

    def forward(self, z: Tensor) -> Tensor:
        """Return networks (n, d) for latents (n, k)."""
        h = self.read(z)
        for block in self.blocks:
            h = h + block(h)
        return self.scale.mean + self.scale.inverse(self.write(h))
