"""Populations as files: one tensor for each parameter, stacked over networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.persistence.format import Shapes, decoding, read, to_json, write
from wsflow.persistence.schemas import POPULATION
from wsflow.persistence.tasks import pack_task, task_tensors, unpack_task
from wsflow.populations.invalid import check_finite, check_on_invalid, not_finite
from wsflow.populations.population import Population, versions
from wsflow.weights import WeightArray

RUN, STEP, TASK = "wsflow.run", "wsflow.step", "wsflow.task"
MENTIONED = 3


def save_population(population: Population, path: str | Path) -> None:
    """Write a population to a safetensors file, whole or not at all.

    There is one tensor for each parameter, under its state-dict name and stacked over networks, besides
    ``wsflow.run`` and ``wsflow.step``; everything else is JSON in the metadata. The same population gives the
    same bytes.

    Raises
    ------
    InvalidInputError
        If there is no network, or something in the provenance is not JSON data: what could not be loaded again.
    NumericalError
        If a weight is not finite; the network and the parameter are named.
    OutputError
        If the path is a directory, a link or read-only, or the disk is full; what was there is intact.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.persistence import load_population, save_population
    >>> from wsflow.populations import Population
    >>> from wsflow.weights import WeightArray
    >>> population = Population(WeightArray(np.ones((5, 23)), Architecture.mlp([4, 3, 2])))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_population(population, pathlib.Path(folder, "zoo.safetensors"))
    ...     print(load_population(pathlib.Path(folder, "zoo.safetensors")))
    5 networks 4-3-2 relu (23 weights) of 5 runs
    """
    if not isinstance(population, Population):
        raise InvalidInputError(
            f"save_population takes a Population, got {type(population).__name__}. Make one of a WeightArray with "
            "Population(weights, task)."
        )
    weights, architecture = population.weights, population.architecture
    if not len(weights):
        raise InvalidInputError("This population has no networks: at least one is needed to save it.")
    if problem := not_finite(weights):
        raise NumericalError(f"{path}: nothing was written: {problem}. Leave such networks out, or train them again.")
    tensors = {RUN: weights.runs, STEP: weights.steps}
    task = None if population.task is None else pack_task(population.task, TASK, tensors)
    reserved = sorted(set(tensors) & set(architecture.names))
    if reserved:
        raise InvalidInputError(f"The parameter name {reserved[0]!r} is reserved for wsflow. Rename the parameter.")
    rows = np.asarray(weights)
    for parameter in architecture.parameters:
        tensors[parameter.name] = rows[:, architecture.slices[parameter.name]].reshape(len(rows), *parameter.shape)
    data = {
        "architecture": json.loads(architecture.to_json()),
        "aligned": weights.aligned,
        "networks": len(weights),
        "runs": population.n_runs,
        "task": task,
        "provenance": population.provenance,
        "versions": versions(),
    }
    write(path, "population", tensors, data, _check, POPULATION)


def load_population(path: str | Path, on_invalid: Literal["error", "drop"] = "error") -> Population:
    """Read a population that `save_population` wrote, bit by bit.

    Parameters
    ----------
    on_invalid : {"error", "drop"}
        What to do with networks that have weights which are not finite.

    Returns
    -------
    Population
        Its task is None, with a warning, if the task's data are not where they were or not what they were.

    Raises
    ------
    InvalidInputError
        If the file is damaged or something else, or has weights that are not finite.
    ValueError
        If `on_invalid` is neither of the two.

    See Also
    --------
    save_population : with an example.
    """
    check_on_invalid(on_invalid, "load_population")
    path = Path(path)
    tensors, data = read(path, "population", POPULATION)
    with decoding(path, "population"):
        weights = _weights(tensors, data)
        task = unpack_task(data["task"], TASK, tensors, path)
        return Population(check_finite(weights, on_invalid, str(path)), task, data["provenance"])


def _check(tensors: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> None:
    """Decode a population, but for networks beyond the first, and for a task whose data are elsewhere."""
    included = data["task"] if task_tensors(data["task"], TASK) else None
    first = {name: array if name.startswith(TASK) else array[:1] for name, array in tensors.items()}
    Population(_weights(first, data), unpack_task(included, TASK, tensors, Path()), data["provenance"])


def checked_architecture(data: Mapping[str, Any], shapes: Shapes) -> Architecture:
    """Build the architecture of a population's file, whose tensors must have the shapes that it needs."""
    # compared before the architecture is built, whose tables take the memory that its shapes ask for
    parameters = {p["name"]: tuple(p["shape"]) for p in data["architecture"]["parameters"]}
    n = (*shapes.get(RUN, ()), 0)[0]
    expected = {name: (n, *shape) for name, shape in {RUN: (), STEP: (), **parameters}.items()}
    others = task_tensors(data["task"], TASK)
    problems = [f"there is no tensor {name!r}" for name in (*expected, *others) if name not in shapes]
    problems += [f"there is a further tensor {name!r}" for name in sorted({*shapes} - {*expected, *others})]
    problems += [
        f"{name!r} has shape {shapes[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if problems:
        more = f" (and {len(problems) - MENTIONED} more)" if len(problems) > MENTIONED else ""
        listed = "; ".join(problems[:MENTIONED])
        raise InvalidInputError(f"The tensors are not those of the architecture: {listed}{more}.")
    if not n:
        raise InvalidInputError("The population has no networks: at least one is needed.")
    return Architecture.from_json(to_json(data["architecture"]))


def _weights(tensors: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> WeightArray:
    architecture = checked_architecture(data, {name: array.shape for name, array in tensors.items()})
    stacked = [tensors[name] for name in architecture.names]
    dtypes = {array.dtype for array in stacked}
    if len(dtypes) > 1 or any(dtype.kind != "f" for dtype in dtypes):
        listed = ", ".join(sorted(map(str, dtypes)))
        raise InvalidInputError(f"The weights have the dtypes {listed}, expected one kind of float.")
    rows = np.concatenate([array.reshape(len(array), -1) for array in stacked], axis=1)
    return WeightArray(rows, architecture, runs=tensors[RUN], steps=tensors[STEP], aligned=data["aligned"])
