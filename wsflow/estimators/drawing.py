"""From a fitted WeightFlow to new points: source, transport, and the density along the way.

Rows are drawn in blocks of one size, each from a random stream of its own, so that the first networks of a larger
sample are those of a smaller one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsflow.estimators.density import CHUNK, check_density, divergence_of, precise, rates_of, row_seeds, solver_of
from wsflow.estimators.function import guided_transport
from wsflow.flow.adaptive import EMBEDDED
from wsflow.flow.divergence import mean_and_error
from wsflow.flow.likelihood import sample_with_log_density
from wsflow.flow.solvers import TABLEAUX, Field, integrate_stochastic
from wsflow.flow.tempering import tempered

if TYPE_CHECKING:
    from wsflow.estimators.flow import WeightFlow

# from source points (CHUNK, size) and a random stream to points and their log-densities, or zeros
Transport = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


def check_request(flow: WeightFlow, temperature: float, noise: float) -> None:
    """Refuse what cannot be drawn.

    Parameters
    ----------
    flow : WeightFlow
    temperature, noise : float

    Raises
    ------
    ValueError
        With the remedy.
    """
    if noise > 0 and flow.coupling != "independent":
        raise ValueError("Stochastic sampling needs the score of coupling='independent'. Use noise=0.")
    if min(temperature, noise) < 0:
        raise ValueError(f"'temperature' and 'noise' are not negative, got {temperature} and {noise}.")


def check_rated(flow: WeightFlow, guided: bool, temperature: float, noise: float) -> None:
    """Refuse samples whose log-density the flow does not tell.

    Parameters
    ----------
    flow : WeightFlow
    guided : bool
    temperature, noise : float

    Raises
    ------
    ValueError
        With the reason and the remedy.
    """
    check_density(flow)
    if guided:
        raise ValueError(
            "The log-density of guided samples needs second derivatives of the guidance's loss, which it does not "
            "have. Use return_log_prob=False, or guidance=None."
        )
    if noise > 0:
        raise ValueError(
            "Stochastic samples follow no path along which their log-density could be integrated. Use noise=0, or "
            "return_log_prob=False and score_samples."
        )
    if temperature == 0:
        raise ValueError("At temperature=0 all samples are one point, which has no density. Use a higher temperature.")


def velocity_of(flow: WeightFlow) -> Field:
    """The velocity in the precision in which paths are followed: double where steps depend on small errors.

    Parameters
    ----------
    flow : fitted WeightFlow

    Returns
    -------
    callable
        In float64 for adaptive solvers, else in float32.
    """
    velocity: Field = flow.velocity_ if _dtype(flow) == torch.float32 else precise(flow)
    return velocity


def _fixed(flow: WeightFlow) -> str:
    """A solver with fixed steps."""
    return flow.solver if flow.solver in TABLEAUX else "midpoint"


def _dtype(flow: WeightFlow) -> torch.dtype:
    return torch.float64 if flow.solver in EMBEDDED else torch.float32


def draw(
    flow: WeightFlow, transport: Transport, n: int, temperature: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Points of the source, brought to t = 1.

    Parameters
    ----------
    flow : fitted WeightFlow
    transport : callable
        From points (CHUNK, size) and a generator to points, and log-densities (CHUNK,).
    n : int
    temperature : float
    generator : torch.Generator

    Returns
    -------
    points : Tensor of shape (n, size)
    log_density : Tensor of shape (n,)
    """
    blocks = []
    for _ in range(-(-n // CHUNK)):
        stream = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        blocks.append(transport(source(flow, temperature, stream), stream))
    points, density = (torch.cat(parts)[:n] for parts in zip(*blocks, strict=True))
    return points, density


def source(flow: WeightFlow, temperature: float, generator: torch.Generator) -> Tensor:
    """Points of the prior, moved along geodesics to or from its centre by the temperature.

    Parameters
    ----------
    flow : fitted WeightFlow
    temperature : float
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (CHUNK, size)
    """
    x = flow.prior_.sample(CHUNK, generator)
    if temperature == 1.0:
        return x
    return flow.geometry_.manifold.exp(x, (1 - temperature) * flow.prior_.to_centre(x))


def plain(flow: WeightFlow, field: Field, noise: float) -> Transport:
    """Along a field, without densities.

    Parameters
    ----------
    flow : fitted WeightFlow
    field : callable
        `velocity_of` the flow, guided or not.
    noise : float
        Strength of stochastic sampling; 0 solves the differential equation.

    Returns
    -------
    callable
    """
    manifold, solver, dtype = flow.geometry_.manifold, solver_of(flow), _dtype(flow)

    def transport(x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        return solver(lambda p, t: (field(p, t), None), x.to(dtype), manifold)

    def stochastic(x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        end = integrate_stochastic(
            field, x.to(dtype), manifold, flow.prior_, noise, stream, flow.solver_steps, _fixed(flow)
        )
        return end, end.new_zeros(len(end))

    return stochastic if noise > 0 else transport


def guided(flow: WeightFlow, guidance: Any, noise: float, generator: torch.Generator) -> Transport:
    """Along the flow and down a functional, with the same minibatches for each block.

    Parameters
    ----------
    flow : fitted WeightFlow
    guidance : Guidance, or the objective of one
    noise : float
        As in `plain`.
    generator : torch.Generator
        A seed for the minibatches is drawn from it.

    Returns
    -------
    callable
    """
    seed, field = int(torch.randint(2**62, (1,), generator=generator)), velocity_of(flow)

    def transport(x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        def solve(steered: Field, points: Tensor) -> Tensor:
            return plain(flow, steered, noise)(points, stream)[0]

        minibatches = torch.Generator().manual_seed(seed)
        follow = guided_transport(guidance, field, flow.architecture_, flow.geometry_, minibatches, solve, _fixed(flow))
        end = follow(x.to(_dtype(flow)))
        return end, end.new_zeros(len(end))

    return transport


def with_density(flow: WeightFlow, temperature: float) -> Transport:
    """Along the flow's own velocity, with log-densities.

    Parameters
    ----------
    flow : fitted WeightFlow
    temperature : float
        Of the source.

    Returns
    -------
    callable
    """
    prior = flow.prior_ if temperature == 1.0 else tempered(flow.prior_, temperature)
    rates, is_exact = rates_of(flow), divergence_of(flow).is_exact
    follow = functools.partial(sample_with_log_density, precise(flow), solver=solver_of(flow))

    def transport(x: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        x = x.double()
        points, estimates = follow(x, flow.geometry_.manifold, prior, rates(row_seeds(flow, x)))
        return points, mean_and_error(estimates, is_exact)[0]

    return transport
