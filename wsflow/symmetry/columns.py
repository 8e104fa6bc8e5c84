"""Columns of rows of weights: as a view of them where that is possible, and room for new ones.

Most blocks are whole parameters, whose columns follow each other: a view is free, where an index copies.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Block


def cut(rows: Tensor, block: Block, columns: np.ndarray) -> Tensor:
    """A block of rows of weights, as a view where that is possible.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
    block : Block
    columns : ndarray of int, shaped as the block

    Returns
    -------
    Tensor of shape (n, *extents)

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.columns import cut
    >>> _, block, columns = Architecture.mlp([2, 3, 1]).blocks[0]
    >>> cut(torch.arange(13.0).unsqueeze(0), block, columns).tolist()
    [[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]]
    """
    where = stretch(columns)
    where = where if isinstance(where, slice) else where.to(rows.device)
    return rows[:, where].reshape(len(rows), *block.extents)


def stretch(columns: np.ndarray) -> slice | Tensor:
    """Columns as a slice where they are one after the other: it is much faster than an index.

    Parameters
    ----------
    columns : ndarray of int

    Returns
    -------
    slice, or LongTensor of shape (columns,)

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.symmetry.columns import stretch
    >>> stretch(np.array([[3, 4], [5, 6]])), stretch(np.array([[3, 5], [4, 6]]))
    (slice(3, 7, None), tensor([3, 5, 4, 6]))
    """
    flat = columns.reshape(-1)
    if len(flat) and flat[-1] - flat[0] == len(flat) - 1 and (np.diff(flat) == 1).all():
        return slice(int(flat[0]), int(flat[-1]) + 1)
    return torch.from_numpy(flat)


def room(like: Tensor) -> Tensor:
    """Memory for a tensor of the same shape and dtype, on the same device; what is in it is arbitrary.

    Parameters
    ----------
    like : Tensor

    Returns
    -------
    Tensor
        Contiguous.
    """
    if like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64):
        # NumPy asks the system for large pages: to touch fresh memory then takes half of the time
        return torch.from_numpy(np.empty(like.shape, np.float32 if like.dtype == torch.float32 else np.float64))
    return torch.empty_like(like, memory_format=torch.contiguous_format)
