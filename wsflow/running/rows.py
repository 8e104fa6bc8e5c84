"""Rows of weights as named tensors, stacked over networks, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.devices import placed


def unflatten(weights: Tensor, architecture: Architecture) -> dict[str, Tensor]:
    """Split rows of weights (n, d) into the parameters (n, *shape) of the networks, by name.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.running import unflatten
    >>> unflatten(torch.zeros(5, 23), Architecture.mlp([4, 3, 2]))["0.weight"].shape
    torch.Size([5, 3, 4])
    """
    # one split has one concatenation as its backward pass, where slices would have a tensor of zeros each
    columns = torch.split(weights, [p.size for p in architecture.parameters], dim=1)
    return {p.name: x.reshape(len(weights), *p.shape) for p, x in zip(architecture.parameters, columns, strict=True)}


def flatten(tensors: Mapping[str, Tensor], architecture: Architecture) -> Tensor:
    """Join named tensors (n, *shape) into rows of weights (n, d): the inverse of `unflatten`."""
    return torch.cat([tensors[name].reshape(len(tensors[name]), -1) for name in architecture.names], dim=1)


def take(rows: Tensor, columns: Tensor) -> Tensor:
    """Select columns of rows (n, d), in the shape of the index: (n, *columns.shape).

    Examples
    --------
    >>> import torch
    >>> from wsflow.running import take
    >>> take(torch.arange(6.0).reshape(2, 3), torch.tensor([[2], [0]])).tolist()
    [[[2.0], [0.0]], [[5.0], [3.0]]]
    """
    # index_select has a much faster backward pass than advanced indexing
    return rows.index_select(1, placed(columns, rows.device).reshape(-1)).reshape(len(rows), *columns.shape)
