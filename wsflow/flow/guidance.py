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
    """The gradient of a functional, as a function of points.

    Parameters
    ----------
    loss : callable
        From points (n, size) to values (n,), each of its own point only.

    Returns
    -------
    callable
        From points (n, size) to gradients (n, size).

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.guidance import slope_of
    >>> slope_of(lambda x: x.square().sum(1))(torch.tensor([[1.0, 2.0]]))
    tensor([[2., 4.]])
    """

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

    The gradient descends; it is taken at the predicted end, made tangent at x, and shortened to `clip`
    times the length of the velocity where it is longer.

    Parameters
    ----------
    field : callable
        The velocity.
    loss : callable
        From points (n, size) to losses (n,).
    manifold : Manifold
    strength : float
    clip : float
        Longest guidance step relative to the velocity.
    schedule : str
        s, a key of `SCHEDULES`.
    normalize : bool
        Whether gradients count by their direction only, with the length of the velocity.

    Returns
    -------
    callable
        The guided velocity. It raises a NumericalError where the gradient is not finite, which names the time and
        the number of points.

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
    """How a guided integration spends its gradients.

    Parameters
    ----------
    n_gradients : int
        Gradient evaluations, one in each step.
    flow_steps : int
        The first so many steps run along the flow, from t = 0 to 1; the others stay at t = 1 and only descend. With 0
        all of them do, from points at t = 1.
    optimizer : str
        A key of `UPDATES`.
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
        for name, table in (("optimizer", UPDATES), ("cooling", COOLINGS)):
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


class Plain:
    """The direction is the gradient.

    Parameters
    ----------
    momentum : float
        Not used.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum

    def __call__(self, gradient: Tensor, manifold: Manifold, x: Tensor) -> Tensor:
        """From a gradient at x to a direction at x."""
        return manifold.to_tangent(x, gradient)


class Momentum:
    """The heavy ball: m <- momentum P_x m + g.

    Parameters
    ----------
    momentum : float
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self._average: Tensor | None = None

    def __call__(self, gradient: Tensor, manifold: Manifold, x: Tensor) -> Tensor:
        """From a gradient at x to a direction at x."""
        before = torch.zeros_like(gradient) if self._average is None else self._average
        self._average = manifold.to_tangent(x, self.momentum * before + gradient)
        return self._average


class Adam:
    """Moments of each coordinate, as Kingma and Ba 2015, arXiv:1412.6980, with b2 = 0.99.

    Parameters
    ----------
    momentum : float
        b1.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self._steps = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def __call__(self, gradient: Tensor, manifold: Manifold, x: Tensor) -> Tensor:
        """From a gradient at x to a direction at x."""
        gradient = manifold.to_tangent(x, gradient)
        zero = torch.zeros_like(gradient)
        self._steps += 1
        self._first = torch.lerp(gradient, zero if self._first is None else self._first, self.momentum)
        self._second = torch.lerp(gradient.square(), zero if self._second is None else self._second, 0.99)
        first = self._first / (1 - self.momentum**self._steps)
        second = self._second / (1 - 0.99**self._steps)
        return manifold.to_tangent(x, first / (second.sqrt() + 1e-8))


UPDATES: dict[str, Callable[[float], Callable[[Tensor, Manifold, Tensor], Tensor]]] = {
    "gradient": Plain,
    "momentum": Momentum,
    "adam": Adam,
}


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

    Parameters
    ----------
    field : callable
        The velocity.
    slope : callable
        From points (n, size) to directions of ascent (n, size), such as `slope_of` a functional.
    x : Tensor of shape (n, size)
        Points at t = 0, or at t = 1 if no step runs along the flow.
    manifold : Manifold
    descent : Descent
    strength : float
        Factor of the descent's rate.
    schedule : str
        A key of `SCHEDULES`, for the factor at time t.
    method : str
        A key of `wsflow.flow.solvers.TABLEAUX`, for the steps along the flow.
    arrive : callable, optional
        From points to points, applied once when t = 1 is reached.

    Returns
    -------
    Tensor of shape (n, size)

    Raises
    ------
    NumericalError
        If a direction or a point is not finite; it names the time and how many.

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
    update, times = UPDATES[descent.optimizer](descent.momentum), descent.times()
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
        step = rate * update(gradient, manifold, x)
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
