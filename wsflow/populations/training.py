"""Training of many networks at once: one tensor of weights, one optimizer, a batch of its own for each network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.initialisation import INITIALISATIONS
from wsflow.networks import forward, losses
from wsflow.populations.optimizers import OPTIMIZERS
from wsflow.populations.population import Population, versions
from wsflow.task import Task
from wsflow.weights import WeightArray

ACTIVATION_BYTES = 512 * 2**20
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Settings:
    hidden: tuple[int, ...]
    n_runs: int
    activation: str
    initialisation: str
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    epochs: int
    batch_size: int
    snapshots: int
    snapshot_every: int
    random_state: int
    first_run: int
    device: str
    chunk_size: int | None

    def __post_init__(self) -> None:
        counts = ("n_runs", "epochs", "batch_size", "snapshots", "snapshot_every")
        for name in (*counts, "random_state", "first_run"):
            _check_integer(name, getattr(self, name), minimum=1 if name in counts else 0)
        if self.chunk_size is not None:
            _check_integer("chunk_size", self.chunk_size, minimum=1)
        for name in ("learning_rate", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"The {name!r} of train_population is not negative, got {getattr(self, name)!r}.")
        for name, table in (("optimizer", OPTIMIZERS), ("initialisation", INITIALISATIONS)):
            if getattr(self, name) not in table:
                choices = ", ".join(sorted(table))
                raise ValueError(f"The {name!r} of train_population is one of {choices}; got {getattr(self, name)!r}.")

    def steps(self, n_examples: int) -> list[int]:
        """The iterations at which snapshots are taken; the last is the end of training."""
        total = self.epochs * -(-n_examples // self.batch_size)
        first = total - (self.snapshots - 1) * self.snapshot_every
        if first < 1:
            raise ValueError(
                f"{self.snapshots} snapshots {self.snapshot_every} iterations apart do not fit into {total} "
                "iterations. Lower 'snapshots' or 'snapshot_every', or raise 'epochs'."
            )
        return list(range(first, total + 1, self.snapshot_every))


def train_population(
    task: Task,
    hidden: Sequence[int] = (16, 16),
    n_runs: int = 100,
    *,
    activation: str = "relu",
    initialisation: str = "normal",
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    epochs: int = 50,
    batch_size: int = 64,
    snapshots: int = 1,
    snapshot_every: int = 4,
    random_state: int = 0,
    first_run: int = 0,
    device: str = "cpu",
    chunk_size: int | None = None,
    progress: Progress | None = None,
) -> Population:
    """Train many MLPs at once, each from its own initial weights and in its own order of the data.

    A run depends on `random_state` and its number only (to rounding), so that more runs of a seed, say held-out
    ones, can be trained later with `first_run`.

    Parameters
    ----------
    task : Task
    hidden : sequence of int
        Hidden widths.
    n_runs : int
    activation, initialisation, optimizer : str
        Keys of `wsflow.activations.ACTIVATIONS`, `wsflow.initialisation.INITIALISATIONS` and
        `wsflow.populations.OPTIMIZERS`.
    learning_rate, momentum, weight_decay : float
        The momentum is that of ``"sgd"``.
    epochs, batch_size : int
    snapshots : int
        How many networks to keep of each run: the last ones, `snapshot_every` iterations apart.
    snapshot_every : int
    random_state : int
    first_run : int
        Number of the first run.
    device : str
        Where to train; the networks come back to the CPU.
    chunk_size : int, optional
        How many networks to train at once (default: as many as keep their activations below 512 MiB).
    progress : callable, optional
        Called with the epochs done and in total, over all networks.

    Returns
    -------
    Population
        Rows by run, then by step.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
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
    """
    settings = _Settings(
        tuple(hidden), n_runs, activation, initialisation, optimizer, learning_rate, momentum, weight_decay, epochs,
        batch_size, snapshots, snapshot_every, random_state, first_run, device, chunk_size,
    )  # fmt: skip
    architecture = Architecture.mlp([task.n_inputs, *hidden, task.n_outputs], activation)
    steps = settings.steps(len(task.X))
    _check_memory(n_runs, snapshots, architecture)
    runs = np.arange(first_run, first_run + n_runs)
    size = chunk_size or _chunk_size(architecture, min(batch_size, len(task.X)))
    chunks = []
    for start in range(0, n_runs, size):
        report = _reporter(progress, start, min(size, n_runs - start), settings)
        chunks.append(_train(task, architecture, settings, runs[start : start + size], steps, report))
    weights = WeightArray(
        np.concatenate(chunks), architecture, runs=runs.repeat(snapshots), steps=np.tile(steps, n_runs)
    )
    return Population(weights, task, _provenance(settings))


def _train(
    task: Task,
    architecture: Architecture,
    settings: _Settings,
    runs: np.ndarray,
    steps: Sequence[int],
    report: Callable[[int], None],
) -> np.ndarray:
    streams = [np.random.default_rng((settings.random_state, int(run))) for run in runs]
    X, y = (torch.tensor(array, device=settings.device) for array in (task.X, task.y))
    weights = _initial(architecture, settings, streams).to(X).requires_grad_()
    optimizer = OPTIMIZERS[settings.optimizer].build(
        weights, settings.learning_rate, settings.momentum, settings.weight_decay
    )
    kept: dict[int, np.ndarray] = {}
    step = 0
    for epoch in range(1, settings.epochs + 1):
        order = torch.from_numpy(np.stack([stream.permutation(len(X)) for stream in streams])).to(X.device)
        for batch in torch.split(order, settings.batch_size, dim=1):
            loss = losses(forward(weights, architecture, X[batch]), y[batch], task.loss).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            step += 1
            if step in steps:
                kept[step] = weights.detach().to("cpu", copy=True).numpy()
        _check_finite(weights, runs, epoch)
        report(epoch)
    return np.stack([kept[step] for step in steps], axis=1).reshape(-1, architecture.n_weights)


def _initial(architecture: Architecture, settings: _Settings, streams: Sequence[np.random.Generator]) -> Tensor:
    draw = INITIALISATIONS[settings.initialisation]
    # drawn on the CPU, so that a run starts from the same weights on every device
    seeds = [int(stream.integers(2**63)) for stream in streams]
    return torch.cat([draw(architecture, 1, torch.Generator().manual_seed(seed)) for seed in seeds])


def _check_finite(weights: Tensor, runs: np.ndarray, epoch: int) -> None:
    bad = ~weights.detach().isfinite().all(dim=1).cpu().numpy()
    if bad.any():
        more = f" (and {bad.sum() - 1} more)" if bad.sum() > 1 else ""
        raise NumericalError(
            f"Run {runs[bad][0]}{more} diverged in epoch {epoch}: its weights are not finite. "
            "Lower the learning rate, or check the scale of the task's inputs."
        )


def _reporter(progress: Progress | None, start: int, size: int, settings: _Settings) -> Callable[[int], None]:
    def report(epoch: int) -> None:
        if progress is not None:
            progress(start * settings.epochs + size * epoch, settings.n_runs * settings.epochs)

    return report


def _chunk_size(architecture: Architecture, batch_size: int) -> int:
    widths = sum(layer.inputs + layer.outputs for layer in architecture.layers)
    # every activation of the forward pass, what backpropagation makes of it, and the indices of the batch
    return max(1, ACTIVATION_BYTES // (batch_size * (4 * 4 * widths + 8)))


def _check_memory(n_runs: int, snapshots: int, architecture: Architecture) -> None:
    size = 4 * n_runs * snapshots * architecture.n_weights
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else size
    if size > available:
        raise InvalidInputError(
            f"{n_runs} runs of {snapshots} snapshots are {size / 2**30:.0f} GiB of weights, and this machine has "
            f"{available / 2**30:.0f} GiB of memory. Lower the number of runs or of snapshots."
        )


def _check_integer(name: str, value: Any, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"The {name!r} of train_population is an integer of at least {minimum}, got {value!r}.")


def _provenance(settings: _Settings) -> dict[str, Any]:
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in asdict(settings).items()}
    plain["hidden"] = [int(width) for width in settings.hidden]
    return {"made_by": "train_population", **plain, "versions": versions("torch")}
