"""The sign convention: the first odd power sum of a vector that is not zero is positive."""

from __future__ import annotations

import torch
from torch import Tensor


def orientation(rows: Tensor) -> Tensor:
    """Return the signs (...), 1 or -1, that make the first odd power sum positive that is not zero up to rounding.

    A vector whose odd power sums all vanish is its own negative up to the order of its entries: it keeps its sign.

    Examples
    --------
    >>> import torch
    >>> from wsflow.symmetry.canonical.signs import orientation
    >>> orientation(torch.tensor([[1.0, -3.0], [2.0, -2.0], [0.0, 0.0]]))
    tensor([-1.,  1.,  1.])
    >>> orientation(torch.tensor([1.0, 2.0, -3.0]))
    tensor(-1.)
    """
    sign = _sign(rows.sum(-1), torch.linalg.vector_norm(rows, 1, dim=-1))
    undecided = sign == 0
    # higher powers take long, and few neurons need them
    if rows.shape[-1] and undecided.any():
        sign[undecided] = _by_higher_powers(rows[undecided])
    return torch.where(sign == 0, 1.0, sign)


def _by_higher_powers(rows: Tensor) -> Tensor:
    rows = rows / rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    sign = rows.new_zeros(rows.shape[:-1])
    for power in (3, 5, 7):
        found = _sign((rows**power).sum(-1), (rows.abs() ** power).sum(-1))
        sign = torch.where(sign == 0, found, sign)
    return sign


def _sign(moment: Tensor, size: Tensor) -> Tensor:
    """Return the sign of a sum, or zero where the sum is rounding."""
    return torch.where(moment.abs() > torch.finfo(moment.dtype).eps ** (2 / 3) * size, moment.sign(), 0.0)
