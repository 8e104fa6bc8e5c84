"""Continuous normalizing flows: a source, and a velocity along which its points go from t = 0 to 1.

References
----------
Chen et al. 2018, arXiv:1806.07366; Lipman et al. 2023, arXiv:2210.02747; Mathieu and Nickel 2020, arXiv:2006.10605
(manifolds).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.flow.adaptive import DormandPrince
from wsflow.flow.divergence import TraceEstimator, mean_and_error
from wsflow.flow.likelihood import log_density, sample_with_log_density
from wsflow.flow.solvers import Field, RungeKutta, integrate_stochastic
from wsflow.flow.sources import Source
from wsflow.manifolds import Product
from wsflow.parallel import side_by_side

SAMPLED = 128  # rows that are sampled together: always so many, each block from a random stream of its own
SCORED = 32  # rows that are scored together, padded to so many: derivatives of gradients cost more
LONG = 2**13  # coordinates of a row, from which on fewer rows are taken together
FEWER = 16  # times, at most

# from a velocity and what follows a field from points at t = 0 to t = 1 to a map from the former to the latter
Guide = Callable[[Field, Callable[[Field, Tensor], Tensor]], Callable[[Tensor], Tensor]]


class ContinuousFlow(nn.Module):
    """A flow on a manifold: dx/dt = v(x, t), from points of a source at t = 0 to data at t = 1.

    Parameters
    ----------
    manifold : Product
    source : Source
        The distribution at t = 0, such as `wsflow.flow.sources.Isotropic`.
    velocity : callable or nn.Module
        v(x, t) with x (n, size) and t (n,), tangent at x; such as `wsflow.flow.velocity.VelocityField`. A module is a
        part of this one, so that its weights are in `state_dict`; the source is not.
    solver : RungeKutta or DormandPrince
    divergence : TraceEstimator
        Of log-densities.

    Examples
    --------
    A rotation keeps the uniform distribution on a sphere:

    >>> import math
    >>> import torch
    >>> from wsflow.flow.continuous import ContinuousFlow
    >>> from wsflow.flow.sources import Isotropic
    >>> from wsflow.manifolds import Product, Sphere
    >>> sphere = Product.of(Sphere(3))
    >>> axis = torch.tensor([0.0, 0.0, 1.0])
    >>> uniform, rotation = Isotropic(sphere, torch.ones(3)), lambda x, t: torch.cross(axis.to(x).expand_as(x), x, 1)
    >>> flow = ContinuousFlow(sphere, uniform, rotation)
    >>> x = flow.sample(5, torch.Generator().manual_seed(0))
    >>> bool(sphere.belongs(x, 1e-6).all()), bool((flow.log_prob(x).exp() - 1 / (4 * math.pi)).abs().max() < 1e-6)
    (True, True)
    """

    def __init__(
        self,
        manifold: Product,
        source: Source,
        velocity: Any,
        solver: RungeKutta | DormandPrince | None = None,
        divergence: TraceEstimator | None = None,
    ) -> None:
        super().__init__()
        self.manifold = manifold
        self.source = source
        self.velocity = velocity
        self.solver = solver or RungeKutta()
        self.divergence = divergence or TraceEstimator()

    def given(self, condition: Tensor, scale: float = 1.0) -> ContinuousFlow:
        """Return the flow given a condition, for a velocity that was trained with conditions.

        Parameters
        ----------
        condition : Tensor of shape ()
        scale : float
            Of classifier-free guidance: above 1, the condition is exaggerated.

        Returns
        -------
        ContinuousFlow
        """
        velocity = self.velocity.given(condition, scale).eval()
        return ContinuousFlow(self.manifold, self.source, velocity, self.solver, self.divergence)

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        noise: float = 0.0,
        guide: Guide | None = None,
    ) -> Tensor:
        """Draw points, in blocks that the processes of ``joblib.parallel_config``, if any, divide among them.

        Blocks are of 128 points, or of fewer, if these have more than 8,192 coordinates.

        Parameters
        ----------
        n : int
        generator : torch.Generator
            With the same seed, the first points of a larger sample are those of a smaller one, bit for bit.
        temperature : float
            Scales the source around its centre, where it has one.
        noise : float
            Strength of stochastic sampling; 0 solves the differential equation.
        guide : callable, optional
            ``guide(velocity, solve)`` gives a map from points at t = 0 to points at t = 1, where
            ``solve(field, points)`` follows a field.

        Returns
        -------
        Tensor of shape (n, size)

        Raises
        ------
        NumericalError
            If the flow leaves the finite numbers.
        """
        field = self._velocity(self.solver.dtype)

        def transport(block: int) -> Tensor:
            x0, stream = self._start(block, temperature)

            def solve(field: Field, x: Tensor) -> Tensor:
                return self._follow(field, x, noise, stream)

            x0 = x0.to(self.solver.dtype)
            if guide is not None:
                return guide(field, solve)(x0)
            with torch.no_grad():
                return solve(field, x0)

        return torch.cat(list(self._by_blocks(transport, n, generator)))[:n]

    def trajectories(self, n: int, generator: torch.Generator, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Follow points from the source to those that `sample` draws with the same generator.

        Parameters
        ----------
        n : int
        generator : torch.Generator
        temperature : float
            As of `sample`.

        Returns
        -------
        times : Tensor of shape (k,)
            From 0 to 1: those between the solver's steps, or evenly spaced ones of an adaptive solver.
        points : Tensor of shape (k, n, size)

        Raises
        ------
        NumericalError
            If the flow leaves the finite numbers.
        """
        field = self._velocity(self.solver.dtype)

        def transport(block: int) -> tuple[list[float], Tensor]:
            x0 = self._start(block, temperature)[0].to(self.solver.dtype)
            with torch.no_grad():
                times, points = self.solver.trajectory(lambda x, t: (field(x, t), None), x0, self.manifold)
            return times, torch.stack(points)

        times, points = zip(*self._by_blocks(transport, n, generator), strict=True)
        return torch.tensor(times[0], dtype=torch.float64), torch.cat(points, 1)[:, :n]

    def sample_with_log_prob(
        self, n: int, generator: torch.Generator, *, temperature: float = 1.0, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Draw points (n, size) with their log-densities (n,), in float64; the seed is that of the probes."""
        source = self.source if temperature == 1.0 else self.source.at_temperature(temperature)
        field, rates = self._rated_velocity(), self.divergence.rates(self.manifold.size, seed)

        def transport(block: int) -> tuple[Tensor, Tensor]:
            x0 = self._start(block, temperature)[0].double()
            rate = rates(self.divergence.row_seeds(x0, seed))
            return sample_with_log_density(field, x0, self.manifold, source, rate, self.solver)

        blocks = self._by_blocks(transport, n, generator)
        points, estimates = (torch.cat(parts)[:n] for parts in zip(*blocks, strict=True))
        return points, self._summed(estimates)[0]

    def log_prob(self, x: Tensor, seed: int = 0) -> Tensor:
        """Compute log-densities, with respect to the Riemannian volume, in processes as `sample` does.

        Parameters
        ----------
        x : Tensor of shape (n, size)
            Points of the manifold.
        seed : int
            Of the probes of an estimated divergence.

        Returns
        -------
        Tensor of shape (n,)
            In float64.

        Raises
        ------
        NumericalError
            If the path back leaves the finite numbers, or the source has no density.
        """
        return self.log_prob_and_error(x, seed)[0]

    def log_prob_and_error(self, x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Log-densities (n,) of points (n, size), and their standard errors over the probes (n,)."""
        x = x.double()
        field, rates = self._rated_velocity(), self.divergence.rates(self.manifold.size, seed)

        def estimates(chunk: Tensor, seeds: Tensor) -> Tensor:
            return log_density(field, chunk, self.manifold, self.source, rates(seeds), self.solver)

        return self._summed(in_chunks(estimates, x, self.divergence.row_seeds(x, seed), n_jobs=None))

    def _summed(self, estimates: Tensor) -> tuple[Tensor, Tensor]:
        return mean_and_error(estimates, self.divergence.divergence(self.manifold.size).is_exact)

    def _rated_velocity(self) -> Field:
        """The velocity at points in float64, along which sums are in float64.

        Estimates are by far less precise than float32, and their velocity is in the precision of samples.
        """
        is_exact = self.divergence.divergence(self.manifold.size).is_exact
        dtype = torch.float64 if is_exact else self.solver.dtype
        field = self._velocity(dtype)
        if dtype == torch.float64 or not isinstance(self.velocity, nn.Module):
            return field
        return lambda x, t: field(x.to(dtype), t.to(dtype)).to(x)

    def _velocity(self, dtype: torch.dtype) -> Field:
        if dtype == torch.float32 or not isinstance(self.velocity, nn.Module):
            velocity: Field = self.velocity
            return velocity
        return copy.deepcopy(self.velocity).to(dtype)

    def _start(self, seed: int, temperature: float) -> tuple[Tensor, torch.Generator]:
        """A block of points at t = 0, and the random stream of a seed, from which they are."""
        stream = torch.Generator().manual_seed(seed)
        x0 = self.source.sample(together(SAMPLED, self.manifold.size), stream)
        if temperature != 1.0:
            x0 = self.manifold.exp(x0, (1 - temperature) * self.source.to_centre(x0))
        return x0, stream

    def _by_blocks(self, transport: Callable[[int], Any], n: int, generator: torch.Generator) -> Iterator[Any]:
        """Call a function with the seed of each block of points, which are at least n together."""
        n_blocks = -(-n // together(SAMPLED, self.manifold.size))
        seeds = [(int(torch.randint(2**62, (1,), generator=generator)),) for _ in range(n_blocks)]
        return side_by_side(transport, seeds, n_blocks)

    def _follow(self, field: Field, x: Tensor, noise: float, stream: torch.Generator) -> Tensor:
        """From points at t = 0 along a field to t = 1, with noise or without."""
        if noise > 0:
            steps = self.solver if isinstance(self.solver, RungeKutta) else RungeKutta()
            return integrate_stochastic(
                field, x, self.manifold, self.source, noise, stream, steps.n_steps, steps.method
            )
        return self.solver(lambda p, t: (field(p, t), None), x, self.manifold)[0]


def together(rows: int, size: int) -> int:
    """How many of `rows` rows of `size` numbers are worked on together: a sixteenth of them, if these are long.

    Examples
    --------
    >>> from wsflow.flow.continuous import together
    >>> [together(128, size) for size in (802, 8192, 8193, 10**5, 10**7)]
    [128, 128, 64, 8, 8]
    """
    halvings = max(0, math.ceil(math.log2(size / LONG))) if size else 0
    return rows // min(FEWER, 2**halvings)


def in_chunks(function: Callable[..., Tensor], *rows: Tensor, n_jobs: int | None = 1) -> Tensor:
    """Apply a function to chunks of `SCORED` rows (fewer, if they are long), and join what it gives for the rows.

    The last one is padded, so that a row's result depends on the others only as far as matrix kernels treat rows by
    their place: up to rounding.
    """
    size = together(SCORED, rows[0].shape[1])
    parts = zip(*(values.split(size) for values in rows), strict=True)
    calls = [tuple(_padded(part, size) for part in chunk) for chunk in parts]
    return torch.cat(list(side_by_side(function, calls, len(calls), n_jobs)))[: len(rows[0])]


def _padded(chunk: Tensor, size: int) -> Tensor:
    missing = size - len(chunk)
    return torch.cat([chunk, chunk[:1].expand(missing, *chunk.shape[1:])]) if missing else chunk
