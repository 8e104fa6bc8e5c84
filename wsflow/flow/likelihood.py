"""Log-density by the instantaneous change of variables, on manifolds.

log p_1(x_1) = log p_0(x_0) - int_0^1 div v(x_t, t) dt along the flow's own path. A tangent field
that is extended by v(x) = v(nearest point of x) has as its Riemannian divergence the trace of its ambient
Jacobian.

References
----------
Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2019, "FFJORD", arXiv:1810.01367 (Hutchinson);
Mathieu and Nickel 2020, arXiv:2006.10605 (manifolds).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.flow.priors import Prior
from wsflow.flow.solvers import Field, integrate
from wsflow.manifolds import Manifold

Divergence = Callable[[Tensor, Tensor], Tensor]


def divergence_along(probes: Tensor) -> Divergence:
    """sum_k e_k^T J e_k over probe vectors e_k: the trace of J when e_k are the unit vectors.

    Parameters
    ----------
    probes : Tensor of shape (k, size)
        Shared by all points.

    Returns
    -------
    callable
        From x and v, with v computed from x, to a Tensor of shape (n,).
    """

    def divergence(x: Tensor, v: Tensor) -> Tensor:
        total = x.new_zeros(len(x))
        for probe in probes:
            (gradient,) = torch.autograd.grad((v * probe).sum(), x, retain_graph=True, allow_unused=True)
            total = total + (0.0 if gradient is None else (gradient * probe).sum(-1))
        return total

    return divergence


def unit_probes(size: int, dtype: torch.dtype) -> Tensor:
    """Probes that give the exact trace.

    Parameters
    ----------
    size : int
    dtype : torch.dtype

    Returns
    -------
    Tensor of shape (size, size)
    """
    return torch.eye(size, dtype=dtype)


def rademacher_probes(size: int, n_probes: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Probes whose expected trace estimate is exact (Hutchinson), scaled by 1/sqrt(n_probes).

    Parameters
    ----------
    size, n_probes : int
    dtype : torch.dtype
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (n_probes, size)
    """
    signs = 2.0 * torch.randint(2, (n_probes, size), generator=generator) - 1
    return signs.to(dtype) / n_probes**0.5


def log_density(
    field: Field,
    x: Tensor,
    manifold: Manifold,
    prior: Prior,
    probes: Tensor,
    method: str = "midpoint",
    n_steps: int = 32,
) -> Tensor:
    """Log-density of points under the flow, with respect to the Riemannian volume.

    Parameters
    ----------
    field : callable
        The velocity.
    x : Tensor of shape (n, size)
        Points at t = 1.
    manifold : Manifold
    prior : Prior
    probes : Tensor of shape (k, size)
        From `unit_probes` (exact) or `rademacher_probes`.
    method, n_steps
        As in `integrate`.

    Returns
    -------
    Tensor of shape (n,)

    Raises
    ------
    NumericalError
        If the path back leaves the finite numbers, or the prior has no density.

    Examples
    --------
    The velocity x has divergence 1 on a line, so the density falls by a factor of e:

    >>> import torch
    >>> from wsflow.flow.likelihood import log_density, unit_probes
    >>> from wsflow.flow.priors import Isotropic
    >>> from wsflow.manifolds import Euclidean, Product
    >>> line = Product([(Euclidean(1), torch.tensor([[0]]))])
    >>> prior = Isotropic(line, torch.ones(1, dtype=torch.float64))
    >>> at_zero = torch.zeros(1, 1, dtype=torch.float64)
    >>> found = log_density(lambda x, t: x, at_zero, line, prior, unit_probes(1, torch.float64))
    >>> round(float(found - prior.log_prob(at_zero)), 6)
    -1.0
    """
    divergence = divergence_along(probes)

    def rated(points: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            nearest = manifold.projection(points)
            v = manifold.to_tangent(nearest, field(nearest, t))
            rate = divergence(points, v) if v.requires_grad else points.new_zeros(len(points))
        return v.detach(), rate.detach()

    source, total = integrate(rated, x, manifold, method, n_steps, start=1.0, stop=0.0)
    # integrated from 1 to 0, the total is minus the integral from 0 to 1
    return prior.log_prob(source) + total
