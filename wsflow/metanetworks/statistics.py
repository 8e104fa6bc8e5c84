"""Statistics of each parameter: what weights are like, whichever neuron they belong to.

References
----------
Unterthiner, Keysers, Gelly, Bousquet and Tolstikhin 2020, "Predicting neural network accuracy from weights",
arXiv:2002.11448.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.devices import placed
from wsflow.metanetworks.layers import ColumnScale, residual_block
from wsflow.running.rows import unflatten

QUANTILES = torch.tensor((0.0, 0.25, 0.5, 0.75, 1.0), dtype=torch.float64)
N_STATISTICS = 2 + len(QUANTILES)


def weight_statistics(weights: Tensor, architecture: Architecture) -> Tensor:
    """Compute mean, variance and quantiles (0, 25, 50, 75 and 100%) of each parameter.

    They are invariant to permutations of neurons, and to nothing else. With gradient-boosted trees on top they are the
    strongest of the plain predictors of Unterthiner et al. 2020.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture

    Returns
    -------
    Tensor of shape (n, 7 * parameters)

    References
    ----------
    Unterthiner et al. 2020, arXiv:2002.11448.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.metanetworks.statistics import weight_statistics
    >>> weight_statistics(torch.randn(5, 23), Architecture.mlp([4, 3, 2])).shape
    torch.Size([5, 28])
    """
    levels = placed(QUANTILES, weights.device).to(weights)
    found: list[Tensor] = []
    for values in unflatten(weights, architecture).values():
        # one sorting gives all quantiles, and sums in an order that permutations do not change
        rows = values.reshape(len(values), -1).sort(1).values
        place = levels * (rows.shape[1] - 1)
        low = place.floor().long()
        quantiles = rows[:, low].lerp(rows[:, place.ceil().long()], place - low)
        found += [rows.mean(1, keepdim=True), rows.var(1, correction=0, keepdim=True), quantiles]
    return torch.cat(found, 1)


class StatisticsEncoder(nn.Module):
    """Encode networks by a residual network on the statistics of their parameters.

    Parameters
    ----------
    dim, depth : int
        Width and number of residual blocks.
    dropout : float
        Probability for what each block adds, in training.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.statistics import StatisticsEncoder
    >>> StatisticsEncoder(Architecture.mlp([4, 3, 2]), dim=8, depth=1)(torch.zeros(5, 23)).shape
    torch.Size([5, 8])
    """

    def __init__(self, architecture: Architecture, *, dim: int = 128, depth: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        size = N_STATISTICS * len(architecture.parameters)
        self.scale = ColumnScale(size)
        self.read = nn.Linear(size, dim)
        self.blocks = nn.ModuleList(residual_block(dim, dropout) for _ in range(depth))

    def fit_scale(self, x: Tensor) -> None:
        """Take means and standard deviations of the statistics from networks (n, d)."""
        self.scale.fit(weight_statistics(x, self.architecture))
        self.scale.ignore_constants()

    def forward(self, x: Tensor) -> Tensor:
        """Return states (n, dim) of networks (n, d)."""
        h = self.read(self.scale(weight_statistics(x, self.architecture)))
        for block in self.blocks:
            h = h + block(h)
        return h
