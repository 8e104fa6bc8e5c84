"""Guidance: a flow that descends a loss on the way.

References
----------
Dhariwal and Nichol 2021, arXiv:2105.05233; Erdogan 2025 (guidance of weights by a task's loss).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.exceptions import NumericalError
from wsflow.flow.solvers import Field
from wsflow.manifolds import Manifold


def guided(
    field: Field,
    loss: Callable[[Tensor], Tensor],
    manifold: Manifold,
    strength: float = 1.0,
    clip: float = 1.0,
) -> Field:
    """v(x, t) - strength grad L(x_1), with x_1 = exp_x((1 - t) v) where the flow would arrive.

    The gradient descends; it is taken at the predicted end, made tangent at x, and shortened to `clip`
    times the length of the velocity where it is longer.

    Parameters
    ----------
    field : callable
        The velocity.
    loss : callable
        From points (n, size) to losses (n,).
    manifold : Manifold
    strength : float
    clip : float
        Longest guidance step relative to the velocity.

    Returns
    -------
    callable
        The guided velocity. It raises a NumericalError where the gradient is not finite, which names the time and
        the number of points.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.guidance import guided
    >>> from wsflow.manifolds import Euclidean
    >>> right = lambda x, t: torch.tensor([[1.0, 0.0]]).expand_as(x)
    >>> up = guided(right, lambda x: -x[:, 1], Euclidean(2), strength=0.5)
    >>> up(torch.zeros(1, 2), torch.zeros(1)).tolist()
    [[1.0, 0.5]]
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        v = field(x, t)
        with torch.enable_grad():
            end = manifold.exp(x, (1 - t).unsqueeze(-1) * v).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(end).sum(), end)
        bad = ~gradient.isfinite().all(-1)
        if bad.any():
            raise NumericalError(
                f"The guidance's gradient is not finite at t = {float(t[0]):.3g} for {int(bad.sum())} points: "
                "use a smaller strength or more steps."
            )
        step = strength * manifold.to_tangent(x, gradient)
        length = torch.linalg.vector_norm(step, dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        longest = clip * torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        return v - step * (longest / length).clamp(max=1.0)

    return velocity
