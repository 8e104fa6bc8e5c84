"""Rows of weights as named tensors, stacked over networks, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wsflow.architecture import Architecture


def unflatten(weights: Tensor, architecture: Architecture) -> dict[str, Tensor]:
    """Split rows of weights into the parameters of the networks.

    Parameters
    ----------
    weights : Tensor of shape (n, d)

    Returns
    -------
    dict from the parameters' names to Tensor of shape (n, *shape)

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
    """Join named tensors into rows of weights: the inverse of `unflatten`.

    Parameters
    ----------
    tensors : mapping from the parameters' names to Tensor of shape (n, *shape)

    Returns
    -------
    Tensor of shape (n, d)

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.running import flatten, unflatten
    >>> architecture, weights = Architecture.mlp([4, 3, 2]), torch.arange(46.0).reshape(2, 23)
    >>> torch.equal(flatten(unflatten(weights, architecture), architecture), weights)
    True
    """
    return torch.cat([tensors[name].reshape(len(tensors[name]), -1) for name in architecture.names], dim=1)


def take(rows: Tensor, columns: Tensor) -> Tensor:
    """Select columns, in the shape of the index.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
    columns : LongTensor of any shape

    Returns
    -------
    Tensor of shape (n, *columns.shape)

    Examples
    --------
    >>> import torch
    >>> from wsflow.running import take
    >>> take(torch.arange(6.0).reshape(2, 3), torch.tensor([[2], [0]])).tolist()
    [[[2.0], [0.0]], [[5.0], [3.0]]]
    """
    # index_select has a much faster backward pass than advanced indexing
    return rows.index_select(1, columns.reshape(-1).to(rows.device)).reshape(len(rows), *columns.shape)
