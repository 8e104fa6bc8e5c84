"""Views of rows of weights, and tensors that broadcast along some axes of a block.

Most blocks are whole parameters, whose columns are consecutive: a view of them is free, where an index copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Block


def block_view(rows: Tensor, block: Block, columns: np.ndarray) -> Tensor:
    """Return a block (n, *extents) of rows (n, d), as a view where its columns (*extents) are consecutive."""
    index = as_index(columns)
    index = index if isinstance(index, slice) else index.to(rows.device)
    return rows[:, index].reshape(len(rows), *block.extents)


def as_index(columns: np.ndarray) -> slice | Tensor:
    """Return columns as a slice where they are consecutive, else as a flat index, which is much slower."""
    flat = columns.reshape(-1)
    if len(flat) and flat[-1] - flat[0] == len(flat) - 1 and (np.diff(flat) == 1).all():
        return slice(int(flat[0]), int(flat[-1]) + 1)
    return torch.from_numpy(flat)


def broadcastable(values: Tensor, axes: Sequence[int], extents: Sequence[int]) -> Tensor:
    """Return values (n, total) over the product of some axes, shaped to broadcast over (n, *extents)."""
    values = values.reshape(len(values), *(extents[i] for i in axes))
    order = sorted(range(len(axes)), key=axes.__getitem__)
    shape = [size if i in axes else 1 for i, size in enumerate(extents)]
    return values.permute(0, *(i + 1 for i in order)).reshape(len(values), *shape)


def empty_like(tensor: Tensor) -> Tensor:
    """Return uninitialised contiguous memory of the same shape, dtype and device."""
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
        # NumPy asks the system for large pages: to touch fresh memory then takes half of the time
        dtype = np.float32 if tensor.dtype == torch.float32 else np.float64
        return torch.from_numpy(np.empty(tensor.shape, dtype))
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
