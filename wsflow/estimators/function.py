"""Where the flow meets the function of its points: the metric of the loss, and guidance."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators.functionals import as_functional, bind
from wsflow.estimators.natural import NaturalGradient
from wsflow.estimators.standardizing import standardizer
from wsflow.flow.guidance import SCHEDULES, Descent, Slope, guided, guided_sample, slope_of
from wsflow.flow.matching import Predictions
from wsflow.flow.solvers import Field
from wsflow.flow.training import Metric
from wsflow.geometry import Geometry
from wsflow.running import forward
from wsflow.task import Task, check_task

# inputs on which predictions are compared in each step of energy matching
PREDICTED = 256


@dataclass(frozen=True)
class Guidance:
    """Sampling that descends a functional of the networks, such as a task's loss.

    Parameters
    ----------
    objective : Task, Functional or callable
        A task stands for its loss; `wsflow.estimators.functionals` has others, and their sums. A callable of one's own
        maps weights (n, d), a tensor, to values (n,), each of its own network, and is differentiable.
    strength : float
        Factor of the gradient.
    clip : float
        Longest guidance step relative to the flow's own velocity.
    schedule : {"constant", "rise", "decay", "middle", "late"}
        How strong it is along the way.
    normalize : bool
        Whether gradients count by their direction only, with the length of the velocity.
    batch_size : int, optional
        Examples of the task in each evaluation, drawn anew from the sample's random state.
    descent : Descent, optional
        Sample by a guided integration that carries an optimizer's state and spends a given number of gradients; its
        own clip counts, and `normalize` does not. Without one, the gradient is part of the velocity, in each stage of
        the flow's solver.

    Raises
    ------
    ValueError
        If there is no such schedule.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Guidance, Task
    >>> Guidance(Task(np.eye(2), [0, 1]), strength=0.5).strength
    0.5
    """

    objective: Any
    strength: float = 1.0
    clip: float = 1.0
    schedule: str = "constant"
    normalize: bool = False
    batch_size: int | None = None
    descent: Descent | None = None

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"The 'schedule' of Guidance is one of {tuple(SCHEDULES)}, got {self.schedule!r}.")
        as_functional(self.objective)

    @property
    def task(self) -> Any:
        """The objective's task, where it has one."""
        return self.objective if isinstance(self.objective, Task) else getattr(self.objective, "task", None)


def guided_transport(
    guidance: Any,
    field: Field,
    architecture: Architecture | None,
    geometry: Geometry,
    minibatches: torch.Generator,
    solve: Callable[[Field, Tensor], Tensor],
    method: str = "midpoint",
) -> Callable[[Tensor], Tensor]:
    """What takes source points along a guided flow.

    Parameters
    ----------
    guidance : Guidance, or the objective of one
    field : callable
        The velocity.
    architecture : Architecture or None
    geometry : Geometry
    minibatches : torch.Generator
        Of the objective.
    solve : callable
        Follows a field from points at t = 0 to t = 1.
    method : str
        Of the steps along the flow in a descent; a key of `wsflow.flow.solvers.TABLEAUX`.

    Returns
    -------
    callable
        From points (n, size) to points (n, size).

    Raises
    ------
    ValueError
        If there is no architecture, without which networks do not run.
    """
    guidance = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
    if architecture is None:
        raise ValueError("Guidance runs the networks, so it needs an architecture: fit a WeightArray.")
    if guidance.task is not None:
        check_task(architecture, guidance.task)
    objective = as_functional(guidance.objective, guidance.batch_size)
    descent, strength, schedule = guidance.descent, guidance.strength, guidance.schedule
    if descent is None:
        loss = on_points(bind(objective, architecture, minibatches), geometry)
        factors = (strength, guidance.clip, schedule, guidance.normalize)
        return functools.partial(solve, guided(field, loss, geometry.manifold, *factors))
    slope = slope_by(objective, architecture, geometry, descent, minibatches)
    arrive = standardizer(guidance.task, architecture, geometry) if descent.standardize else None

    def descend(x: Tensor) -> Tensor:
        start = x if descent.flow_steps else solve(field, x)
        return guided_sample(
            field, slope, start, geometry.manifold, descent, strength, schedule, method=method, arrive=arrive
        )

    return descend


def slope_by(
    objective: Any, architecture: Architecture, geometry: Geometry, descent: Descent, generator: torch.Generator
) -> Slope:
    """The directions of a descent: gradients of an objective, natural ones if it says so.

    Parameters
    ----------
    objective : Functional or callable
    architecture : Architecture
    geometry : Geometry
    descent : Descent
    generator : torch.Generator
        Of the minibatches.

    Returns
    -------
    callable
        From points (n, size) to directions of ascent (n, size).
    """
    if descent.natural:
        return NaturalGradient(objective, architecture, geometry, descent.damping, generator)
    return slope_of(on_points(bind(objective, architecture, generator), geometry))


def function_metric(task: Task, architecture: Architecture, geometry: Geometry, n_inputs: int) -> Metric:
    """The pull-back metric at x: v -> J(x) v, the change of the outputs on inputs of a task.

    J is the Jacobian of the outputs at the point x itself, on a fresh draw of inputs at each call.
    Outputs of a classification are logits, which mean the same when all of them move together, so
    their mean is taken off. Only inputs are used, no targets.

    Parameters
    ----------
    task : Task
    architecture : Architecture
    geometry : Geometry
    n_inputs : int

    Returns
    -------
    callable
        ``metric(x, v, generator)``: Tensor of shape (n, inputs * outputs).
    """
    inputs = torch.from_numpy(task.X)
    centred = task.is_classification

    def metric(x: Tensor, v: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(inputs), (n_inputs,), generator=generator)
        batch = inputs[rows].to(x)

        def outputs(points: Tensor) -> Tensor:
            return forward(geometry.to_weights(points), architecture, batch)

        change: Tensor = torch.func.jvp(outputs, (x,), (v,))[1]
        return (change - change.mean(-1, keepdim=True) if centred else change).flatten(1)

    return metric


def predictions_of(task: Task, architecture: Architecture, geometry: Geometry) -> Predictions:
    """What networks predict on inputs of a task, drawn anew by each generator; its targets are not used.

    Of a classification these are the square roots of the probabilities, whose distances are those of Hellinger.

    Parameters
    ----------
    task : Task
    architecture : Architecture
    geometry : Geometry

    Returns
    -------
    callable
        See `wsflow.flow.matching`.
    """
    inputs = torch.from_numpy(task.X)

    def drawn(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        rows = torch.randint(len(inputs), (PREDICTED,), generator=generator)

        def predicted(points: Tensor) -> Tensor:
            outputs = forward(geometry.to_weights(points), architecture, inputs[rows].to(points))
            # a root has no slope at zero
            return outputs.softmax(-1).clamp_min(1e-6).sqrt() if task.is_classification else outputs

        return predicted

    return drawn


def on_points(functional: Callable[[Tensor], Tensor], geometry: Geometry) -> Callable[[Tensor], Tensor]:
    """A functional of weights as one of points.

    Parameters
    ----------
    functional : callable
        From weights (n, d) to values (n,).
    geometry : Geometry

    Returns
    -------
    callable
        From points (n, size) to values (n,).
    """
    return lambda points: functional(geometry.to_weights(geometry.target.projection(points)))
