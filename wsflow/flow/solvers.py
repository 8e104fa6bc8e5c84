"""Solvers: from the source at t = 0 along the velocity, on a manifold.

A Runge-Kutta method is data, its Butcher tableau. Stages are taken in the ambient space, where the
velocity is extended by its value at the nearest point, and each step ends with a projection to the
manifold; this keeps the order of the method (Hairer, Lubich and Wanner 2006, section IV.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.exceptions import NumericalError
from wsflow.flow.sources import Source
from wsflow.manifolds import Manifold
from wsflow.options import Options, one_of, whole

Field = Callable[[Tensor, Tensor], Tensor]
# a rate may be a function, which computes it where a stage counts: half of the midpoint method's have no weight
Rates = Tensor | Callable[[], Tensor] | None
RatedField = Callable[[Tensor, Tensor], tuple[Tensor, Rates]]
# solver(field, x, manifold, start=0.0, stop=1.0), as `integrate` with its settings bound
Solver = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: its order, the weights of the stages before each stage, and those of the step."""

    order: int
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


TABLEAUX: dict[str, Tableau] = {
    "euler": Tableau(1, ((),), (1.0,)),
    "midpoint": Tableau(2, ((), (0.5,)), (0.0, 1.0)),
    "rk4": Tableau(4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}


def integrate(
    field: RatedField,
    x: Tensor,
    manifold: Manifold,
    method: str = "midpoint",
    n_steps: int = 32,
    start: float = 0.0,
    stop: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Follow dx/dt = v(x, t), and integrate a rate along the way.

    ``field(x, t)`` with x (n, size) and t (n,) gives the velocity (n, size) and a rate (n, ...), a function that
    computes it, or None. It runs from `start` to `stop`, backwards where that is earlier, by a method of `TABLEAUX`.
    Returned are the end (n, size) and the integral of the rate (n, ...), zeros (n,) without one. A NumericalError names
    the time, the step and the share of points that are not finite any more.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.solvers import integrate
    >>> from wsflow.manifolds import Euclidean
    >>> x, _ = integrate(lambda x, t: (-x, None), torch.ones(1, 1), Euclidean(1), "rk4", 16)
    >>> round(float(x), 4)
    0.3679
    """
    end, total = x, x.new_zeros(())
    for _, end, total in steps_along(field, x, manifold, method, n_steps, start, stop):  # noqa: B007
        pass
    return end, total if total.dim() else total.expand(len(x))


def steps_along(
    field: RatedField, x: Tensor, manifold: Manifold, method: str, n_steps: int, start: float = 0.0, stop: float = 1.0
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yield time, points (n, size) and the integral of the rate behind each step of `integrate`."""
    h = (stop - start) / n_steps
    total = x.new_zeros(())
    for step in range(n_steps):
        x, gained = _step(field, x, manifold, TABLEAUX[method], start + h * step, h)
        total = total + gained
        _check_finite(x, total, step, start + h * (step + 1))
        yield start + h * (step + 1), x, total


def _step(
    field: RatedField, x: Tensor, manifold: Manifold, tableau: Tableau, start: float, h: float
) -> tuple[Tensor, Tensor]:
    """One step of length h: where it ends, and what the rate adds up to."""
    total = x.new_zeros(())
    velocities: list[Tensor] = []
    for row, weight in zip(tableau.stages, tableau.weights, strict=True):
        stage = manifold.projection(_advance(x, h, row, velocities))
        velocity, rate = field(stage, x.new_full((len(x),), start + h * sum(row)))
        velocities.append(velocity)
        if rate is not None and weight:
            total = total + h * weight * rate_of(rate)
    return manifold.projection(_advance(x, h, tableau.weights, velocities)), total


def rate_of(rate: Tensor | Callable[[], Tensor]) -> Tensor:
    """The rate that a field gave, or that it gave a function for."""
    return rate() if callable(rate) else rate


def _advance(x: Tensor, h: float, weights: tuple[float, ...], velocities: list[Tensor]) -> Tensor:
    for weight, velocity in zip(weights, velocities, strict=True):
        if weight:
            x = x + h * weight * velocity
    return x


@dataclass
class RungeKutta(Options):
    """A Runge-Kutta method with fixed steps, as a solver.

    Parameters
    ----------
    method : {"midpoint", "euler", "rk4"}
    n_steps : int

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.solvers import RungeKutta
    >>> from wsflow.manifolds import Euclidean
    >>> x, _ = RungeKutta("rk4", 16)(lambda x, t: (-x, None), torch.ones(1, 1), Euclidean(1))
    >>> round(float(x), 4)
    0.3679
    """

    method: str = "midpoint"
    n_steps: int = 8

    CONSTRAINTS = {"method": one_of(*TABLEAUX), "n_steps": whole(1)}
    # of the paths of samples
    dtype = torch.float32

    def __call__(
        self, field: RatedField, x: Tensor, manifold: Manifold, start: float = 0.0, stop: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """As `integrate`."""
        return integrate(field, x, manifold, self.method, self.n_steps, start, stop)

    def trajectory(self, field: RatedField, x: Tensor, manifold: Manifold) -> tuple[list[float], list[Tensor]]:
        """Return the times from 0 to 1 between which steps are made, and the points (n, size) at each of them."""
        steps = steps_along(field, x, manifold, self.method, self.n_steps)
        times, points, _ = zip((0.0, x, None), *steps, strict=True)
        return list(times), list(points)


def integrate_stochastic(
    field: Field,
    x: Tensor,
    manifold: Manifold,
    source: Source,
    noise: float,
    generator: torch.Generator,
    n_steps: int = 32,
    method: str = "midpoint",
) -> Tensor:
    """dx = (v - e d) dt + sqrt(2 e (1 - t)) dW, which keeps the flow's marginals in vector spaces.

    With a source N(m, S) and the path x_t = (1 - t) x_0 + t x_1 the score of x_t is
    -S^-1 (E[x_0 | x_t] - m) / (1 - t), and E[x_0 | x_t] = x - t v. A Langevin term with the covariance
    e (1 - t) S is then d = E[x_0 | x_t] - m with noise of covariance S: finite everywhere, without an
    inverse. Each step is split: first the Langevin term at a fixed time, which keeps the law of x_t, by
    Euler-Maruyama, and then the velocity alone, which carries it to the next time, by a Runge-Kutta method. Euler steps
    of both together lose variance. This holds for independently coupled x_0 and x_1. On curved factors
    E[x_0 | x_t] is taken as exp_x(-t v) and d is made tangent, which is close where the source is concentrated; a
    uniform source on a sphere has no centre, so d is zero there and the noise widens the marginals. It
    returns the end (n, size), or raises a NumericalError as `integrate` does.

    References
    ----------
    Albergo, Boffi and Vanden-Eijnden 2023, "Stochastic Interpolants", arXiv:2303.08797.
    """
    h = 1 / n_steps
    for step in range(n_steps):
        t = step * h
        x0 = manifold.exp(x, -t * field(x, x.new_full((len(x),), t)))
        pull = noise * h * manifold.to_tangent(x, source.displacement(x0))
        kick = (2 * noise * (1 - t) * h) ** 0.5 * source.noise(x, generator)
        x = manifold.projection(x - pull + kick)
        x, _ = _step(lambda p, s: (field(p, s), None), x, manifold, TABLEAUX[method], t, h)
        _check_finite(x, x.new_zeros(()), step, t + h)
    return x


def _check_finite(x: Tensor, total: Tensor, step: int, time: float) -> None:
    bad = ~(x.isfinite().all(-1) & total.reshape(*total.shape[:1], -1).isfinite().all(-1))
    if bad.any():
        raise NumericalError(
            f"The flow left the finite numbers at t = {time:.3g} (step {step + 1}) for {bad.double().mean():.1%} of "
            "the points. Use more steps (n_steps=), a smaller guidance, or train longer."
        )
