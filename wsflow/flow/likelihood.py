"""Log-density by the instantaneous change of variables, on manifolds.

log p_1(x_1) = log p_0(x_0) - int_0^1 div v(x_t, t) dt along the flow's own path, which is followed back from points
that are given, or along with points that are sampled. A tangent field that is extended by v(x) = v(nearest point of x)
has as its Riemannian divergence the trace of its ambient Jacobian.

References
----------
Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2019, "FFJORD", arXiv:1810.01367;
Mathieu and Nickel 2020, arXiv:2006.10605 (manifolds).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.flow.divergence import Rate
from wsflow.flow.solvers import Field, RatedField, Solver, integrate
from wsflow.flow.sources import Source
from wsflow.manifolds import Manifold


def log_density(
    field: Field, x: Tensor, manifold: Manifold, source: Source, divergence: Rate, solver: Solver = integrate
) -> Tensor:
    """Compute the log-density of points under the flow, with respect to the Riemannian volume.

    Parameters
    ----------
    field : callable
        The velocity.
    x : Tensor of shape (n, size)
        Points at t = 1.
    manifold : Manifold
    source : Source
    divergence : callable
        A row of `DIVERGENCES`, along probes.
    solver : callable
        `integrate`, or another one, with its settings.

    Returns
    -------
    Tensor of shape (n, k)
        One for each estimate of the divergence, along one and the same path: `mean_and_error` sums them up.

    Raises
    ------
    NumericalError
        If the path back leaves the finite numbers, or the source has no density.

    Examples
    --------
    The velocity x has divergence 1 on a line, so the density falls by a factor of e:

    >>> import torch
    >>> from wsflow.flow.divergence import DIVERGENCES
    >>> from wsflow.flow.likelihood import log_density
    >>> from wsflow.flow.sources import Isotropic
    >>> from wsflow.manifolds import Euclidean, Product
    >>> line = Product.of(Euclidean(1))
    >>> source = Isotropic(line, torch.ones(1, dtype=torch.float64))
    >>> at_zero = torch.zeros(1, 1, dtype=torch.float64)
    >>> exact = DIVERGENCES["exact"].along(torch.ones(1, 1))
    >>> found = log_density(lambda x, t: x, at_zero, line, source, exact)
    >>> round(float(found - source.log_prob(at_zero)), 6)
    -1.0
    """
    x0, total = solver(rated(field, manifold, divergence), x, manifold, start=1.0, stop=0.0)
    # integrated from 1 to 0, the total is minus the integral from 0 to 1
    return source.log_prob(x0).unsqueeze(1) + total


def sample_with_log_density(
    field: Field, x0: Tensor, manifold: Manifold, source: Source, divergence: Rate, solver: Solver = integrate
) -> tuple[Tensor, Tensor]:
    """Follow the flow from points (n, size) of its source; return where it ends, and `log_density` (n, k) there."""
    start = source.log_prob(x0).unsqueeze(1)
    x, total = solver(rated(field, manifold, divergence), x0, manifold)
    return x, start - total


def rated(field: Field, manifold: Manifold, divergence: Rate) -> RatedField:
    """A velocity with its divergence (n, k) as the rate, which is computed when it is asked for, without a graph.

    The velocity is asked for on the manifold only, and its normal part does not count.
    """

    def velocity(points: Tensor, t: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            nearest = manifold.projection(points)
            v = manifold.to_tangent(nearest, field(nearest, t))
        return v.detach(), lambda: divergence(points, v).detach()

    return velocity
