"""Training a velocity by flow matching.

The loss is E w(t) |v(x_t, t) - u_t|^2 in the tangent space at x_t. A metric that depends on (x_t, t) alone, in place
of the identity, leaves the minimizer, the conditional mean E[u_t | x_t], as it is: it only says where the network's
capacity goes. A function's metric is taken where the velocity leads, x_1 = exp_{x_t}((1 - t) v) with v held fixed: at
x_t, which is half noise, it is that of no trained network.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wsflow.exceptions import NumericalError
from wsflow.flow.couplings import COUPLINGS, Nearest
from wsflow.flow.field import VelocityField
from wsflow.flow.paths import PREDICTIONS, TIMES
from wsflow.flow.priors import Prior

Metric = Callable[[Tensor, Tensor, torch.Generator], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    n_steps, batch_size : int
    learning_rate, weight_decay : float
        Of AdamW; the rate warms up over 50 steps and falls by a cosine.
    ema_decay : float
        Of the exponential moving average of the weights, which is what is kept.
    clip : float
        Largest norm of the gradient.
    coupling, time : str
        Keys of `COUPLINGS` and `TIMES`.
    metric_weight : float
        Share of the metric in the loss, between 0 (none) and 1.
    patience : int or None
        Stop when more than so many evaluations in a row were no better on the validation points.
    evaluate_every : int
        Steps between evaluations on the validation points.
    condition_dropout : float
        Share of the conditions that are forgotten in each step.
    """

    n_steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    clip: float = 1.0
    coupling: str = "independent"
    time: str = "uniform"
    metric_weight: float = 0.9
    patience: int | None = None
    evaluate_every: int = 50
    condition_dropout: float = 0.1


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C in training: the velocity has its best weights so far, and the history is here.

    Parameters
    ----------
    history : History
    """

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history


@dataclass
class History:
    """Losses by step.

    Parameters
    ----------
    step, train, validation : list
        Training loss since the evaluation before, and validation loss; empty without validation points.
    best_step : int
        Where the kept weights were taken.
    energy : list
        Of energy matching: see `wsflow.flow.matching`.
    """

    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_step: int = 0
    energy: list[float] = field(default_factory=list)


class Objective:
    """The flow-matching loss, with the share of a metric in it.

    Parameters
    ----------
    velocity : VelocityField
    settings : Settings
    metric : callable, optional
        ``metric(x, v, generator)`` maps tangent vectors v at x linearly to (n, k); its squared norm is the
        metric's.
    nearest : callable, optional
        For ``coupling="orbit"``: see `wsflow.flow.couplings.orbit`.
    """

    def __init__(
        self, velocity: VelocityField, settings: Settings, metric: Metric | None, nearest: Nearest | None = None
    ) -> None:
        self.nearest = nearest
        self.manifold = velocity.manifold
        self.prediction = PREDICTIONS[velocity.prediction]
        self.settings = settings
        self.metric = metric
        self._scale: float | None = None

    def batch(self, x1: Tensor, prior: Prior, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Coupled source points, target points and times."""
        x0 = prior.sample(len(x1), generator).to(x1)
        x0, x1 = COUPLINGS[self.settings.coupling](x0, x1, self.manifold, self.nearest)
        return x0, x1, TIMES[self.settings.time](len(x1), generator).to(x1)

    def __call__(self, velocity: nn.Module, x0: Tensor, x1: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
        """The mean loss of a velocity on pairs and times."""
        xt, ut = self.manifold.geodesic(x0, x1, t)
        v = velocity(xt, t)
        error = v - ut
        loss = error.square().mean(-1)
        if self.metric is not None:
            end = self.manifold.exp(xt, (1 - t).unsqueeze(-1) * v.detach())
            share = self.settings.metric_weight
            seen = self.metric(end, self.manifold.to_tangent(end, error), generator).square().mean(-1)
            loss = share * self._normalized(end, ut, generator) * seen + (1 - share) * loss
        return (self.prediction.weight(t) * loss).mean()

    def _normalized(self, end: Tensor, ut: Tensor, generator: torch.Generator) -> float:
        """What makes the metric's loss of the zero velocity equal to the plain one's, on the first batch."""
        if self._scale is None and self.metric is not None:
            seen = self.metric(end, self.manifold.to_tangent(end, ut), generator).square().mean()
            self._scale = float(ut.square().mean() / seen.clamp_min(torch.finfo(seen.dtype).tiny))
        return self._scale or 1.0


class Learner:
    """A velocity in training: AdamW's steps on a loss, gradients clipped, and the moving average of its weights.

    Parameters
    ----------
    velocity : VelocityField
    settings : Settings
    share : float
        Of the learning rate.
    """

    def __init__(self, velocity: VelocityField, settings: Settings, share: float = 1.0) -> None:
        self.velocity = velocity
        self.average = copy.deepcopy(velocity).eval()
        self.settings = settings
        self._learning_rate = share * settings.learning_rate
        self._optimizer = torch.optim.AdamW(
            velocity.parameters(), self._learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self._drops = any(isinstance(part, nn.Dropout) for part in velocity.modules())
        self._steps = 0

    def loss(self, objective: Objective, x1: Tensor, conditions: Tensor | None, generator: torch.Generator) -> Tensor:
        """The flow-matching loss of a batch of points, some of whose conditions are forgotten."""
        settings = self.settings
        rows = torch.randint(len(x1), (settings.batch_size,), generator=generator)
        pairs = objective.batch(x1[rows], self.velocity.prior.to(x1.dtype), generator)
        seen = None if conditions is None else dropped(conditions[rows], settings.condition_dropout, generator)
        # dropout draws from the global generator: fork it, so that it stays as it was
        with torch.random.fork_rng(devices=[], enabled=self._drops):
            if self._drops:
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            return objective(under(self.velocity.train(), seen), *pairs, generator)

    def step(self, loss: Tensor, rate: float) -> None:
        """Move by a part of the learning rate; a NumericalError, and nothing moves, where something is not finite."""
        if not math.isfinite(loss.item()):
            raise NumericalError("The loss is not finite.")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.velocity.parameters(), self.settings.clip)
        if not math.isfinite(norm.item()):
            raise NumericalError("The gradient of the loss is not finite.")
        self._optimizer.param_groups[0]["lr"] = self._learning_rate * rate
        self._optimizer.step()
        self._steps += 1
        # a young average forgets its start faster
        stays = min(self.settings.ema_decay, self._steps / (self._steps + 9))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.velocity.parameters()), 1 - stays)


def train(
    velocity: VelocityField,
    x1: Tensor,
    settings: Settings,
    generator: torch.Generator,
    metric: Metric | None = None,
    validation: Tensor | None = None,
    progress: Progress | None = None,
    conditions: tuple[Tensor, Tensor] | None = None,
    nearest: Nearest | None = None,
) -> History:
    """Fit a velocity to points at t = 1, in place; it ends with the best averaged weights.

    Parameters
    ----------
    velocity : VelocityField
    x1 : Tensor of shape (n, size)
    settings : Settings
    generator : torch.Generator
        All randomness comes from it.
    metric : callable, optional
        See `Objective`.
    validation : Tensor of shape (m, size), optional
        Points of held-out runs: the weights with the lowest loss on them are kept.
    progress : callable, optional
        Called with the steps done and their number.
    conditions : pair of Tensor of shapes (n,) and (m,), optional
        Of the points and of the validation points, for a velocity that takes them.
    nearest : callable, optional
        See `Objective`.

    Returns
    -------
    History

    Raises
    ------
    NumericalError
        If the loss is not finite before anything was learned.
    TrainingInterrupted
        At Ctrl-C, with the best weights so far in place.
    """
    objective, learner = Objective(velocity, settings, metric, nearest), Learner(velocity, settings)
    learned, held_out = conditions or (None, None)
    keeper = _Keeper(learner.average, objective, validation, generator, held_out)
    try:
        _loop(learner, x1, generator, objective, keeper, progress, learned)
    except KeyboardInterrupt:
        velocity.load_state_dict(keeper.best)
        raise TrainingInterrupted(keeper.history) from None
    velocity.load_state_dict(keeper.best)
    return keeper.history


def _loop(
    learner: Learner,
    x1: Tensor,
    generator: torch.Generator,
    objective: Objective,
    keeper: _Keeper,
    progress: Progress | None,
    conditions: Tensor | None,
) -> None:
    settings = learner.settings
    recent: list[float] = []
    for step in range(settings.n_steps):
        loss = learner.loss(objective, x1, conditions, generator)
        try:
            learner.step(loss, _rate(step, settings.n_steps))
        except NumericalError:
            _stop_at_nan(step, keeper)
            break
        recent.append(loss.item())
        if progress is not None:
            progress(step + 1, settings.n_steps)
        last = step + 1 == settings.n_steps
        if last or (step + 1) % settings.evaluate_every == 0:
            waited = keeper.look(step + 1, sum(recent) / len(recent))
            recent = []
            if settings.patience is not None and waited >= settings.patience:
                break


def dropped(condition: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Conditions of which some are forgotten, so that a velocity learns to do without them too.

    Parameters
    ----------
    condition : Tensor of shape (n,)
    probability : float
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (n,)
        NaN where forgotten.

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.training import dropped
    >>> dropped(torch.ones(1000), 0.1, torch.Generator().manual_seed(0)).isnan().float().mean() < 0.15
    tensor(True)
    """
    forgotten = torch.rand(len(condition), generator=generator) < probability
    return condition.masked_fill(forgotten.to(condition.device), math.nan)


def under(velocity: VelocityField, condition: Tensor | None) -> nn.Module:
    """A velocity with its conditions bound, where there are some.

    Parameters
    ----------
    velocity : VelocityField
    condition : Tensor of shape (n,) or None

    Returns
    -------
    nn.Module
    """
    return velocity if condition is None else velocity.given(condition)


def _rate(step: int, n_steps: int) -> float:
    warm = min(1.0, (step + 1) / min(50, max(1, n_steps // 10)))
    return warm * (0.005 + 0.5 * (1 + math.cos(math.pi * step / n_steps)))


def _stop_at_nan(step: int, keeper: _Keeper) -> None:
    if not keeper.history.step:
        raise NumericalError(
            f"The loss of the flow was not finite at step {step + 1}: use a smaller learning_rate or check the weights."
        ) from None
    warnings.warn(
        f"The loss of the flow was not finite at step {step + 1}: training stopped, and the weights of step "
        f"{keeper.history.best_step} are kept. Use a smaller learning_rate.",
        RuntimeWarning,
        stacklevel=3,
    )


class _Keeper:
    """Looks at the validation loss of the averaged weights, on fixed pairs and times, and keeps the best."""

    def __init__(
        self,
        average: VelocityField,
        objective: Objective,
        validation: Tensor | None,
        generator: torch.Generator,
        condition: Tensor | None = None,
    ) -> None:
        self._condition = condition
        self.average = average
        self.objective = objective
        self.history = History()
        self.best = copy.deepcopy(average.state_dict())
        self._lowest = math.inf
        self._waited = 0
        self._seed = int(torch.randint(2**31, (1,), generator=generator))
        self._pairs = None
        if validation is not None and len(validation):
            self._pairs = objective.batch(validation, average.prior, generator)

    def look(self, step: int, train_loss: float) -> int:
        """Record a step; returns the number of evaluations since the best one."""
        self.history.step.append(step)
        self.history.train.append(train_loss)
        loss = -float(step)
        if self._pairs is not None:
            with torch.no_grad():
                generator = torch.Generator().manual_seed(self._seed)
                view = under(self.average, self._condition)
                loss = float(self.objective(view, *self._pairs, generator))
            self.history.validation.append(loss)
        self._waited += 1
        if loss < self._lowest:
            self._lowest, self._waited = loss, 0
            self.history.best_step = step
            self.best = copy.deepcopy(self.average.state_dict())
        return self._waited
