"""Energy matching: what samples predict is brought to the law of what the training networks predict.

Flow matching judges a velocity one point at a time. Its small errors add up along a path, and what they do to a
network's function shows at the end only. There f, predictions of samples, and g, those of networks of the population,
are compared by their energy distance

    D = 2 E d(f, g) - E d(f, f') - E d(g, g'),

with d(f, g) the mean over inputs of |f(x) - g(x)|: zero only where both have one law at every input. Two batches give
an unbiased estimate of it, so nothing is gained by being close to a network of the population, only by being
distributed as they are. Its gradient reaches each velocity of a path as if a change there moved the path's end by as
much: how the later path answers is left out, which saves second derivatives.

References
----------
Szekely and Rizzo 2013, "Energy statistics: a class of statistics based on distances" (the distance); Li, Swersky and
Zemel 2015, arXiv:1502.02761 (generators that match moments); De Bortoli et al. 2025, arXiv:2502.02483 (scoring rules of
batches of samples in diffusion models).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsflow.exceptions import NumericalError
from wsflow.flow.field import VelocityField
from wsflow.flow.solvers import integrate
from wsflow.flow.training import History, Learner, Objective, Progress, TrainingInterrupted, under
from wsflow.manifolds import Manifold

# from points (n, size) to predictions (n, inputs, k), on inputs that a generator draws
Predictions = Callable[[torch.Generator], Callable[[Tensor], Tensor]]

RATE = 0.25  # of the learning rate of flow matching: the velocity is trained already
EVERY = 50  # steps between records


@dataclass(frozen=True)
class Matching:
    """How to match predictions.

    Parameters
    ----------
    n_steps : int
    weight : float
        Of the energy distance, in parts of E d(g, g'), beside the flow-matching loss.
    path_steps : int
        Of the paths along which samples are drawn, by Euler's method.
    batch_size : int
        Samples, and as many networks of the population.
    """

    n_steps: int
    weight: float = 1.0
    path_steps: int = 8
    batch_size: int = 32


def energy_distance(f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The energy distance D between the laws of two batches of predictions, and the spread E d(g, g') of the second.

    Parameters
    ----------
    f : Tensor of shape (n, inputs, k)
    g : Tensor of shape (m, inputs, k)
        At least two of each.

    Returns
    -------
    distance : Tensor of shape ()
        An unbiased estimate, which may be negative.
    spread : Tensor of shape ()

    Examples
    --------
    >>> import torch
    >>> from wsflow.flow.matching import energy_distance
    >>> f, g = torch.tensor([0.0, 1.0]).reshape(2, 1, 1), torch.tensor([4.0, 5.0]).reshape(2, 1, 1)
    >>> [float(value) for value in energy_distance(f, g)]
    [6.0, 1.0]
    """
    own, spread = (_distances(h, h).sum() / (len(h) * (len(h) - 1)) for h in (f, g))
    return 2 * _distances(f, g).mean() - own - spread, spread


def _distances(f: Tensor, g: Tensor) -> Tensor:
    """d(f_i, g_j), of shape (n, m)."""
    return torch.cdist(f.transpose(0, 1), g.transpose(0, 1), compute_mode="donot_use_mm_for_euclid_dist").mean(0)


def match_predictions(
    velocity: VelocityField,
    x1: Tensor,
    objective: Objective,
    matching: Matching,
    predictions: Predictions,
    generator: torch.Generator,
    history: History,
    progress: Progress | None = None,
    conditions: Tensor | None = None,
) -> None:
    """Train a velocity further, in place, by flow matching and the energy distance of predictions.

    Parameters
    ----------
    velocity : VelocityField
        Trained by flow matching.
    x1 : Tensor of shape (n, size)
        Points of the population.
    objective : Objective
        Of flow matching, with its settings.
    matching : Matching
    predictions : callable
        From a generator, which draws inputs, to a callable from points (n, size) to predictions (n, inputs, k).
    generator : torch.Generator
    history : History
        Where the energy distances go, each the mean of 50 steps in parts of the spread.
    progress : callable, optional
        Called with the steps done and their number.
    conditions : Tensor of shape (n,), optional
        Of the points; samples are drawn under conditions of the population.

    Raises
    ------
    TrainingInterrupted
        At Ctrl-C, with the averaged weights so far in place.
    """
    learner, recent = Learner(velocity, objective.settings, RATE), list[float]()
    source = velocity.prior.to(x1.dtype)
    try:
        for step in range(matching.n_steps):
            loss = learner.loss(objective, x1, conditions, generator)
            rows, others = torch.randint(len(x1), (2, matching.batch_size), generator=generator)
            view = under(velocity.eval(), None if conditions is None else conditions[rows])
            predict = predictions(generator)
            drawn = _drawn(view, source.sample(matching.batch_size, generator).to(x1), velocity.manifold, matching)
            distance, spread = energy_distance(predict(drawn), predict(x1[others]))
            relative = distance / spread.detach().clamp_min(torch.finfo(x1.dtype).tiny)
            learner.step(loss + matching.weight * relative, _rate(step, matching.n_steps))
            recent.append(relative.item())
            if progress is not None:
                progress(step + 1, matching.n_steps)
            if (step + 1) % EVERY == 0 or step + 1 == matching.n_steps:
                history.energy.append(sum(recent) / len(recent))
                recent = []
    except NumericalError:
        warnings.warn(
            f"Predictions were not finite at step {step + 1} of matching them, and it stopped there. Use a smaller "
            "learning_rate.",
            RuntimeWarning,
            stacklevel=3,
        )
    except KeyboardInterrupt:
        raise TrainingInterrupted(history) from None
    finally:
        velocity.load_state_dict(learner.average.state_dict())


def _drawn(view: nn.Module, x: Tensor, manifold: Manifold, matching: Matching) -> Tensor:
    """Samples by Euler's method, of which each velocity moves the end by as much as it moves its own step."""
    return integrate(lambda x, t: (view(x.detach(), t), None), x, manifold, "euler", matching.path_steps)[0]


def _rate(step: int, n_steps: int) -> float:
    return min(1.0, (step + 1) / 10) * (0.01 + 0.5 * (1 + math.cos(math.pi * step / n_steps)))
