"""The Sinkhorn operator: from a matrix of scores to a doubly stochastic matrix, and its derivative.

P = diag(e^u) e^Z diag(e^v), with u and v such that rows and columns sum to one: the soft permutation of largest
sum_ij P_ij Z_ij plus entropy. All in logarithms. Its derivative follows from the iterations (unrolled), or from the
condition that holds at the end (implicit), dP = P * (dZ + du 1' + 1 dv') with P 1 = 1 and P' 1 = 1: one linear system,
whatever the number of iterations.

References
----------
Sinkhorn and Knopp 1967, Pacific J. Math. 21(2); Eisenberger, Toker, Leal-Taixe, Bernard and Cremers 2022, "A unified
framework for implicit Sinkhorn differentiation", arXiv:2205.06688; Pena et al. 2023, arXiv:2212.12042.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DIFFERENTIATIONS = ("implicit", "unrolled")


def sinkhorn(
    scores: Tensor, iterations: int = 20, start: Tensor | None = None, differentiation: str = "implicit"
) -> tuple[Tensor, Tensor]:
    """Return doubly stochastic matrices (..., size, size), and the potentials v (..., size) of their columns.

    Columns sum to one always, rows when the iterations have converged. Scores are divided by a temperature before: the
    larger, the closer to a permutation. Iterations start from potentials such as those of scores that are close by.
    Implicit derivatives are those of the limit, so give them enough iterations or a good start; potentials have none.

    Examples
    --------
    >>> import torch
    >>> from wsflow.symmetry.matching.sinkhorn_operator import sinkhorn
    >>> matrix, _ = sinkhorn(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    >>> matrix.round(decimals=4)
    tensor([[0.8808, 0.1192],
            [0.1192, 0.8808]])
    """
    if differentiation not in DIFFERENTIATIONS:
        raise ValueError(
            f"The 'differentiation' of Sinkhorn is one of {', '.join(DIFFERENTIATIONS)}; got {differentiation!r}."
        )
    start = scores.new_zeros(scores.shape[:-1]) if start is None else start
    if differentiation == "unrolled":
        return _iterate(scores, iterations, start)
    return _Implicit.apply(scores, iterations, start)


def _iterate(scores: Tensor, iterations: int, v: Tensor) -> tuple[Tensor, Tensor]:
    u = torch.zeros_like(v)
    for _ in range(iterations):
        u = -(scores + v.unsqueeze(-2)).logsumexp(-1)
        v = -(scores + u.unsqueeze(-1)).logsumexp(-2)
    return (scores + u.unsqueeze(-1) + v.unsqueeze(-2)).exp(), v.detach()


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, iterations: int, start: Tensor) -> tuple[Tensor, Tensor]:
        """Scale rows and columns in turn."""
        matrix, potentials = _iterate(scores, iterations, start)
        ctx.save_for_backward(matrix)
        ctx.mark_non_differentiable(potentials)
        return matrix, potentials

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        """Return the derivative at the fixed point, by the implicit function theorem."""
        (matrix,) = ctx.saved_tensors
        return implicit_gradient(matrix, gradient), None, None


def implicit_gradient(matrix: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with respect to the scores, from that with respect to the doubly stochastic matrix.

    It is P * (G - a 1' - 1 b'), where a and b make all its row and column sums zero.
    """
    size = matrix.shape[-1]
    weighted = matrix * gradient
    rows, columns = weighted.sum(-1), weighted.sum(-2)
    # rows that have not converged may have vanished
    row_sums, column_sums = matrix.sum(-1).clamp_min(torch.finfo(matrix.dtype).tiny), matrix.sum(-2)
    scaled = matrix / row_sums.unsqueeze(-1)
    # Schur complement of the rows; (1, -1) is in the kernel of the whole, so 1 is in that of this: any multiple will do
    system = torch.diag_embed(column_sums) - matrix.transpose(-1, -2) @ scaled
    # near a permutation nothing can change, and the system vanishes: the ridge decides between 0 and 0
    ridge = torch.finfo(matrix.dtype).eps * size
    system = system + 1 / size + ridge * torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    right = columns - (scaled.transpose(-1, -2) @ rows.unsqueeze(-1)).squeeze(-1)
    b = torch.linalg.solve(system, right.unsqueeze(-1)).squeeze(-1)
    a = (rows - (matrix @ b.unsqueeze(-1)).squeeze(-1)) / row_sums
    return weighted - matrix * (a.unsqueeze(-1) + b.unsqueeze(-2))
