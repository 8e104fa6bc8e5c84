"""From factors on some columns to a product on all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.geometry.charts import Chart, Polar
from wsflow.manifolds import Euclidean, Manifold, Product

Factor = tuple[Manifold, Tensor]


def polar_of(architecture: Architecture, last_layer: str) -> list[Polar]:
    """The chart of the output layer, where it has one.

    Parameters
    ----------
    architecture : Architecture
    last_layer : {"euclidean", "polar"}

    Returns
    -------
    list of Polar
        One or none.
    """
    return [Polar(torch.from_numpy(architecture.output_columns))] if last_layer == "polar" else []


def product_of(n_weights: int, factors: Sequence[Factor], charts: Sequence[Chart]) -> Product:
    """The product of factors, of the charts' factors, and of a vector space for the columns that are left.

    Parameters
    ----------
    n_weights : int
    factors : sequence of (Manifold, LongTensor of shape (copies, size))
    charts : sequence of Chart

    Returns
    -------
    Product
    """
    found, size = list(factors), n_weights
    for chart in charts:
        found += chart.factors(size)
        size += chart.n_extra
    taken = torch.zeros(size, dtype=torch.bool)
    for _, columns in found:
        taken[columns.reshape(-1)] = True
    rest = (~taken).nonzero().squeeze(1)
    return Product([*found, (Euclidean(len(rest)), rest.unsqueeze(0))] if len(rest) else found)
