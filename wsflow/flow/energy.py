"""Energy matching: train a flow so that predictions of its samples have the law of the population's predictions.

Flow matching judges a velocity one point at a time. Its small errors add up along a path, and their effect on the
function of a network shows at the end only. There f, predictions of samples, and g, those of networks of the
population, are compared by their energy distance

    D = 2 E d(f, g) - E d(f, f') - E d(g, g'),

with d(f, g) the mean over inputs of |f(x) - g(x)|: zero only where both have one law at every input. Two batches give
an unbiased estimate of it, so nothing is gained by being close to a network of the population, only by being
distributed as they are. Its gradient is that of a path on which a change of the velocity moves the end by as much: how
the rest of the path changes with it is neglected, which saves second derivatives.

References
----------
Szekely and Rizzo 2013, "Energy statistics: a class of statistics based on distances" (the distance); Li, Swersky and
Zemel 2015, arXiv:1502.02761 (generators that match moments); De Bortoli et al. 2025, arXiv:2502.02483 (scoring rules of
batches of samples in diffusion models).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wsflow.flow.loss import bound
from wsflow.flow.solvers import integrate
from wsflow.flow.velocity import VelocityField
from wsflow.training.loop import Loss

# from a generator, which draws inputs, to a map from points (n, size) to predictions (n, inputs, k)
Predictions = Callable[[torch.Generator], Callable[[Tensor], Tensor]]


def energy_distance(f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate the energy distance D between the laws of two batches of predictions, and the spread of the second.

    Parameters
    ----------
    f : Tensor of shape (n, inputs, k)
    g : Tensor of shape (m, inputs, k)
        At least two of each.

    Returns
    -------
    distance : Tensor of shape ()
        An unbiased estimate, which may be negative.
    spread : Tensor of shape ()
        E d(g, g').

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.energy import energy_distance
    >>> f, g = torch.tensor([0.0, 1.0]).reshape(2, 1, 1), torch.tensor([4.0, 5.0]).reshape(2, 1, 1)
    >>> [float(value) for value in energy_distance(f, g)]
    [6.0, 1.0]
    """
    own, spread = (_distances(h, h).sum() / (len(h) * (len(h) - 1)) for h in (f, g))
    return 2 * _distances(f, g).mean() - own - spread, spread


def _distances(f: Tensor, g: Tensor) -> Tensor:
    """d(f_i, g_j), of shape (n, m)."""
    return torch.cdist(f.transpose(0, 1), g.transpose(0, 1), compute_mode="donot_use_mm_for_euclid_dist").mean(0)


def energy_matching_loss(
    flow_matching: Loss,
    predictions: Predictions,
    x1: Tensor,
    *,
    batch_size: int = 32,
    weight: float = 1.0,
    n_steps: int = 8,
    conditions: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Loss:
    """Add the energy distance of predictions to the flow-matching loss, and record it, for `train`.

    Parameters
    ----------
    flow_matching : callable
        See `FlowMatchingLoss.on_batches`.
    predictions : callable
        From a generator, which draws inputs, to a map from points (n, size) to predictions (n, inputs, k).
    x1 : Tensor of shape (n, size)
        Points of the population.
    batch_size : int
        Samples, and as many networks of the population.
    weight : float
        Of the energy distance in parts of the spread E d(g, g').
    n_steps : int
        Of the paths along which samples are drawn, by Euler's method.
    conditions : Tensor of shape (n,), optional
        Of the points; samples are drawn under conditions of the population.
    dtype : torch.dtype, optional
        Of batches (default: that of the points).

    Returns
    -------
    callable
    """
    precision = dtype or x1.dtype

    def loss(velocity: VelocityField, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        value, _ = flow_matching(velocity, generator)
        rows, others = torch.randint(len(x1), (2, batch_size), generator=generator)
        view = bound(velocity.eval(), None if conditions is None else conditions[rows].to(velocity.device))
        predict = predictions(generator)
        x0 = velocity.source.to(precision).sample(batch_size, generator).to(precision)
        samples = _draw(view, x0, velocity, n_steps)
        distance, spread = energy_distance(predict(samples), predict(x1[others].to(velocity.device, precision)))
        relative = distance / spread.detach().clamp_min(torch.finfo(precision).tiny)
        return value + weight * relative, relative

    return loss


def _draw(view: nn.Module, x: Tensor, velocity: VelocityField, n_steps: int) -> Tensor:
    """Samples by Euler's method, of which each velocity moves the end by as much as it moves its own step."""
    return integrate(lambda x, t: (view(x.detach(), t), None), x, velocity.manifold, "euler", n_steps)[0]
