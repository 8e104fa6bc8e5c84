"""What commands that run networks share: loading them with their module and task, and their quality."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsflow.cli.own_code import load_module

if TYPE_CHECKING:
    from wsflow.architecture import Architecture
    from wsflow.populations.population import Population
    from wsflow.task import Task
    from wsflow.weights import WeightArray


def load_with_task(file: Path, module: str | None, task_name: str | None) -> tuple[Population, Task | None]:
    """Load networks, and the task of that name or else their own."""
    import wsflow

    population = load_runnable(file, module)
    return population, wsflow.load_task(task_name) if task_name else population.task


def load_runnable(path: Path, module: str | None) -> Population:
    """Load a population whose networks run by their layers, or by the module that a spec names."""
    import wsflow

    population = wsflow.load_population(path)
    if module is None:
        return population
    weights = population.weights
    architecture = replace(weights.architecture, module=fitting_module(module, weights.architecture, path))
    columns: dict[str, Any] = {"runs": weights.runs, "steps": weights.steps, "aligned": weights.aligned}
    return replace(population, weights=wsflow.WeightArray(weights, architecture, **columns))


def fitting_module(spec: str, architecture: Architecture, path: Path) -> Any:
    """Load the module that runs the networks of a file, which must have their parameters."""
    from wsflow.exceptions import InvalidInputError

    module = load_module(spec)
    state = module.state_dict()
    for parameter in architecture.parameters:
        shape = tuple(state[parameter.name].shape) if parameter.name in state else None
        if shape != parameter.shape:
            other = "none of that name" if shape is None else f"one of shape {shape}"
            raise InvalidInputError(
                f"{path}: these networks have {parameter.name!r} of shape {parameter.shape}, but {spec} makes a module "
                f"with {other}. Name the module that they belong to."
            )
    return module.eval()


def check_runnable(population: Population, path: Path, otherwise: str = "") -> None:
    """Refuse networks that do not run, saying what could be done otherwise."""
    from wsflow.exceptions import InvalidInputError

    if not population.architecture.is_runnable:
        raise InvalidInputError(
            f"{path}: these networks do not run themselves. Say what makes the module that runs them, with "
            f"--module FILE.py:NAME{otherwise}."
        )


def check_task_known(task: Task | None, path: Path) -> Task:
    """Return the task of the networks of a file, which must be known."""
    from wsflow.exceptions import InvalidInputError

    if task is None:
        raise InvalidInputError(f"{path}: the task of these networks is not known. Say it with --task.")
    return task


def quality(weights: WeightArray, task: Task | None) -> dict[str, float]:
    """Measure the mean score (accuracy or r2) and loss on held-out data; empty where the networks cannot be run."""
    from wsflow.evaluation.predictive import predict, score_key

    if task is None or not weights.architecture.is_runnable:
        return {}
    predictive = predict(weights, task.held_out)
    return {score_key(task): float(predictive.scores.mean()), "loss": float(predictive.losses.mean())}


def save_measured(population: Population, task: Task | None, path: Path) -> dict[str, float]:
    """Save networks with their quality, which is returned; whatever ends the measurement, they are saved."""
    from wsflow.persistence import save_population

    measured: dict[str, float] = {}
    try:
        measured = quality(population.weights, task)
    finally:
        # digits that are the same on all machines
        rounded = {name: round(value, 4) for name, value in measured.items() if math.isfinite(value)}
        if task is not None and rounded:
            about = {"networks": len(population), "data": "its own" if task.held_out is task else "held-out"}
            population = replace(population, provenance={**population.provenance, "quality": {**rounded, **about}})
        save_population(population, path)
    return measured


def load_flow(path: Path) -> tuple[Any, Any]:
    """Load a model, and return it with the WeightFlow that it is or ends with."""
    import wsflow
    from wsflow.exceptions import InvalidInputError

    model = wsflow.load_model(path)
    flow = model[-1] if hasattr(model, "steps") else model
    if not isinstance(flow, wsflow.WeightFlow):
        raise InvalidInputError(f"{path}: this model does not end with a flow. Fit one with wsflow fit.")
    return model, flow
