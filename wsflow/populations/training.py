"""Training of a population in chunks that fit into caches and memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.devices import resolved_device
from wsflow.exceptions import InvalidInputError
from wsflow.memory import check_memory
from wsflow.parallel import side_by_side
from wsflow.populations.architectures import Networks, as_read, networks_of
from wsflow.populations.asymmetry import Asymmetry, Start, asymmetry_of, described, with_constants
from wsflow.populations.checkpoints import Checkpoint
from wsflow.populations.chunks import chunk_size as default_chunk_size
from wsflow.populations.chunks import train_chunk
from wsflow.populations.hyperparameters import Range, draw_hyperparameters, drawn_from_ranges
from wsflow.populations.population import Population, versions
from wsflow.populations.problem import Problem
from wsflow.populations.settings import OF_MODULE, PopulationSettings
from wsflow.progress import Progress, stages
from wsflow.running.compatibility import check_is_task, check_task
from wsflow.running.example_inputs import declared_input
from wsflow.task import Task, check_saved
from wsflow.weights import WeightArray


def train_population(
    task: Task,
    hidden: Sequence[int] | None = None,
    n_runs: int = 100,
    *,
    architecture: Architecture | str | None = None,
    module: Any = None,
    activation: str | None = None,
    activation_argument: float | None = None,
    image: Sequence[int] | None = None,
    initialisation: str | None = None,
    initialisation_scale: Range = 1.0,
    optimizer: str = "adam",
    learning_rate: Range = 1e-3,
    momentum: Range = 0.9,
    weight_decay: Range = 0.0,
    temperature: Range = 1.0,
    dropout: Range | None = None,
    data_fraction: Range = 1.0,
    schedule: str = "constant",
    cycles: int = 1,
    epochs: int = 50,
    steps: int | Sequence[int] | None = None,
    batch_size: int = 64,
    snapshots: int = 1,
    snapshot_every: int = 4,
    targets: Any = None,
    asymmetry: str | Asymmetry | None = None,
    anchor: bool = False,
    shared_initialisation: bool = False,
    keep_initial: bool = False,
    random_state: int = 0,
    first_run: int = 0,
    device: str = "cpu",
    chunk_size: int | None = None,
    n_jobs: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Population:
    """Train many networks at once, each from its own first weights and in its own order of the data.

    A run depends on `random_state` and its number only (to rounding), so that more runs of a seed, say held-out
    ones, can be trained later with `first_run`. `n_jobs` and `checkpoint` change nothing, to the bit.

    Parameters
    ----------
    hidden : sequence of int
        Hidden widths of perceptrons (default: 16, 16). It, `architecture` or `module` says what is trained.
    architecture : Architecture or str, optional
        One that runs, or a name of `wsflow.populations.named_architectures.NAMED_ARCHITECTURES` with sizes, such as
        ``"cnn:16,16,16"``, ``"resnet:8,16,32"``, ``"vit:32,2,4"`` or ``"siren:32,32"``.
    module : torch.nn.Module, or callable, optional
        A module that takes the task's inputs, or a function without arguments that builds one. It is read once, and not
        needed again.
    activation, initialisation, optimizer, schedule : str
        Keys of `wsflow.activations.ACTIVATIONS` (of perceptrons and named architectures),
        `wsflow.running.initialisation.INITIALISATIONS`, `wsflow.populations.OPTIMIZERS` and
        `wsflow.populations.SCHEDULES`. The initialisation ``"module"`` is that of the function that builds modules,
        called with a seed for each run, or the module's own weights. Defaults are ``"normal"`` for `hidden`,
        ``"module"`` for a function, ``"siren"`` for sirens and ``"torch"`` for everything else.
    activation_argument : float, optional
        The activation's parameter where it is not the table's default, such as the frequency of ``"sine"``.
    image : (int, int, int), optional
        Channels, height and width of the images that rows of inputs are, for named architectures.
    initialisation_scale, learning_rate, momentum, weight_decay, temperature : float, or (float, float)
        A number for all runs, or a range from which each run draws its own, log-uniformly: see
        `Population.hyperparameters`. The scale multiplies first weights, but for norms. The momentum is that of
        ``"sgd"`` and ``"sghmc"``, the temperature that of the samplers ``"sgld"`` and ``"sghmc"``, whose prior is the
        weight decay: see `wsflow.populations.optimizers`.
    dropout, data_fraction : float, or (float, float)
        Ranges are drawn uniformly. The rate of all layers of dropout (default: their own; perceptrons have them behind
        their activations), and the share of the examples that a run has, which come the more often.
    cycles : int
        Of the schedule ``"cyclical"``.
    steps : int, or (int, int), optional
        Iterations of each run, in the place of `epochs`.
    snapshots : int
        How many networks to keep of each run, or of each cycle of it: the last ones, `snapshot_every` iterations
        apart.
    snapshot_every : int
    targets : array-like of shape (n_runs, b) or (n_runs, b, k), optional
        Targets of its own for each run, instead of ``task.y`` and with the task's classes and weights: every run fits
        an image of its own, say.
    asymmetry : {"weights", "activations", "mask"} or Asymmetry, optional
        Constants that all networks have in common and that tell their neurons apart, see `wsflow.layers`: in weights,
        as gates in the place of activations, or the mask of those in weights alone, whose constants are zero. A row of
        weights holds the constants where they are, and they have no effect there.
    anchor : bool
        Whether the constants are mere first values, which are trained as all others: the control.
    shared_initialisation : bool
        Whether all runs begin with the first weights of run 0 and differ in the order of the data only: the other
        control.
    keep_initial : bool
        Whether first weights are kept as well, as networks of step 0.
    first_run : int
        Number of the first run.
    device : str
        Where to train, such as "cuda"; "auto" is the CPU. The networks come back to the CPU.
    chunk_size : int, optional
        How many networks to train at once (default: as many as keep a step within 24 MiB on a CPU, a GiB elsewhere).
    n_jobs : int, optional
        How many chunks to train side by side, in joblib's processes: those of ``joblib.parallel_config``, if any.
    checkpoint : str or Path, optional
        A folder for the chunks that are done, where every process reaches it. One training at a time writes to it, and
        it is the user's to delete.
    resume : bool
        Whether to go on with the checkpoint, if there is one.
    progress : callable, optional
        Called with the epochs done and in total, over all networks.

    Returns
    -------
    Population
        Rows by run, then by step.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or more than one says what is trained.
    InvalidInputError
        If the module cannot be read or does not fit the task, or the checkpoint is of another training, or is there and
        not to be resumed.
    NumericalError
        If a run diverges; the run and the epoch are named.

    References
    ----------
    The defaults are the protocol of Erdogan 2025, "Geometric Flow Models over Neural Network Weights".

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.populations.training import train_population
    >>> from wsflow.task import Task
    >>> task = Task(np.eye(4, dtype=np.float32), [0, 1, 0, 1])
    >>> population = train_population(task, hidden=[3], n_runs=2, epochs=5, snapshots=2, snapshot_every=1)
    >>> population.weights.shape, population.weights.runs, population.weights.steps
    ((4, 23), array([0, 0, 1, 1]), array([4, 5, 4, 5]))

    Convolutions, with a learning rate and a number of steps of its own for each run:

    >>> images = Task(np.random.default_rng(0).normal(size=(8, 1, 6, 6)), [0, 1] * 4)
    >>> population = train_population(
    ...     images, architecture="cnn:4,4", n_runs=2, steps=(5, 20), optimizer="sgd", learning_rate=(0.01, 0.1)
    ... )
    >>> population.weights.shape, list(population.hyperparameters)
    ((2, 198), ['learning_rate', 'steps'])
    """
    device = str(resolved_device(device, "train_population"))
    check_is_task(task)
    networks = networks_of(task, hidden, architecture, module, activation, activation_argument, image)
    constants = asymmetry_of(asymmetry)
    given = PopulationSettings(
        networks.hidden, networks.name, n_runs, networks.activation, activation_argument,
        initialisation or networks.initialisation, initialisation_scale, optimizer, learning_rate, momentum,
        weight_decay, temperature, dropout, data_fraction, schedule, cycles, epochs, steps, batch_size, snapshots,
        snapshot_every, random_state, first_run, device, chunk_size, described(constants), anchor,
        shared_initialisation, keep_initial,
    )  # fmt: skip
    networks, start = with_constants(networks, task, constants, anchor)
    task = as_read(task, networks.architecture)
    problem = _problem(task, targets, networks, given, start)
    _check_memory(problem)
    if resume and checkpoint is None:
        raise ValueError("There is nothing to resume without a 'checkpoint': give its folder.")
    if checkpoint is not None:
        check_saved(task)
    saved = None if checkpoint is None else Checkpoint.begin(checkpoint, _described(task, problem), resume)
    runs, size = problem.runs, problem.settings.chunk_size or 1
    chunks = [runs[start : start + size] for start in range(0, n_runs, size)]
    calls = [(problem, index, chunk, saved) for index, chunk in enumerate(chunks)]
    reports = stages(progress, *(len(chunk) * problem.epochs for chunk in chunks))
    rows = np.concatenate(list(side_by_side(_trained, calls, len(calls), n_jobs, reports, in_batches=False)))
    kept = problem.kept(problem.totals(problem.drawn(runs)))
    weights = WeightArray(rows, networks.architecture, runs=runs.repeat(kept.shape[1]), steps=kept.ravel())
    return Population(weights, task, _provenance(problem))


def _trained(
    problem: Problem,
    index: int,
    runs: np.ndarray,
    checkpoint: Checkpoint | None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the weights of a chunk, which a checkpoint may have already."""
    report = None if progress is None else lambda epoch: progress(epoch, problem.epochs)
    settings = problem.settings
    if checkpoint is None:
        return train_chunk(problem, runs, report)
    shape = (len(runs) * settings.cycles * settings.snapshots, problem.architecture.n_weights)
    weights = checkpoint.load(index, shape)
    if weights is None:
        # saved by the process that trained it, so that it is kept even if another process fails
        weights = train_chunk(problem, runs, report)
        checkpoint.save(index, weights)
    elif report is not None:
        report(problem.epochs)
    return weights


def _problem(
    task: Task, targets: Any, networks: Networks, settings: PopulationSettings, start: Start | None
) -> Problem:
    architecture = networks.architecture
    X = _cast(task.X, architecture)
    size = settings.chunk_size or default_chunk_size(architecture, X, settings.batch_size, settings.device)
    settings = replace(settings, chunk_size=size)
    if targets is None:
        y, weights = task.targets, task.weights
    else:
        own = _own_tasks(task, targets, architecture, settings.n_runs)
        y = np.stack([each.targets for each in own])
        weights = None if task.weights is None else np.stack([each.weights for each in own if each.weights is not None])
    if weights is not None:
        # an example that no run gives a weight is left out
        kept = weights > 0 if targets is None else (weights > 0).any(0)
        X, y, weights = X[kept], y[kept] if targets is None else y[:, kept], weights[..., kept]
    # the program does without the module, which other processes might not know
    runnable = architecture if architecture.program is None else replace(architecture, module=None)
    problem = Problem(X, y, targets is not None, task.loss, runnable, settings, weights, None, start)
    if settings.initialisation != OF_MODULE:
        return problem
    first = networks if start is None else replace(networks, architecture=start.plain)
    return replace(problem, initial=first.initial([problem.stream(run)[1] for run in problem.runs]))


def _cast(X: np.ndarray, architecture: Architecture) -> np.ndarray:
    """Return inputs as reals, but for networks that read integers, such as tokens."""
    known = declared_input(architecture)
    reads_reals = known is not None and known.dtype == "weights"
    return X.astype(np.float32) if X.dtype.kind != "f" and reads_reals else X


def _own_tasks(task: Task, targets: Any, architecture: Architecture, n_runs: int) -> list[Task]:
    """Return the task with the targets of each run."""
    y = np.asarray(targets)
    if y.shape[:2] != (n_runs, len(task.X)):
        raise InvalidInputError(
            f"The 'targets' of {n_runs} runs on {len(task.X)} examples have shape ({n_runs}, {len(task.X)}) "
            f"or ({n_runs}, {len(task.X)}, k), got {y.shape}."
        )
    classes = task.classes_ if task.is_classification else None
    tasks = [replace(task, y=row, validation=None, test=None, classes=classes) for row in y]
    outputs = check_task(architecture, task)
    for own in tasks:
        if outputs is None or not own.takes(outputs):
            check_task(architecture, own)
    return tasks


def _described(task: Task, problem: Problem) -> dict[str, Any]:
    """Return what the networks depend on, as JSON data."""
    checksums = {"data": task.checksum, "targets": _targets_checksum(problem), "initial": _checksum(problem.initial)}
    checksums["networks"] = hashlib.sha256(problem.architecture.to_json().encode()).hexdigest()
    return {**problem.settings.plain(), **checksums, "versions": versions("torch", "numpy")}


def _targets_checksum(problem: Problem) -> str | None:
    return _checksum(problem.y if problem.own_targets else None)


def _checksum(array: np.ndarray | None) -> str | None:
    return None if array is None else hashlib.sha256(array.tobytes()).hexdigest()


def _provenance(problem: Problem) -> dict[str, Any]:
    settings, runs = problem.settings, problem.runs
    drawn = draw_hyperparameters(settings.ranges(), settings.random_state, runs)
    own = {"hyperparameters": drawn_from_ranges(settings.ranges(), drawn, runs), "targets": _targets_checksum(problem)}
    plain = {"made_by": "train_population", **settings.plain(), "versions": versions("torch")}
    return {**plain, **{name: value for name, value in own.items() if value}}


def _check_memory(problem: Problem) -> None:
    settings, d = problem.settings, problem.architecture.n_weights
    n_runs, snapshots = settings.n_runs, settings.snapshots * settings.cycles + settings.keep_initial
    check_memory(
        f"{n_runs} runs of {snapshots} snapshots of {d} weights",
        4 * n_runs * snapshots * d,
        "Lower the number of runs or of snapshots.",
    )
    check_memory(
        f"Weights, gradients and moments of {(size := min(settings.chunk_size or 1, n_runs))} runs at once",
        4 * 4 * size * d,
        "Lower 'chunk_size'.",
    )
    steps = settings.iterations(len(problem.X))
    check_memory(f"The learning rates of {steps} steps", 8 * steps, "Lower the number of epochs.")
