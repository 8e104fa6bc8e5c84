"""Adaptive solvers: each point takes steps of its own length, as long as its error allows.

An embedded Runge-Kutta method gives two results of different order from the same stages; their difference is
the error of a step. Lengths are chosen point by point, so that no point's path depends on those it shares a batch
with, and points that have arrived wait for the others: the solvers of torchdiffeq take one step for a whole batch,
whose error is shared, so that the score of a network would depend on its company.

References
----------
Dormand and Prince 1980, "A family of embedded Runge-Kutta formulae"; Hairer, Norsett and Wanner 1993,
"Solving Ordinary Differential Equations I", section II.4 (error norm, first step, control of the step).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.exceptions import NumericalError
from wsflow.flow.solvers import TABLEAUX, RatedField, RungeKutta, Tableau, rate_of
from wsflow.manifolds import Manifold
from wsflow.options import Options, between


@dataclass(frozen=True)
class Embedded:
    """An explicit Runge-Kutta method with an estimate of its error, whose last stage is the end of the step.

    The tableau's last row of stages are its weights, so that the last stage is the first one of the next step; `errors`
    are the weights of the stages in the difference to the other result.
    """

    tableau: Tableau
    errors: tuple[float, ...]


_WEIGHTS = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
EMBEDDED: dict[str, Embedded] = {
    "dopri5": Embedded(
        Tableau(
            5,
            (
                (),
                (1 / 5,),
                (3 / 40, 9 / 40),
                (44 / 45, -56 / 15, 32 / 9),
                (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
                (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
                _WEIGHTS,
            ),
            (*_WEIGHTS, 0.0),
        ),
        (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    )
}
SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 5.0  # factors of the step, from one to the next
PARTS = 16  # of a trajectory


def integrate_adaptive(
    field: RatedField,
    x: Tensor,
    manifold: Manifold,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-6,
    max_steps: int = 1000,
    start: float = 0.0,
    stop: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Follow dx/dt = v(x, t) with steps whose error is below atol + rtol |x|, and integrate a rate along the way.

    ``field(x, t)`` is as of `wsflow.flow.solvers.integrate`, with a time of its own for each point. The error of a step
    is the root mean square over the coordinates of a point; the integral of the rate is held to it too. `max_steps`
    counts those that are taken back as well. A NumericalError names the time, the step and the share of points that
    leave the finite numbers, or do not arrive.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.adaptive import integrate_adaptive
    >>> from wsflow.manifolds import Euclidean
    >>> x, _ = integrate_adaptive(lambda x, t: (-x, None), torch.ones(1, 1), Euclidean(1))
    >>> round(float(x), 4)
    0.3679
    """
    course = _Course(field, x, manifold, EMBEDDED[method], rtol, atol, start, stop)
    for step in range(max_steps):
        if course.arrived.all():
            break
        course.advance(step)
    else:
        course.refuse(~course.arrived, max_steps, "has not arrived")
    return course.x, course.total


@dataclass
class DormandPrince(Options):
    """The method of Dormand and Prince of order 5(4), as a solver: each point takes steps of its own length.

    Parameters
    ----------
    rtol, atol : float
        Error of a step, relative to the coordinates of a point and absolute.
    """

    rtol: float = 1e-5
    atol: float = 1e-6

    CONSTRAINTS = {"rtol": between(1e-13, 1), "atol": between(0, 1)}
    # steps depend on small errors, so paths are followed in double precision
    dtype = torch.float64
    method = "dopri5"

    def __call__(
        self, field: RatedField, x: Tensor, manifold: Manifold, start: float = 0.0, stop: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """As `integrate_adaptive`."""
        return integrate_adaptive(field, x, manifold, self.method, self.rtol, self.atol, start=start, stop=stop)

    def trajectory(self, field: RatedField, x: Tensor, manifold: Manifold) -> tuple[list[float], list[Tensor]]:
        """Return evenly spaced times from 0 to 1, as each point has steps of its own, and the points (n, size) then."""
        times, points = [step / PARTS for step in range(PARTS + 1)], [x]
        for start, stop in itertools.pairwise(times):
            points.append(self(field, points[-1], manifold, start, stop)[0])
        return times, points


# solvers by the name of their method
SOLVERS: dict[str, Callable[[], RungeKutta | DormandPrince]] = {
    **{method: functools.partial(RungeKutta, method) for method in TABLEAUX},
    "dopri5": DormandPrince,
}


class _Course:
    """Points on their way: where each is, when, and how long its next step is."""

    def __init__(
        self,
        field: RatedField,
        x: Tensor,
        manifold: Manifold,
        method: Embedded,
        rtol: float,
        atol: float,
        start: float,
        stop: float,
    ) -> None:
        self.field, self.manifold, self.method = field, manifold, method
        self.rtol, self.atol = rtol, atol
        self.start, self.direction, self.span = start, 1.0 if stop >= start else -1.0, abs(stop - start)
        self.x, self.done = x, x.new_zeros(len(x), dtype=torch.float64)
        self.velocity, self.rate = self._field(x, self.done)
        self.total = torch.zeros_like(self.rate)
        self.arrived = self.done >= self.span
        self.length = self._first_length()

    def _field(self, x: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity in the direction of travel, and the rate; zero (n,) without one."""
        # the stages' shares of a step add up to one but for rounding
        time = self.start + self.direction * done.clamp(max=self.span)
        velocity, rate = self.field(x, time.to(x))
        found = x.new_zeros(len(x)) if rate is None else rate_of(rate)
        return self.direction * velocity, self.direction * found

    def _first_length(self) -> Tensor:
        """A hundredth of the time that it takes to move as far as the tolerance's scale is, times |x|."""
        scale = self.atol + self.rtol * self.x.abs()
        size, speed = _norm(self.x / scale), _norm(self.velocity / scale)
        length = 0.01 * size.clamp_min(1e-5) / speed.clamp_min(1e-5)
        return torch.nan_to_num(length.double(), nan=0.0).clamp(1e-4 * self.span, 0.1 * self.span)

    def advance(self, step: int) -> None:
        """Try one step of each point, and take it where its error is small enough."""
        remaining = self.span - self.done
        last = self.length >= remaining
        h = torch.where(last, remaining, self.length)
        x, total, velocity, rate, error = self._try(h)
        taken = (error <= 1) & ~self.arrived
        self.x = torch.where(taken.unsqueeze(1), x, self.x)
        self.velocity = torch.where(taken.unsqueeze(1), velocity, self.velocity)
        self.total = torch.where(_like(taken, total), total, self.total)
        self.rate = torch.where(_like(taken, rate), rate, self.rate)
        self.done = torch.where(taken & last, torch.full_like(h, self.span), self.done + torch.where(taken, h, 0.0))
        self.arrived = self.done >= self.span
        order = self.method.tableau.order
        # an error that is not finite asks for the smallest step
        factor = SAFETY * torch.nan_to_num(error, nan=float("inf"), posinf=float("inf")).clamp_min(1e-10) ** (
            -1 / order
        )
        self.length = h * factor.clamp(SMALLEST, LARGEST)
        stuck = ~self.arrived & (self.length < 8 * torch.finfo(self.x.dtype).eps * self.span)
        if stuck.any():
            self.refuse(stuck, step + 1, "left the finite numbers, or moves too wildly to be followed,")

    def _try(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Where a step of length h ends, what the integral is there, velocity and rate, and the error."""
        tableau = self.method.tableau
        velocities, rates = [self.velocity], [self.rate]
        x, step = self.x, h.to(self.x)
        for row in tableau.stages[1:]:
            x = self.manifold.projection(self.x + _sum(step, row, velocities))
            velocity, rate = self._field(x, self.done + h * sum(row))
            velocities.append(velocity)
            rates.append(rate)
        # the last stage stands where the step ends
        total = self.total + _sum(step, tableau.weights, rates)
        error = torch.maximum(
            _norm(_sum(step, self.method.errors, velocities) / self._scale(self.x, x)),
            _largest(_sum(step, self.method.errors, rates) / self._scale(self.total, total)),
        )
        return x, total, velocities[-1], rates[-1], error.double()

    def _scale(self, before: Tensor, after: Tensor) -> Tensor:
        return self.atol + self.rtol * torch.maximum(before.abs(), after.abs())

    def refuse(self, bad: Tensor, step: int, what: str) -> None:
        """Say where the first of some points is, and how many they are."""
        time = self.start + self.direction * float(self.done[bad].min())
        raise NumericalError(
            f"The flow {what} at t = {time:.3g} (step {step}) for {bad.double().mean():.1%} of the points. Use larger "
            "tolerances (rtol=, atol=), a solver with fixed steps (solver='midpoint'), a smaller guidance, or train "
            "longer."
        )


def _sum(step: Tensor, weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    total = torch.zeros_like(stages[0])
    for weight, stage in zip(weights, stages, strict=True):
        if weight:
            total = total + weight * stage
    return _like(step, total) * total


def _like(rows: Tensor, values: Tensor) -> Tensor:
    """Numbers of shape (n,), shaped to go with values of shape (n, ...)."""
    return rows.reshape(-1, *(1,) * (values.dim() - 1))


def _norm(x: Tensor) -> Tensor:
    """Root mean square of each row."""
    return x.square().mean(-1).sqrt()


def _largest(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).abs().amax(-1)
