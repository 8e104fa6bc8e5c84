"""Divergences of a velocity: the trace of its Jacobian, exact or estimated along random probes.

All rows of the table see the Jacobian A = dv/dx through products e^T A alone (one backward pass each), so
that a network of any size will do. Each gives estimates that are unbiased one by one: their mean is the estimate, and
their spread its standard error.

References
----------
Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix"; Grathwohl et al. 2019, "FFJORD",
arXiv:1810.01367; Meyer, Musco, Musco and Woodruff 2021, "Hutch++", arXiv:2010.09649.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# from x and v, with v computed from x, to (n, k) estimates of the divergence
Rate = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Divergence:
    """One way to take a trace.

    Parameters
    ----------
    draw : callable
        ``draw(size, n_probes, generator)`` gives the probes, a Tensor of shape (k, size) in float64.
    estimate : callable
        ``estimate(x, v, probes)`` gives a Tensor of shape (n, estimates), from probes of shape (k, 1 or n, size).
    is_exact : bool
        Whether there is nothing random about it.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.divergence import DIVERGENCES
    >>> matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    >>> x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    >>> exact = DIVERGENCES["exact"]
    >>> exact.along(exact.draw(2, 1, torch.Generator()))(x, x @ matrix.T)
    tensor([[5.]], dtype=torch.float64)
    """

    draw: Callable[[int, int, torch.Generator], Tensor]
    estimate: Callable[[Tensor, Tensor, Tensor], Tensor]
    is_exact: bool = False

    def along(self, probes: Tensor) -> Rate:
        """The estimates along given probes.

        Parameters
        ----------
        probes : Tensor of shape (k, size) or (k, n, size)
            Shared by all points, or different for each.

        Returns
        -------
        callable
            From x (n, size), which requires its gradient, and v (n, size), computed from it, to (n, estimates).
        """
        each = probes.unsqueeze(1) if probes.dim() == 2 else probes
        return lambda x, v: self.estimate(x, v, each)


def unit_probes(size: int, n_probes: int, generator: torch.Generator) -> Tensor:
    """The unit vectors, whatever is asked for.

    Parameters
    ----------
    size, n_probes : int
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (size, size)
    """
    return torch.eye(size, dtype=torch.float64)


def rademacher_probes(size: int, n_probes: int, generator: torch.Generator) -> Tensor:
    """Independent random signs: of all probes with independent entries the estimate with the smallest variance.

    Parameters
    ----------
    size, n_probes : int
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (n_probes, size)
    """
    return 2.0 * torch.randint(2, (n_probes, size), generator=generator).double() - 1


def gaussian_probes(size: int, n_probes: int, generator: torch.Generator) -> Tensor:
    """Independent standard normal numbers: the estimate does not depend on the choice of axes.

    Parameters
    ----------
    size, n_probes : int
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (n_probes, size)
    """
    return torch.randn(n_probes, size, generator=generator, dtype=torch.float64)


def trace(x: Tensor, v: Tensor, probes: Tensor) -> Tensor:
    """sum_k e_k^T A e_k, the trace where e_k are the unit vectors.

    Parameters
    ----------
    x, v : Tensor of shape (n, size)
    probes : Tensor of shape (k, 1 or n, size)

    Returns
    -------
    Tensor of shape (n, 1)
    """
    total = x.new_zeros(len(x))
    for probe in probes:
        total = total + (_product(x, v, probe) * probe).sum(-1)
    return total.unsqueeze(1)


def hutchinson(x: Tensor, v: Tensor, probes: Tensor) -> Tensor:
    """e_k^T A e_k for each probe: E[e^T A e] = tr A where E[e e^T] = 1.

    Parameters
    ----------
    x, v : Tensor of shape (n, size)
    probes : Tensor of shape (k, 1 or n, size)

    Returns
    -------
    Tensor of shape (n, k)
    """
    return torch.stack([(_product(x, v, probe) * probe).sum(-1) for probe in probes], 1)


def sketching_probes(size: int, n_probes: int, generator: torch.Generator) -> Tensor:
    """Normal numbers for a sketch, and as many random signs for the rest.

    Signs would do for the sketch of a large matrix, but in few dimensions two columns of them coincide.

    Parameters
    ----------
    size, n_probes : int
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (2 n_probes, size)
    """
    return torch.cat([draw(size, n_probes, generator) for draw in (gaussian_probes, rademacher_probes)])


def hutch_plus_plus(x: Tensor, v: Tensor, probes: Tensor) -> Tensor:
    """tr(Q^T A Q) + e_k^T P A P e_k with P = 1 - Q Q^T, where Q spans A^T S for a sketch S.

    Q does not depend on e_k, and what A moves between the span of Q and its complement has no trace, so each estimate
    is unbiased for any A, symmetric or not. It takes three products where `hutchinson` takes one, and pays where a few
    directions carry most of A.

    Parameters
    ----------
    x, v : Tensor of shape (n, size)
    probes : Tensor of shape (2 k, 1 or n, size)
        S, and then e_1 to e_k.

    Returns
    -------
    Tensor of shape (n, k)
    """
    sketch, others = probes.chunk(2)
    image = torch.stack([_product(x, v, probe) for probe in sketch], -1)
    span = torch.linalg.qr(image).Q
    known = trace(x, v, span.movedim(-1, 0))
    # (n, k, size): the probes without their part in the span
    rest = others.expand(-1, len(x), -1).movedim(0, 1)
    rest = rest - (rest @ span) @ span.mT
    return known + hutchinson(x, v, rest.movedim(1, 0))


def _product(x: Tensor, v: Tensor, probe: Tensor) -> Tensor:
    """A^T e for each point; zero where v does not depend on x."""
    if not v.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(v, x, probe.to(v).expand_as(v), retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient


DIVERGENCES: dict[str, Divergence] = {
    "exact": Divergence(unit_probes, trace, is_exact=True),
    "hutchinson": Divergence(rademacher_probes, hutchinson),
    "gaussian": Divergence(gaussian_probes, hutchinson),
    "hutch++": Divergence(sketching_probes, hutch_plus_plus),
}


def mean_and_error(estimates: Tensor, is_exact: bool = False) -> tuple[Tensor, Tensor]:
    """The mean of independent estimates, and its standard error.

    Parameters
    ----------
    estimates : Tensor of shape (..., k)
    is_exact : bool
        Whether they are no estimates: the error is then zero.

    Returns
    -------
    mean, error : Tensor of shape (...)
        s / sqrt(k) with the standard deviation s of k estimates; not a number for a single one, whose error nothing
        tells. It follows from k - 1 degrees of freedom: of 2 estimates, 70% of the means lie within two standard
        errors, of 8 91%, of 32 95%.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.divergence import mean_and_error
    >>> mean_and_error(torch.tensor([1.0, 3.0]))
    (tensor(2.), tensor(1.))
    """
    mean, count = estimates.mean(-1), estimates.shape[-1]
    if is_exact:
        return mean, torch.zeros_like(mean)
    if count == 1:
        return mean, torch.full_like(mean, float("nan"))
    return mean, estimates.std(-1) / count**0.5
