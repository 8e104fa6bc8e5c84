"""Convolutions along the row of weights, which know no symmetry.

References
----------
Eilertsen, Jonsson, Ropinski, Unger and Ynnerman 2020, "Classifying the classifier: dissecting the weight space of
neural networks", arXiv:2002.05688.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.metanetworks.layers import ParameterScale, dropout_of

KERNEL, STRIDE = 5, 2


class ConvolutionalEncoder(nn.Module):
    """Encode networks by means and maxima of convolutions along their weights, with a stride of 2.

    Parameters
    ----------
    dim, depth : int
        Channels and number of convolutions.
    dropout : float
        Probability for each channel of the result, in training.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.convolutional import ConvolutionalEncoder
    >>> ConvolutionalEncoder(Architecture.mlp([4, 3, 2]), dim=8, depth=2)(torch.zeros(5, 23)).shape
    torch.Size([5, 16])
    """

    def __init__(self, architecture: Architecture, *, dim: int = 64, depth: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = ParameterScale(architecture)
        channels = [1, *(dim for _ in range(depth))]
        self.layers = nn.ModuleList(nn.Conv1d(c, dim, KERNEL, STRIDE, padding=KERNEL // 2) for c in channels[:-1])
        self.norms = nn.ModuleList(nn.GroupNorm(1, dim) for _ in range(depth))
        self.dropout = dropout_of(dropout)

    def fit_scale(self, x: Tensor) -> None:
        """Take the scale of each parameter from networks (n, d)."""
        self.scale.fit(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return states (n, 2 * dim) of networks (n, d)."""
        h = self.scale(x).unsqueeze(1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = nn.functional.gelu(norm(layer(h)))
        return self.dropout(torch.cat([h.mean(2), h.amax(2)], 1))
