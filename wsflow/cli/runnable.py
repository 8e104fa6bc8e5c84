"""What commands that run networks share: a population whose module is at hand, its task, and a figure's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsflow.cli import options

if TYPE_CHECKING:
    from wsflow.populations.population import Population
    from wsflow.task import Task

FIGURES = (".png", ".pdf", ".svg")


def load_runnable(path: Path, module: str | None) -> Population:
    """A population whose networks run: by their layers, or by a module of the user's.

    Parameters
    ----------
    path : Path
    module : str or None
        ``"file.py:name"`` of what makes the module.

    Returns
    -------
    Population

    Raises
    ------
    InvalidInputError
        If the module does not have the networks' parameters.
    """
    from dataclasses import replace

    import wsflow

    population = wsflow.load_population(path)
    if module is None:
        return population
    weights = population.weights
    architecture = replace(weights.architecture, module=_fitting(options.load_module(module), weights, path, module))
    columns: dict[str, Any] = {"runs": weights.runs, "steps": weights.steps, "aligned": weights.aligned}
    return replace(population, weights=wsflow.WeightArray(weights, architecture, **columns))


def check_runs(population: Population, path: Path, otherwise: str = "") -> None:
    """Refuse networks that nothing runs, where they have to.

    Parameters
    ----------
    population : Population
    path : Path
    otherwise : str
        What else could be done.

    Raises
    ------
    InvalidInputError
    """
    from wsflow.exceptions import InvalidInputError

    architecture = population.architecture
    if not architecture.layers and architecture.module is None:
        raise InvalidInputError(
            f"{path}: these networks do not run themselves. Say what makes the module that runs them, with "
            f"--module FILE.py:NAME{otherwise}."
        )


def _fitting(module: Any, weights: Any, path: Path, spec: str) -> Any:
    from wsflow.exceptions import InvalidInputError

    state = module.state_dict()
    for parameter in weights.architecture.parameters:
        shape = tuple(state[parameter.name].shape) if parameter.name in state else None
        if shape != parameter.shape:
            found = "none of that name" if shape is None else f"one of shape {shape}"
            raise InvalidInputError(
                f"{path}: these networks have {parameter.name!r} of shape {parameter.shape}, but {spec} makes a module "
                f"with {found}. Name the module that they belong to."
            )
    return module.eval()


def task_of(population: Population, path: Path, name: str | None) -> Task | None:
    """The task by its name, or else the one that the networks were trained for.

    Parameters
    ----------
    population : Population
    path : Path
        Where it was loaded from.
    name : str or None

    Returns
    -------
    Task or None
    """
    import wsflow

    return wsflow.load_task(name) if name else population.task


def needed_task(population: Population, path: Path, name: str | None) -> Task:
    """As `task_of`, where there must be one.

    Parameters
    ----------
    population : Population
    path : Path
    name : str or None

    Returns
    -------
    Task

    Raises
    ------
    InvalidInputError
        If there is none.
    """
    from wsflow.exceptions import InvalidInputError

    task = task_of(population, path, name)
    if task is None:
        raise InvalidInputError(f"{path}: the task of these networks is not known. Say it with --task.")
    return task


def check_figure(plot: Path | None, *files: Path | None) -> None:
    """Refuse a figure that could not be written, before anything long is done.

    Parameters
    ----------
    plot : Path or None
    *files : Path or None
        What is read or written besides.

    Raises
    ------
    OutputError
    """
    from wsflow.exceptions import OutputError
    from wsflow.persistence import check_target

    if plot is None:
        return
    if plot.suffix.lower() not in FIGURES:
        raise OutputError(f"{plot}: a figure ends in {', '.join(FIGURES)}. Give it such a name.")
    check_target(plot)
    options.check_apart(plot, *files)
    if any(path is not None and path.absolute() == plot.absolute() for path in files):
        raise OutputError(f"{plot}: this file is for the networks. Give the figure another path.")
