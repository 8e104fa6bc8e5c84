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

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.options import Options, one_of, whole

EXACT_SIZE = 64  # columns up to which the exact divergence is affordable

# from x and v, with v computed from x, to (n, k) estimates of the divergence
Rate = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Divergence:
    """One way to take a trace.

    ``draw(size, n_probes, generator)`` gives probes (k, size) in float64, ``estimate(x, v, probes)`` estimates
    (n, estimates) along probes (k, 1 or n, size), and nothing is random where it `is_exact`.

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
        """The estimates (n, estimates) along probes (k, size), or (k, n, size) where each point has its own.

        They are a function of x (n, size), which requires its gradient, and of v (n, size), computed from it.
        """
        each = probes.unsqueeze(1) if probes.dim() == 2 else probes
        return lambda x, v: self.estimate(x, v, each.to(x.device))


def unit_probes(size: int, n_probes: int, generator: torch.Generator) -> Tensor:
    """The unit vectors (size, size), whatever is asked for."""
    return torch.eye(size, dtype=torch.float64)


def rademacher_probes(size: int, n_probes: int, generator: torch.Generator) -> Tensor:
    """Random signs (n_probes, size): of all probes with independent entries the smallest variance."""
    return 2.0 * torch.randint(2, (n_probes, size), generator=generator).double() - 1


def gaussian_probes(size: int, n_probes: int, generator: torch.Generator) -> Tensor:
    """Standard normal numbers (n_probes, size): the estimate does not depend on the choice of axes."""
    return torch.randn(n_probes, size, generator=generator, dtype=torch.float64)


def trace(x: Tensor, v: Tensor, probes: Tensor) -> Tensor:
    """sum_k e_k^T A e_k (n, 1), the trace where the probes e_k (k, 1 or n, size) are the unit vectors."""
    total = x.new_zeros(len(x))
    for probe in probes:
        total = total + (_product(x, v, probe) * probe).sum(-1)
    return total.unsqueeze(1)


def hutchinson(x: Tensor, v: Tensor, probes: Tensor) -> Tensor:
    """e_k^T A e_k (n, k) for each probe: E[e^T A e] = tr A where E[e e^T] = 1."""
    return torch.stack([(_product(x, v, probe) * probe).sum(-1) for probe in probes], 1)


def sketching_probes(size: int, n_probes: int, generator: torch.Generator) -> Tensor:
    """Normal numbers for a sketch, and as many random signs for the rest: (2 n_probes, size).

    Signs would do for the sketch of a large matrix, but in few dimensions two columns of them coincide.
    """
    return torch.cat([draw(size, n_probes, generator) for draw in (gaussian_probes, rademacher_probes)])


def hutch_plus_plus(x: Tensor, v: Tensor, probes: Tensor) -> Tensor:
    """tr(Q^T A Q) + e_k^T P A P e_k with P = 1 - Q Q^T, where Q spans A^T S for a sketch S.

    Q does not depend on e_k, and what A moves between the span of Q and its complement has no trace, so each estimate
    is unbiased for any A, symmetric or not. It takes three products where `hutchinson` takes one, and pays where a few
    directions carry most of A. The probes (2 k, 1 or n, size) are S, and then e_1 to e_k; the estimates (n, k).
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


@dataclass
class TraceEstimator(Options):
    """How the divergence of a velocity is taken for log-densities.

    Parameters
    ----------
    method : {"auto", "exact", "hutchinson", "gaussian", "hutch++"}
        Exact, or estimated along random signs, along normal numbers, or along signs after the largest directions have
        been taken off. "auto" is exact up to 64 columns, and above it "hutchinson".
    n_probes : int
        Directions of an estimate. Each costs a backward pass at each stage of the solver, and three with "hutch++".
    probes : {"shared", "row"}
        Whether all rows see the same directions, so that their scores compare best, or each its own, so that errors
        average out over rows; these are drawn from what is in the row, so that its score does not depend on its batch.
    """

    method: str = "auto"
    n_probes: int = 4
    probes: str = "shared"

    CONSTRAINTS = {"method": one_of("auto", *DIVERGENCES), "n_probes": whole(1), "probes": one_of("shared", "row")}

    def divergence(self, size: int) -> Divergence:
        """The row of `DIVERGENCES` for points (n, size)."""
        if self.method != "auto":
            return DIVERGENCES[self.method]
        return DIVERGENCES["exact" if size <= EXACT_SIZE else "hutchinson"]

    def rates(self, size: int, seed: int) -> Callable[[Tensor], Rate]:
        """The divergence along probes that are drawn from a seed, as a function of the `row_seeds` (n,) of points."""
        divergence = self.divergence(size)

        def draw(seed: int) -> Tensor:
            return divergence.draw(size, self.n_probes, torch.Generator().manual_seed(seed))

        if divergence.is_exact or self.probes == "shared":
            shared = divergence.along(draw(seed))
            return lambda seeds: shared
        return lambda seeds: divergence.along(torch.stack([draw(seed) for seed in seeds.tolist()], 1))

    def row_seeds(self, rows: Tensor, seed: int) -> Tensor:
        """A seed (n,) for the probes of each row, from what is in it: it does not depend on the batch; or zeros."""
        if self.probes == "shared":
            return torch.zeros(len(rows), dtype=torch.long)
        key = seed.to_bytes(8, "little")
        # float32: a row that was rounded otherwise is the same one; adding zero makes one of both zeros
        rounded = (rows.float() + 0.0).cpu().numpy()
        digests = [hashlib.blake2b(row.tobytes(), digest_size=7, key=key).digest() for row in rounded]
        return torch.tensor([int.from_bytes(digest, "little") for digest in digests])


def mean_and_error(estimates: Tensor, is_exact: bool = False) -> tuple[Tensor, Tensor]:
    """The mean of independent estimates (..., k), and its standard error s / sqrt(k).

    Of exact values the error is zero; of a single estimate it is not a number: nothing tells it. It follows from k - 1
    degrees of freedom: of 2 estimates, 70% of the means lie within two standard errors, of 8 91%, of 32 95%.

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
