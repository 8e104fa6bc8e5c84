"""The sigma-asymmetric activation: a gate that mixes neurons by a fixed matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsflow.layers.constants import normal_constants

# the paper's width, at which the entries of F have variance one
WIDTH = 512
CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


class FiGLU(nn.Module):
    """Apply the gated activation sigmoid(F x) * x with a fixed matrix F, in the place of an elementwise one.

    No permutation of the neurons commutes with it, unless F has equal entries. On channels, F x is a 1 x 1 convolution.

    Parameters
    ----------
    features : int
    kappa : float, optional
        Standard deviation of the entries of F (default: features * kappa^2 is 512, as in the paper at width 512).
    dim : int
        The dimension of the features: -1, or 1 for channels.
    seed, name : int, str
        F follows from both, with the number of features: layers of one network have different names.

    Raises
    ------
    ValueError
        If kappa is not positive, or dim is another one.

    References
    ----------
    Lim et al. 2024, arXiv:2405.20231, section 4.2.

    Examples
    --------
    >>> import torch
    >>> from wsflow.layers import FiGLU
    >>> layer = FiGLU(4, dim=1, name="1")
    >>> x = torch.randn(2, 4, 5, 5)
    >>> torch.allclose(layer(x)[:, :, 0, 0], FiGLU(4, name="1")(x[:, :, 0, 0]), atol=1e-6)
    True
    """

    gate: Tensor

    def __init__(
        self, features: int, kappa: float | None = None, dim: int = -1, *, seed: int = 0, name: str = ""
    ) -> None:
        super().__init__()
        if dim not in (-1, 1):
            raise ValueError(f"FiGLU gates the last dimension, -1, or channels, 1; got the dimension {dim}.")
        kappa = (WIDTH / features) ** 0.5 if kappa is None else kappa
        if not 0 < kappa < float("inf"):
            raise ValueError(f"FiGLU has a matrix of a positive standard deviation, got a kappa of {kappa}.")
        self.features, self.kappa, self.dim, self.seed, self.name = features, float(kappa), dim, seed, name
        self.register_buffer("gate", normal_constants((features, features), self.kappa, seed, name))

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated tensor."""
        if self.dim == -1 or x.dim() == 2:
            return torch.sigmoid(F.linear(x, self.gate)) * x
        kernel = self.gate.reshape(*self.gate.shape, *[1] * (x.dim() - 2))
        return torch.sigmoid(CONVOLUTIONS[x.dim()](x, kernel)) * x

    def extra_repr(self) -> str:
        """Return the settings of the layer."""
        named = f", name={self.name!r}" if self.name else ""
        return f"{self.features}, kappa={self.kappa:.3g}, dim={self.dim}, seed={self.seed}{named}"
