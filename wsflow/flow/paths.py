"""Probability paths: times, points on geodesics, and what the network predicts about them.

x_t runs along the geodesic from x_0 (source, t = 0) to x_1 (data, t = 1), and u_t is its velocity.
A prediction says how the velocity v(x, t) is made from the network's output F(x, t), and how the
regression on u_t is weighted over time.

References
----------
Lipman et al. 2023, "Flow Matching for Generative Modeling", arXiv:2210.02747; Chen and Lipman
2024, arXiv:2302.03660; Karras et al. 2022, arXiv:2206.00364 (preconditioning).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def uniform(n: int, generator: torch.Generator) -> Tensor:
    """n times, uniform on [0, 1)."""
    return torch.rand(n, generator=generator, dtype=torch.float32)


def beta(n: int, generator: torch.Generator) -> Tensor:
    """n times from Beta(1, 2), by the inverse of its distribution function 1 - (1 - t)^2."""
    return 1 - torch.rand(n, generator=generator, dtype=torch.float32).sqrt()


def logit_normal(n: int, generator: torch.Generator) -> Tensor:
    """n times whose logit is standard normal, most of them in the middle (Esser et al. 2024, arXiv:2403.03206)."""
    return torch.randn(n, generator=generator, dtype=torch.float32).sigmoid()


TIMES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "uniform": uniform,
    "beta": beta,
    "logit_normal": logit_normal,
}


def gaussian_drift(t: Tensor, ratio: Tensor | float = 1.0) -> Tensor:
    """The factor of (x - m) in the velocity between Gaussians, (r t - (1 - t)) / (r t^2 + (1 - t)^2).

    With independent x_0 from N(m, S) and x_1 from N(m, r S), E[x_1 - x_0 | x_t = x] is this times (x - m): the network
    need only learn what is not Gaussian, and a difference of means, which is constant. In terms of x_1 it is the skip
    x_1 = m + r t / (r t^2 + (1 - t)^2) (x - m) + (1 - t) F, whose velocity is finite at t = 1.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.paths import gaussian_drift
    >>> gaussian_drift(torch.tensor([0.0, 0.5, 1.0]))
    tensor([-1.,  0.,  1.])
    """
    return (ratio * t - (1 - t)) / (ratio * t.square() + (1 - t).square())


def no_drift(t: Tensor, ratio: Tensor | float = 1.0) -> Tensor:
    """Zero: the network's output is the velocity."""
    return torch.zeros_like(t)


@dataclass(frozen=True)
class Prediction:
    """How a velocity is made and regressed.

    Parameters
    ----------
    drift : callable
        c(t, r) in v(x, t) = P_x F(x, t) - c(t, r) log_x(m), with m the centre of the source, P_x the projection to the
        tangent space at x, and r the ratio of variances.
    weight : callable
        w(t) in the loss w(t) |v(x_t, t) - u_t|^2. On a geodesic log_xt(x_1) = (1 - t) u_t, so the
        squared error of x_1, measured in the tangent space at x_t, is w(t) = (1 - t)^2.
    """

    drift: Callable[[Tensor, Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]


PREDICTIONS: dict[str, Prediction] = {
    "preconditioned": Prediction(gaussian_drift, torch.ones_like),
    "x1": Prediction(gaussian_drift, lambda t: (1 - t).square()),
    "velocity": Prediction(no_drift, torch.ones_like),
}
