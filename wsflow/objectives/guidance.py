"""Guidance: sampling that descends a functional of the networks on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.flow.guidance import SCHEDULES, Descent, Slope, guided, guided_sample, slope_of
from wsflow.flow.solvers import Field
from wsflow.geometry import Geometry
from wsflow.objectives.functionals import as_functional, bind
from wsflow.objectives.kfac import NaturalGradient
from wsflow.objectives.lsuv import standardizer
from wsflow.running.compatibility import check_task
from wsflow.task import Task


@dataclass(frozen=True)
class Guidance:
    """Sampling that descends a functional of the networks, such as a task's loss.

    Parameters
    ----------
    objective : Task, Functional or callable
        A task stands for its loss; `wsflow.objectives.functionals` has others, and their sums. A callable of one's own
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
    """The map from points (n, size) at t = 0 along a guided flow to points at t = 1.

    `minibatches` is the generator of the objective's, ``solve(field, points)`` follows a field from t = 0 to t = 1, and
    `method`, a key of `wsflow.flow.solvers.TABLEAUX`, takes the steps along the flow in a descent. A ValueError says
    that networks do not run without an architecture.
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
    """The directions of ascent (n, size) at points: gradients of an objective, natural ones if the descent says so."""
    if descent.natural:
        return NaturalGradient(objective, architecture, geometry, descent.damping, generator)
    return slope_of(on_points(bind(objective, architecture, generator), geometry))


def on_points(functional: Callable[[Tensor], Tensor], geometry: Geometry) -> Callable[[Tensor], Tensor]:
    """A functional of weights (n, d) as one of points (n, size)."""
    return lambda points: functional(geometry.to_weights(geometry.target.projection(points)))
