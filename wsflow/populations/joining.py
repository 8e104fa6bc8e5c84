"""Joining populations: networks of one architecture and task, with the runs of each told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wsflow.architecture.fixed_entries import difference
from wsflow.exceptions import InvalidInputError
from wsflow.populations.population import Population
from wsflow.weights import WeightArray

RUNS = ("distinct", "shared")
# what a population knows, and by which keys
KEYS = {"hyperparameters": ("run",), "labels": ("run",), "properties": ("run", "step")}


def concatenate(populations: Sequence[Any], *, runs: str = "distinct") -> Any:
    """Join populations, or arrays of weights, one after the other.

    Parameters
    ----------
    populations : sequence of Population, or of WeightArray
        Of one architecture, and populations of one task.
    runs : {"distinct", "shared"}
        What a number of a run means that occurs in two of them. "distinct": two runs, and all runs of the later
        population get new numbers, in their order, behind those before; the first population keeps its own.
        "shared": one run, for parts of one population; ``np.concatenate`` of arrays does the same.

    Returns
    -------
    Population or WeightArray
        Aligned if all of them are. The provenance of a population has those of all under ``"joined"``.

    Raises
    ------
    InvalidInputError
        If there is none, they are of different kinds, architectures or tasks, or parts of one population, which have
        a network of one run in common, are joined as distinct.

    Examples
    --------
    >>> import numpy as np
    >>> import wsflow
    >>> architecture = wsflow.Architecture.mlp([4, 3, 2])
    >>> first, second = (wsflow.WeightArray(np.full((3, 23), x), architecture) for x in (0.1, 0.2))
    >>> wsflow.concatenate([first, second]).runs
    array([0, 1, 2, 3, 4, 5])
    >>> np.concatenate([first, second]).runs
    array([0, 1, 2, 0, 1, 2])
    """
    if runs not in RUNS:
        raise ValueError(f"The 'runs' of concatenate are one of {', '.join(map(repr, RUNS))}, got {runs!r}.")
    populations = list(populations) if isinstance(populations, Iterable) else [populations]
    arrays = [p.weights if isinstance(p, Population) else p for p in populations]
    if not arrays or not all(isinstance(a, WeightArray) for a in arrays):
        found = ", ".join(sorted({type(a).__name__ for a in arrays})) or "nothing"
        raise InvalidInputError(f"wsflow.concatenate joins a list of Populations or of WeightArrays, got {found}.")
    if len({isinstance(p, Population) for p in populations}) > 1:
        raise InvalidInputError(
            "A Population has a task, and a WeightArray has none: join the weights of all, such as population.weights."
        )
    _check_architectures(arrays)
    numbers = [a.runs for a in arrays] if runs == "shared" else _distinct(arrays)
    joined = WeightArray(
        np.concatenate([np.asarray(a) for a in arrays]),
        arrays[0].architecture,
        runs=np.concatenate(numbers),
        steps=np.concatenate([a.steps for a in arrays]),
        aligned=all(a.aligned for a in arrays),
    )
    if not isinstance(populations[0], Population):
        return joined
    return Population(joined, _task(populations), _provenance(populations, numbers))


def _check_architectures(arrays: Sequence[WeightArray]) -> None:
    other = next((a for a in arrays if a.architecture != arrays[0].architecture), None)
    if other is not None:
        raise InvalidInputError(
            f"Networks {arrays[0].architecture} and {other.architecture} are of different architectures: join "
            f"populations of one.{difference(arrays[0].architecture, other.architecture)}"
        )


def _distinct(arrays: Sequence[WeightArray]) -> list[np.ndarray]:
    """Return the runs of each array, numbered anew where one of its numbers occurred before."""
    numbers = [arrays[0].runs]
    for i, array in enumerate(arrays[1:], start=1):
        known = np.concatenate(numbers)
        shared = np.intersect1d(array.runs, np.concatenate([a.runs for a in arrays[:i]]))
        _check_parts(arrays[:i], array, shared)
        if len(shared) or len(np.intersect1d(array.runs, known)):
            own, position = np.unique(array.runs, return_inverse=True)
            # behind all known ones, or before them where there are none behind
            last, n = int(known.max()), len(own)
            first = last + 1 if last + n < 2**63 else int(known.min()) - n
            numbers.append(first + np.arange(n)[position])
        else:
            numbers.append(array.runs)
    return numbers


def _check_parts(arrays: Sequence[WeightArray], array: WeightArray, shared: np.ndarray) -> None:
    """Refuse an array that has, under one number of a run, a network of an array before."""
    known = {(run, row.tobytes()) for a in arrays for run, row in _rows_of(a, shared)}
    parts = next((run for run, row in _rows_of(array, shared) if (run, row.tobytes()) in known), None)
    if parts is not None:
        raise InvalidInputError(
            f"A network of run {parts} is in two of the populations that are to be joined, so they are parts of one. "
            "Pass runs='shared', so that a number means the same run in both."
        )


def _rows_of(array: WeightArray, runs: np.ndarray) -> list[tuple[int, np.ndarray]]:
    rows = np.flatnonzero(np.isin(array.runs, runs))
    return [(int(array.runs[i]), np.asarray(array[i], dtype=np.float64)) for i in rows]


def _task(populations: Sequence[Population]) -> Any:
    tasks = [p.task for p in populations]
    if len({None if task is None else task.checksum for task in tasks}) > 1:
        raise InvalidInputError(
            "These populations are not all of one task: join their weights, [p.weights for p in populations], or give "
            "them the same task."
        )
    return tasks[0]


def _provenance(populations: Sequence[Population], numbers: Sequence[np.ndarray]) -> dict[str, Any]:
    joined: dict[str, Any] = {"joined": [p.provenance for p in populations]}
    for what, keys in KEYS.items():
        known = [_by_keys(p, what, runs, len(keys)) for p, runs in zip(populations, numbers, strict=True)]
        if known[0] and all(columns.keys() == known[0].keys() for columns in known):
            rows = {row[: len(keys)]: row for columns in known for row in zip(*columns.values(), strict=True)}
            values = zip(*rows.values(), strict=True)
            joined[what] = dict(zip(known[0], map(list, values), strict=True))
    return joined


def _by_keys(population: Population, what: str, runs: np.ndarray, n_keys: int) -> dict[str, list[Any]]:
    """Return what is known of a population's runs, or of their steps, by the numbers of the runs in the joined one."""
    found = getattr(population, what)
    columns = {"label": found} if isinstance(found, np.ndarray) else found
    keys = {"run": runs, "step": population.weights.steps}
    used = dict(list(keys.items())[:n_keys])
    first = np.unique(np.stack(list(used.values())), axis=1, return_index=True)[1]
    return {name: v[first].tolist() for name, v in (used | columns).items()} if columns else {}
