"""Conditions of a velocity: numbers or labels that ride along with time.

A condition is one number for each network, (n,); for labels it is their position in a list. NaN means that nothing is
known, so that one network learns the velocity with and without its condition.

References
----------
Ho and Salimans 2022, "Classifier-free diffusion guidance", arXiv:2207.12598.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ScalarEmbedding(nn.Module):
    """A number, standardized over the population, through a small network; a vector of its own where it is unknown.

    Parameters
    ----------
    dim : int
        Width of the embedding.
    n_labels : int
        Not used.

    Examples
    --------
    >>> import torch
    >>> from wsflow.metanetworks.conditions import ScalarEmbedding
    >>> ScalarEmbedding(8)(torch.tensor([0.3, float("nan")])).shape
    torch.Size([2, 8])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, n_labels: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.network = nn.Sequential(nn.Linear(1, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.unknown = nn.Parameter(torch.zeros(dim))

    def fit(self, condition: Tensor) -> None:
        """Take the standardization from the conditions of a population.

        Parameters
        ----------
        condition : Tensor of shape (n,)
        """
        self.mean.copy_(condition.mean())
        self.deviation.copy_(condition.std(correction=0).clamp_min(1e-6))

    def forward(self, condition: Tensor) -> Tensor:
        """From conditions (n,) to (n, dim)."""
        known = ~condition.isnan()
        z = (condition.nan_to_num() - self.mean) / self.deviation
        return torch.where(known.unsqueeze(-1), self.network(z.unsqueeze(-1)), self.unknown)


class LabelEmbedding(nn.Module):
    """A learned vector for each label, and one for the case that it is unknown.

    Parameters
    ----------
    dim : int
        Width of the embedding.
    n_labels : int

    Examples
    --------
    >>> import torch
    >>> from wsflow.metanetworks.conditions import LabelEmbedding
    >>> LabelEmbedding(8, 3)(torch.tensor([2.0, float("nan")])).shape
    torch.Size([2, 8])
    """

    def __init__(self, dim: int, n_labels: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_labels + 1, dim)

    def fit(self, condition: Tensor) -> None:
        """Nothing to fit.

        Parameters
        ----------
        condition : Tensor of shape (n,)
        """

    def forward(self, condition: Tensor) -> Tensor:
        """From positions (n,) to (n, dim)."""
        return self.vectors(condition.nan_to_num(self.vectors.num_embeddings - 1).long())


CONDITIONS: dict[str, Callable[..., nn.Module]] = {"scalar": ScalarEmbedding, "label": LabelEmbedding}
