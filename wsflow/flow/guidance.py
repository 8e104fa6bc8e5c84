"""Guidance: a flow that descends a functional of its points on the way.

`guided` adds the gradient to the velocity, for any solver. `guided_sample` is an integrator of its own: it carries
the state of an optimizer along the flow and on at its end, so that every gradient counts.

References
----------
Dhariwal and Nichol 2021, arXiv:2105.05233; Chung et al. 2023, arXiv:2209.14687 (gradients at the predicted end);
Erdogan 2025 (guidance of weights by a task's loss).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.exceptions import NumericalError
from wsflow.flow.solvers import Field, integrate
from wsflow.manifolds import Manifold

Loss = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor], Tensor]

# how strong guidance is at a time t (n,); each has a mean of 1 over [0, 1], but for the constant's own factor
SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": torch.ones_like,
    "rise": lambda t: 2 * t,
    "decay": lambda t: 2 * (1 - t),
    "middle": lambda t: 2.0 * ((t >= 0.25) & (t <= 0.75)).to(t),
    "late": lambda t: 2.0 * (t >= 0.5).to(t),
}

# what becomes of the rate over the share of gradients that are spent, between 0 and 1
COOLINGS: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1.0 - share,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
}


def slope_of(loss: Loss) -> Slope:
    """The gradient (n, size) of a functional of points (n, size) with values (n,), as a function of points."""

    def slope(points: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
        return gradient

    return slope


def guided(
    field: Field,
    loss: Loss,
    manifold: Manifold,
    strength: float = 1.0,
    clip: float = 1.0,
    schedule: str = "constant",
    normalize: bool = False,
) -> Field:
    """v(x, t) - strength s(t) grad L(x_1), with x_1 = exp_x((1 - t) v) where the flow would arrive.

    The gradient of a loss, a map from points (n, size) to (n,), is taken at the predicted end, made tangent at x, and
    shortened to `clip` times the length of the velocity where it is longer. s is a key of `SCHEDULES`. With
    `normalize`, gradients count by their direction only, with the length of the velocity. A NumericalError names the
    time and the number of points where the gradient is not finite.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.guidance import guided
    >>> from wsflow.manifolds import Euclidean
    >>> right = lambda x, t: torch.tensor([[1.0, 0.0]]).expand_as(x)
    >>> up = guided(right, lambda x: -x[:, 1], Euclidean(2), strength=0.5)
    >>> up(torch.zeros(1, 2), torch.zeros(1)).tolist()
    [[1.0, 0.5]]
    """
    slope = slope_of(loss)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        v = field(x, t)
        gradient = slope(manifold.exp(x, (1 - t).unsqueeze(-1) * v))
        _check_gradient(gradient, float(t[0]))
        step = manifold.to_tangent(x, gradient)
        length = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        if normalize:
            step = step * _ratio(length, step)
        step = strength * SCHEDULES[schedule](t).unsqueeze(-1) * step
        return v - step * _ratio(clip * length, step).clamp(max=1.0)

    return velocity


@dataclass(frozen=True)
class Descent:
    """Spend gradients in a guided integration, with the state of an optimizer.

    Parameters
    ----------
    n_gradients : int
        Gradient evaluations, one in each step.
    flow_steps : int
        The first so many steps run along the flow, from t = 0 to 1; the others stay at t = 1 and only descend. With 0
        all of them do, from points at t = 1.
    optimizer : str
        A key of `OPTIMIZERS`.
    rate : float
        Length of the first step, in units of the optimizer's direction.
    momentum : float
    cooling : str
        How the rate falls; a key of `COOLINGS`.
    clip : float
        Longest step, relative to the length of the point.
    natural : bool
        Whether the directions are natural gradients, where the caller has them.
    damping : float
        Of natural gradients.
    standardize : bool
        Whether points are first brought to the scale of the task's inputs at t = 1, where the caller can do that.

    Raises
    ------
    ValueError
        If a value is none that it can have.

    Examples
    --------
    >>> from wsflow.flow.guidance import Descent
    >>> Descent(n_gradients=4, flow_steps=2).times()
    [0.0, 0.5, 1.0, 1.0, 1.0]
    """

    n_gradients: int = 128
    flow_steps: int = 16
    optimizer: str = "momentum"
    rate: float = 0.1
    momentum: float = 0.9
    cooling: str = "linear"
    clip: float = 0.1
    natural: bool = False
    damping: float = 0.01
    standardize: bool = False

    def __post_init__(self) -> None:
        for name, table in (("optimizer", OPTIMIZERS), ("cooling", COOLINGS)):
            if getattr(self, name) not in table:
                raise ValueError(f"The {name!r} of Descent is one of {tuple(table)}, got {getattr(self, name)!r}.")
        if not 0 <= self.flow_steps <= self.n_gradients or self.n_gradients < 1:
            raise ValueError(
                f"A Descent has at least one gradient, and no more steps along the flow than gradients, got "
                f"flow_steps={self.flow_steps} and n_gradients={self.n_gradients}."
            )
        if min(self.rate, self.clip, self.damping) <= 0 or not 0 <= self.momentum < 1:
            raise ValueError("The 'rate', 'clip' and 'damping' of Descent are positive, and 0 <= momentum < 1.")

    def times(self) -> list[float]:
        """The n_gradients + 1 times between steps."""
        first = 1 - bool(self.flow_steps)
        grid = [k / self.flow_steps for k in range(1, self.flow_steps + 1)]
        return [float(first), *grid, *[1.0] * (self.n_gradients - self.flow_steps)]


OPTIMIZERS: dict[str, Callable[[Tensor, float], torch.optim.Optimizer]] = {
    "gradient": lambda step, momentum: torch.optim.SGD([step], 1.0),
    "momentum": lambda step, momentum: torch.optim.SGD([step], 1.0, momentum=momentum),
    "adam": lambda step, momentum: torch.optim.Adam([step], 1.0, betas=(momentum, 0.99)),
}


class _Direction:
    """From a gradient at a point to the direction that an optimizer of torch makes of it and of those before.

    The optimizer moves a step that starts at zero. Its heavy-ball average is made tangent as the points move.
    """

    def __init__(self, optimizer: str, momentum: float, x: Tensor) -> None:
        self.step = torch.zeros_like(x)
        self.optimizer = OPTIMIZERS[optimizer](self.step, momentum)

    def __call__(self, gradient: Tensor, manifold: Manifold, x: Tensor) -> Tensor:
        self.step.zero_()
        self.step.grad = manifold.to_tangent(x, gradient)
        self.optimizer.step()
        state = self.optimizer.state[self.step]
        if state.get("momentum_buffer") is not None:
            state["momentum_buffer"] = manifold.to_tangent(x, state["momentum_buffer"])
        return manifold.to_tangent(x, -self.step)


def guided_sample(
    field: Field,
    slope: Slope,
    x: Tensor,
    manifold: Manifold,
    descent: Descent,
    strength: float = 1.0,
    schedule: str = "constant",
    method: str = "midpoint",
    arrive: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Follow a flow and descend, with one gradient in each step and an optimizer's state along the way.

    A step from t to t + h takes the direction at the predicted end exp_x((1 - t) v), moves x along the flow, and then
    along the direction. The steps at t = 1 only descend. With v = 0 this is plain optimization from x.

    `slope` maps points (n, size) to directions of ascent, as `slope_of` a functional does. The points x (n, size) are
    at t = 0, or at t = 1 if no step runs along the flow. `strength` and the `schedule` at time t multiply the descent's
    rate, `method` (of `TABLEAUX`) takes the steps along the flow, and `arrive` maps points once when t = 1 is reached.
    A NumericalError names the time and how many directions or points are not finite.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.guidance import Descent, guided_sample, slope_of
    >>> from wsflow.manifolds import Euclidean
    >>> still, bowl = (lambda x, t: 0 * x), (lambda x: x.square().sum(1))
    >>> descent = Descent(40, flow_steps=0, optimizer="gradient", rate=0.5, clip=10.0)
    >>> guided_sample(still, slope_of(bowl), torch.ones(1, 2), Euclidean(2), descent).abs().max() < 1e-3
    tensor(True)
    """
    direction, times = _Direction(descent.optimizer, descent.momentum, x), descent.times()
    cooling = COOLINGS[descent.cooling]
    for k, (t, after) in enumerate(zip(times[:-1], times[1:], strict=True)):
        if arrive is not None and k == descent.flow_steps:
            x = arrive(x)
        time = x.new_full((len(x),), t)
        end = manifold.exp(x, (1 - t) * field(x, time)) if after > t else x
        gradient = slope(end)
        _check_gradient(gradient, t)
        if after > t:
            x = integrate(lambda p, s: (field(p, s), None), x, manifold, method, 1, t, after)[0]
        rate = strength * float(SCHEDULES[schedule](time)[0]) * descent.rate * cooling(k / descent.n_gradients)
        step = rate * direction(gradient, manifold, x)
        longest = descent.clip * torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        x = manifold.projection(manifold.exp(x, -step * _ratio(longest, step).clamp(max=1.0)))
    return x


def _ratio(length: Tensor, step: Tensor) -> Tensor:
    """By what to multiply a step so that it has a length."""
    own = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
    return length / own.clamp_min(torch.finfo(step.dtype).tiny)


def _check_gradient(gradient: Tensor, time: float) -> None:
    bad = ~gradient.isfinite().all(-1)
    if bad.any():
        raise NumericalError(
            f"The guidance's gradient is not finite at t = {time:.3g} for {int(bad.sum())} points: "
            "use a smaller strength or more steps."
        )
