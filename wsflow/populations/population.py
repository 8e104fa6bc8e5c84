"""Population: networks, the task that they are for, and where they came from; those that are not finite are named."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np

from wsflow import __version__
from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.mapped import finite_rows
from wsflow.representation import html_table, rows_about, summary
from wsflow.schema import label, list_of, mapping
from wsflow.task import Task
from wsflow.weights import WeightArray

# the runs, and a number or a text for each of them; of properties, the runs and the steps
KNOWN = mapping(list_of(label))
ON_INVALID = ("error", "drop")


@dataclass(frozen=True, eq=False)
class Population:
    """The networks of one architecture, with their task and their provenance.

    Parameters
    ----------
    weights : WeightArray of shape (n, d)
        The networks, with the run and the step of each.
    task : Task, optional
        What they were trained for.
    provenance : dict
        How they came about, as JSON data.

    Raises
    ------
    InvalidInputError
        If `weights` is a plain array, or the task's inputs or outputs do not fit the architecture.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.populations import Population
    >>> from wsflow.weights import WeightArray
    >>> print(Population(WeightArray(np.zeros((5, 23)), Architecture.mlp([4, 3, 2]))))
    5 networks 4-3-2 relu (23 weights) of 5 runs
    """

    weights: WeightArray
    task: Task | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.weights, WeightArray):
            raise InvalidInputError(
                f"The 'weights' of a Population are a WeightArray, got {type(self.weights).__name__}. "
                "Build one with WeightArray(array, architecture)."
            )
        if self.task is not None:
            # loads torch, which the command line's choices do without
            from wsflow.running.compatibility import check_task

            check_task(self.weights.architecture, self.task)

    @property
    def architecture(self) -> Architecture:
        """The architecture of the networks."""
        return self.weights.architecture

    @property
    def n_runs(self) -> int:
        """The number of training runs."""
        return len(set(self.weights.runs.tolist()))

    @property
    def hyperparameters(self) -> dict[str, np.ndarray]:
        """The hyperparameters in which runs differ: name -> array of shape (n,), one number or text for each network.

        Empty if all runs share their settings.
        """
        drawn = {name: np.asarray(values) for name, values in self._known("hyperparameters").items()}
        return {name: a if a.dtype.kind == "U" else a.astype(np.float64) for name, a in drawn.items()}

    @property
    def properties(self) -> dict[str, np.ndarray]:
        """What else is known of each network: name -> array of shape (n,), such as its accuracy, or its split in a zoo.

        Empty if nothing is.
        """
        return {name: np.asarray(values) for name, values in self._known("properties", "step").items()}

    @property
    def labels(self) -> np.ndarray | None:
        """The label (n,) of each network, such as the class of the image that its run was trained on; None without."""
        known = self._known("labels")
        return np.asarray(known["label"]) if "label" in known else None

    def _known(self, what: str, *further: str) -> dict[str, list[Any]]:
        """Return what the provenance has of runs, or of their steps, by its names: a value for each network."""
        known = self.provenance.get(what, {})
        try:
            KNOWN(known, f"provenance.{what}")
        except ValueError as error:
            raise InvalidInputError(f"{error} Give them yourself.") from error
        known = dict(known)
        keys = [known.pop(name, ()) for name in ("run", *further)]
        positions = {key: i for i, key in enumerate(zip(*keys, strict=False))}
        columns = [self.weights.runs.tolist(), *([self.weights.steps.tolist()] if further else [])]
        networks = list(zip(*columns, strict=True))
        if known and (unknown := next((key for key in networks if key not in positions), None)) is not None:
            where = " at step ".join(map(str, unknown))
            raise InvalidInputError(
                f"The provenance has no {what} of run {where}. Give the population the provenance of all its runs, "
                "or give them yourself."
            )
        if short := [name for name, values in known.items() if len(values) < len(positions)]:
            raise InvalidInputError(f"The provenance has fewer values of {short[0]!r} than runs: give them yourself.")
        return {name: [values[positions[key]] for key in networks] for name, values in known.items()}

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of networks and of weights; with it, scikit-learn splits a population as it does an array."""
        return self.weights.shape

    def __getitem__(self, rows: Any) -> Population:
        """Return the population of some of the networks, chosen by rows as of a `WeightArray`."""
        weights = self.weights[rows]
        if not isinstance(weights, WeightArray):
            raise InvalidInputError(
                f"A Population is indexed by rows, such as population[:10], got {rows!r:.60}. Its numbers are in "
                "population.weights, and wsflow.concatenate joins populations."
            )
        return Population(weights, self.task, self.provenance)

    def iter_runs(self) -> Iterator[tuple[int, WeightArray]]:
        """Yield the number of each run, in order, and its networks by step, of which one run's are in memory.

        Examples
        --------
        >>> import wsflow
        >>> population = wsflow.train_population(wsflow.load_task("iris"), (3,), 2, epochs=1, snapshots=2)
        >>> [(run, len(networks)) for run, networks in population.iter_runs()]
        [(0, 2), (1, 2)]
        """
        order = np.lexsort((self.weights.steps, self.weights.runs))
        numbers, starts = np.unique(self.weights.runs[order], return_index=True)
        for number, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            yield number, self.weights[rows]

    def __len__(self) -> int:
        return len(self.weights)

    def __str__(self) -> str:
        return f"{len(self)} networks {self.architecture} of {self.n_runs} runs"

    def __repr__(self) -> str:
        return f"<Population: {self}>"

    def _repr_html_(self) -> str:
        known = {name: summary(value) for name, value in self.provenance.items() if value is not None}
        rows = [*rows_about(self.weights), ("task", described(self.task)), *known.items()]
        return html_table("Population", rows)


def described(task: Task | None) -> str:
    """Describe a task in a line: its name, its sizes and its loss."""
    if task is None:
        return "none"
    name = task.source.get("name") or task.source.get("path") or "of one's own data"
    loss = getattr(task.loss, "__name__", task.loss)
    return f"{name}: {len(task.X)} examples, {task.n_inputs} inputs, {task.n_outputs} outputs, {loss}"


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of wsflow and of other installed packages, without importing them."""
    return {"wsflow": __version__, **{package: _installed(package) for package in packages}}


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def check_on_invalid(on_invalid: str, owner: str) -> None:
    """Refuse other values of the parameter `on_invalid` of `owner`."""
    if on_invalid not in ON_INVALID:
        raise ValueError(f"The 'on_invalid' of {owner} is 'error' or 'drop', got {on_invalid!r}.")


def not_finite(weights: WeightArray, names: Sequence[str] | None = None) -> str:
    """Name the first network with a weight that is not finite, and its parameter; empty where all are finite."""
    good = finite_rows(np.asarray(weights))
    if good.all():
        return ""
    count, row = int((~good).sum()), int(np.argmin(good))
    parameter, _ = weights.architecture.locate(int(np.argmin(np.isfinite(np.asarray(weights)[row]))))
    name = f"network {row}" if names is None else names[row]
    more = f" ({count} of {len(weights)} networks have such weights)" if count > 1 else ""
    return f"{name} has a weight in {parameter!r} that is not finite{more}"


def check_finite(
    weights: WeightArray, on_invalid: str, where: str = "", names: Sequence[str] | None = None
) -> WeightArray:
    """Return the networks whose weights are all finite; others are an error, or dropped with a warning."""
    problem = not_finite(weights, names)
    if not problem:
        return weights
    good = finite_rows(np.asarray(weights))
    begin = f"{where}: " if where else ""
    if on_invalid == "drop" and good.any():
        count = int((~good).sum())
        warnings.warn(f"{begin}{count} of {len(weights)} networks were dropped, not being finite.", stacklevel=3)
        kept: WeightArray = weights[good]
        return kept
    remedy = "Drop such networks with on_invalid='drop'" if good.any() else "No network is left: train them again"
    raise InvalidInputError(f"{begin}{problem}. {remedy}.")
