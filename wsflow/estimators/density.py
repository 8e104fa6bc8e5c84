"""From a fitted WeightFlow to log-densities: solver, probes, and chunks of one size."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsflow.estimators.validation import later_array, tensor
from wsflow.flow.adaptive import EMBEDDED, integrate_adaptive
from wsflow.flow.divergence import DIVERGENCES, Divergence, Rate, mean_and_error
from wsflow.flow.likelihood import log_density
from wsflow.flow.priors import Drawn
from wsflow.flow.solvers import TABLEAUX, Solver, integrate

if TYPE_CHECKING:
    from wsflow.estimators.flow import WeightFlow

CHUNK = 128  # rows that are sampled together, always so many
RATED = 32  # rows that are scored together, padded to so many: derivatives of gradients cost more
EXACT_SIZE = 64  # columns up to which the exact divergence is affordable
CHOICES: dict[str, tuple[Any, ...]] = {
    "solver": (*TABLEAUX, *EMBEDDED),
    "divergence": ("auto", *DIVERGENCES),
    "probes": ("shared", "row"),
}


def check_density(flow: WeightFlow) -> None:
    """Refuse a flow whose samples have no density.

    Parameters
    ----------
    flow : WeightFlow

    Raises
    ------
    ValueError
        With the reason, and what has one.
    """
    if flow.geometry_.no_density:
        raise ValueError(flow.geometry_.no_density)
    if isinstance(flow.prior_, Drawn):
        raise ValueError("prior='initialisation' has no density. Use prior='gaussian' or 'isotropic'.")


def scores(flow: WeightFlow, X: Any) -> tuple[Tensor, Tensor]:
    """Log-densities of networks, and their standard errors.

    Parameters
    ----------
    flow : fitted WeightFlow
    X : WeightArray or array-like of shape (n, d)

    Returns
    -------
    mean, error : Tensor of shape (n,)

    Raises
    ------
    ValueError
        If there is no density.
    """
    check_density(flow)
    weights = tensor(later_array(flow, X)).double()
    flow.geometry_.check(weights, atol=1e-4)
    points = flow.geometry_.to_points(weights)
    field, solver = precise(flow), solver_of(flow)
    rates = rates_of(flow)

    def estimates(chunk: Tensor, seeds: Tensor) -> Tensor:
        return log_density(field, chunk, flow.geometry_.manifold, flow.prior_, rates(seeds), solver)

    return mean_and_error(in_chunks(estimates, points, row_seeds(flow, points)), divergence_of(flow).is_exact)


def precise(flow: WeightFlow) -> Any:
    """The velocity in float64.

    Parameters
    ----------
    flow : fitted WeightFlow

    Returns
    -------
    VelocityField
    """
    return copy.deepcopy(flow.velocity_).double()


def solver_of(flow: WeightFlow) -> Solver:
    """The solver with its settings.

    Parameters
    ----------
    flow : WeightFlow

    Returns
    -------
    callable
    """
    if flow.solver in EMBEDDED:
        return functools.partial(integrate_adaptive, method=flow.solver, rtol=flow.rtol, atol=flow.atol)
    return functools.partial(integrate, method=flow.solver, n_steps=flow.solver_steps)


def divergence_of(flow: WeightFlow) -> Divergence:
    """How divergences are taken.

    Parameters
    ----------
    flow : fitted WeightFlow

    Returns
    -------
    Divergence
    """
    name = flow.divergence
    if name == "auto":
        name = "exact" if flow.geometry_.manifold.size <= EXACT_SIZE else "hutchinson"
    return DIVERGENCES[name]


def rates_of(flow: WeightFlow) -> Callable[[Tensor], Rate]:
    """The divergence along the flow's probes.

    Parameters
    ----------
    flow : fitted WeightFlow

    Returns
    -------
    callable
        From the seeds (n,) of some rows, as `row_seeds` gives them, to a divergence for these rows.
    """
    kind, size = divergence_of(flow), flow.geometry_.manifold.size

    def draw(seed: int) -> Tensor:
        return kind.draw(size, flow.n_probes, torch.Generator().manual_seed(seed))

    if kind.is_exact or flow.probes == "shared":
        shared = kind.along(draw(_seed(flow)))
        return lambda seeds: shared
    return lambda seeds: kind.along(torch.stack([draw(seed) for seed in seeds.tolist()], 1))


def row_seeds(flow: WeightFlow, rows: Tensor) -> Tensor:
    """A seed for the probes of each row, from what is in it: the same row has the same one in any batch.

    Parameters
    ----------
    flow : fitted WeightFlow
    rows : Tensor of shape (n, size)

    Returns
    -------
    LongTensor of shape (n,)
        Zeros where probes are shared.
    """
    if flow.probes == "shared":
        return torch.zeros(len(rows), dtype=torch.long)
    key = _seed(flow).to_bytes(8, "little")
    # adding zero makes one of both zeros
    digests = [hashlib.blake2b(row.tobytes(), digest_size=7, key=key).digest() for row in (rows + 0.0).numpy()]
    return torch.tensor([int.from_bytes(digest, "little") for digest in digests])


def _seed(flow: WeightFlow) -> int:
    return int(flow.random_state) if isinstance(flow.random_state, Integral) else 0


def in_chunks(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Apply a function to chunks of one size: a row has the same result in any batch.

    Parameters
    ----------
    function : callable
        From one or more (RATED, ...) to (RATED, ...).
    *rows : Tensor of shape (n, ...)

    Returns
    -------
    Tensor of shape (n, ...)
    """
    results = []
    for chunks in zip(*(values.split(RATED) for values in rows), strict=True):
        n = len(chunks[0])
        results.append(function(*(_padded(chunk) for chunk in chunks))[:n])
    return torch.cat(results)


def _padded(chunk: Tensor) -> Tensor:
    missing = RATED - len(chunk)
    return torch.cat([chunk, chunk[:1].expand(missing, *chunk.shape[1:])]) if missing else chunk
