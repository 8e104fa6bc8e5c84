"""What the file of a population holds: one tensor for each parameter, stacked over networks, and JSON data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.architecture.fixed_entries import difference
from wsflow.exceptions import InvalidInputError
from wsflow.mapped import mapped
from wsflow.persistence.constants import without_constants
from wsflow.persistence.format import Shapes, check_kind, decoding, encode, read, read_header, to_json
from wsflow.persistence.schemas import POPULATION
from wsflow.persistence.shards import Shard
from wsflow.persistence.tasks import pack_task, task_tensors, unpack_task
from wsflow.populations.population import Population, versions
from wsflow.task import Task
from wsflow.weights import WeightArray

RUN, STEP, TASK = "wsflow.run", "wsflow.step", "wsflow.task"
MENTIONED = 3


def encode_population(population: Population, path: str | Path) -> tuple[bytes, str]:
    """Return the content of the file of a population, and its checksum."""
    weights, architecture = population.weights, population.architecture
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
    return encode(path, "population", tensors, data, _check, POPULATION)


def read_population(path: Path) -> Population:
    """Read the file of a population."""
    tensors, data = read(path, "population", POPULATION)
    with decoding(path, "population"):
        weights = _weights(tensors, data)
        return Population(weights, unpack_task(data["task"], TASK, tensors, path), data["provenance"])


def read_in_place(path: Path, shards: list[Shard], is_mapped: bool) -> Population:
    """Read the weights of the files of a population to where they stay, in memory or in a mapped file."""
    layouts = [_layout(shard) for shard in shards]
    shape = sum(layout.networks for layout in layouts), layouts[0].architecture.n_weights
    for shard, layout in zip(shards, layouts, strict=True):
        _check_alike(shard, layout, layouts[0])
    dtype = layouts[0].dtype
    rows = mapped(shape, dtype, path.parent) if is_mapped else np.empty(shape, dtype)
    parts, start = [], 0
    for shard, layout in zip(shards, layouts, strict=True):
        parts.append(_read_into(rows[start : start + layout.networks], shard, layout.architecture))
        start += layout.networks
        _check_alike(shard, parts[-1], parts[0])
    runs, steps = (np.concatenate([getattr(part, name) for part in parts]) for name in ("runs", "steps"))
    weights = WeightArray(rows, parts[0].architecture, runs=runs, steps=steps, aligned=parts[0].aligned)
    return Population(weights, parts[0].task, parts[0].provenance)


@dataclass(frozen=True)
class _Layout:
    """What the header of a file says of the networks in it; large constants of their program are zero."""

    architecture: Architecture
    networks: int
    dtype: np.dtype
    aligned: bool


@dataclass(frozen=True)
class _Part(_Layout):
    """Everything in a file but the weights."""

    runs: np.ndarray
    steps: np.ndarray
    task: Task | None
    provenance: dict[str, Any]


def _layout(shard: Shard) -> _Layout:
    header = read_header(shard.path)
    check_kind(header, "population", shard.path)
    with decoding(shard.path, "population"):
        POPULATION(header.data, "")
        architecture = checked_architecture(header.data, without_constants(header.shapes))
        dtype = _dtype(entry.dtype for entry in header.entries if entry.name in architecture.names)
    networks = header.shapes[RUN][0]
    shard.check(header.data["checksum"], networks)
    return _Layout(architecture, networks, dtype, header.data["aligned"])


def _check_alike(shard: Shard, layout: _Layout, first: _Layout) -> None:
    """Refuse networks of another architecture, precision or alignment than those of the first shard."""
    if (layout.architecture, layout.dtype, layout.aligned) == (first.architecture, first.dtype, first.aligned):
        return
    mine, others = (
        f"{part.architecture} in {part.dtype}, {'' if part.aligned else 'not '}aligned" for part in (layout, first)
    )
    raise InvalidInputError(
        f"{shard.path}: its networks are {mine}, and those of the first shard are {others}. Restore the shards from a "
        f"copy.{difference(first.architecture, layout.architecture)}"
    )


def _read_into(rows: np.ndarray, shard: Shard, architecture: Architecture) -> _Part:
    """Read the weights of a file to rows (n, d), and return everything else."""
    places = {
        parameter.name: rows[:, architecture.slices[parameter.name]].reshape(len(rows), *parameter.shape)
        for parameter in architecture.parameters
    }
    tensors, data = read(shard.path, "population", POPULATION, places)
    shard.check(data["checksum"], len(rows))
    with decoding(shard.path, "population"):
        known = checked_architecture(data, {name: array.shape for name, array in tensors.items()})
        task = unpack_task(data["task"], TASK, tensors, shard.path)
        columns = tensors[RUN], tensors[STEP]
        return _Part(known, len(rows), rows.dtype, data["aligned"], *columns, task, data["provenance"])


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
    _dtype(array.dtype for array in stacked)
    rows = np.concatenate([array.reshape(len(array), -1) for array in stacked], axis=1)
    return WeightArray(rows, architecture, runs=tensors[RUN], steps=tensors[STEP], aligned=data["aligned"])


def _dtype(dtypes: Iterable[np.dtype]) -> np.dtype:
    """Return the dtype that all weights have."""
    found = set(dtypes)
    if len(found) > 1 or any(dtype.kind != "f" for dtype in found):
        listed = ", ".join(sorted(map(str, found)))
        raise InvalidInputError(f"The weights have the dtypes {listed}, expected one kind of float.")
    return found.pop()
