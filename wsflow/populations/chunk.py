"""One chunk of a population: one tensor of weights, one optimizer, a batch of its own for each network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.exceptions import NumericalError
from wsflow.populations.hyperparameters import Runs, draw
from wsflow.populations.optimizers import OPTIMIZERS, Rates
from wsflow.populations.schedules import factors
from wsflow.populations.settings import Settings
from wsflow.running import forward, losses
from wsflow.running.initialisation import INITIALISATIONS

# what is asked of the chunk: on a CPU it should stay in the caches, on a GPU it should keep the cores busy
ACTIVATION_BYTES = {"cpu": 24 * 2**20, "cuda": 1024 * 2**20}
NOISE_STREAM = 1  # beside the stream of initial weights and order of the data, and that of the hyperparameters


@dataclass(frozen=True)
class Problem:
    """What all chunks of a training have in common, as plain arrays that go to other processes.

    Parameters
    ----------
    X : ndarray of shape (b, p)
        Inputs, in the precision of the training.
    y : ndarray of shape (b,) or (b, k), or (runs, b) or (runs, b, k) with `own_targets`
        Targets, the same for all runs or those of each.
    own_targets : bool
    loss : {"cross_entropy", "mse"}
    architecture : Architecture
    settings : Settings
    """

    X: np.ndarray
    y: np.ndarray
    own_targets: bool
    loss: str
    architecture: Architecture
    settings: Settings


def chunk_size(architecture: Architecture, batch_size: int, device: str) -> int:
    """How many networks to train at once.

    Parameters
    ----------
    architecture : Architecture
    batch_size : int
    device : str

    Returns
    -------
    int
        As many as keep inputs, activations and gradients of a step in `ACTIVATION_BYTES`.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.populations.chunk import chunk_size
    >>> chunk_size(Architecture.mlp([30, 16, 16, 2]), 64, "cpu") > 10 * chunk_size(
    ...     Architecture.mlp([784, 100, 10]), 64, "cpu"
    ... )
    True
    """
    widths = sum(layer.inputs + layer.outputs for layer in architecture.layers)
    # every activation of the forward pass, what backpropagation makes of it, and the indices of the batch
    each = batch_size * (4 * 4 * widths + 8)
    return max(1, ACTIVATION_BYTES.get(torch.device(device).type, ACTIVATION_BYTES["cuda"]) // each)


def train_chunk(problem: Problem, runs: Runs, report: Callable[[int], None] | None = None) -> np.ndarray:
    """Train the networks of some runs at once.

    Parameters
    ----------
    problem : Problem
    runs : sequence of int
        Their numbers.
    report : callable, optional
        Called with the number of epochs done.

    Returns
    -------
    ndarray of shape (len(runs) * snapshots, d)
        By run, then by step.

    Raises
    ------
    NumericalError
        If a run diverges.
    """
    settings = problem.settings
    streams = [np.random.default_rng((settings.random_state, int(run))) for run in runs]
    batches = _Batches(problem, runs)
    weights = _initial(problem.architecture, settings, streams).to(batches.X).requires_grad_()
    mover = _Mover(problem, weights, runs)
    steps = settings.steps(len(problem.X))
    kept: dict[int, np.ndarray] = {}
    for epoch in range(1, settings.epochs + 1):
        order = np.stack([stream.permutation(len(problem.X)) for stream in streams])
        for inputs, targets in batches.of(torch.from_numpy(order)):
            loss = losses(forward(weights, problem.architecture, inputs), targets, problem.loss).sum()
            (gradient,) = torch.autograd.grad(loss, weights)
            mover(gradient)
            if mover.step in steps:
                kept[mover.step] = weights.detach().to("cpu", copy=True).numpy()
        _check_finite(weights, runs, epoch)
        if report is not None:
            report(epoch)
    return np.stack([kept[step] for step in steps], axis=1).reshape(-1, problem.architecture.n_weights)


class _Batches:
    """The minibatches of each network, gathered into memory that is used again."""

    def __init__(self, problem: Problem, runs: Runs) -> None:
        device, batch = problem.settings.device, min(problem.settings.batch_size, len(problem.X))
        self.size = batch
        self.X = torch.tensor(problem.X, device=device)
        own = np.asarray(runs) - problem.settings.first_run
        y = torch.tensor(problem.y[own] if problem.own_targets else problem.y, device=device)
        self.y = y.flatten(0, 1) if problem.own_targets else y
        # where the targets of each run begin
        self.offset = torch.arange(len(runs), device=device)[:, None] * (len(problem.X) if problem.own_targets else 0)
        self.memory = self.X.new_empty(len(runs) * batch, self.X.shape[1])

    def of(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in torch.split(order.to(self.X.device), self.size, dim=1):
            rows = batch.reshape(-1)
            # a quarter of the time of X[batch]
            inputs = torch.index_select(self.X, 0, rows, out=self.memory[: len(rows)])
            targets = self.y.index_select(0, (batch + self.offset).reshape(-1))
            yield inputs.view(*batch.shape, -1), targets.view(*batch.shape, *self.y.shape[1:])


class _Mover:
    """The optimizer of a chunk, with the rates of each network and step."""

    def __init__(self, problem: Problem, weights: Tensor, runs: Runs) -> None:
        settings = problem.settings
        self.row = OPTIMIZERS[settings.optimizer]
        self.weights = weights.detach()
        self.memory = [torch.zeros_like(self.weights) for _ in range(self.row.memory)]
        drawn = self.weights.new_tensor(draw(settings.ranges(), settings.random_state, runs))
        self.rate, self.momentum, self.decay, self.temperature = drawn.split(1, dim=1)
        self.temperature = self.temperature / len(problem.X)
        self.factors = factors(settings.schedule, settings.cycles, settings.iterations(len(problem.X)))
        self.noise = _Noise(self.weights, settings.random_state, runs)
        self.decays, self.step = bool(self.decay.any()), 0

    def __call__(self, gradient: Tensor) -> None:
        if self.decays:
            gradient.addcmul_(self.weights, self.decay)
        rate = self.rate * float(self.factors[self.step])
        self.step += 1
        self.row.update(
            self.weights, gradient, self.memory, Rates(self.step, rate, self.momentum, self.temperature, self.noise)
        )


class _Noise:
    """Standard normal numbers, each row from the stream of its run."""

    def __init__(self, weights: Tensor, random_state: int, runs: Runs) -> None:
        self.streams = [np.random.default_rng((random_state, int(run), NOISE_STREAM)) for run in runs]
        self.like = weights
        self.memory = np.empty(weights.shape, dtype=np.float64 if weights.dtype == torch.float64 else np.float32)

    def __call__(self) -> Tensor:
        for stream, row in zip(self.streams, self.memory, strict=True):
            stream.standard_normal(dtype=self.memory.dtype.type, out=row)
        return torch.from_numpy(self.memory).to(self.like)


def _initial(architecture: Architecture, settings: Settings, streams: Sequence[np.random.Generator]) -> Tensor:
    scheme = INITIALISATIONS[settings.initialisation]
    # drawn on the CPU, so that a run starts from the same weights on every device
    seeds = [int(stream.integers(2**63)) for stream in streams]
    return torch.cat([scheme(architecture, 1, torch.Generator().manual_seed(seed)) for seed in seeds])


def _check_finite(weights: Tensor, runs: Runs, epoch: int) -> None:
    bad = ~weights.detach().isfinite().all(dim=1).cpu().numpy()
    if bad.any():
        more = f" (and {bad.sum() - 1} more)" if bad.sum() > 1 else ""
        raise NumericalError(
            f"Run {np.asarray(runs)[bad][0]}{more} diverged in epoch {epoch}: its weights are not finite. "
            "Lower the learning rate, or check the scale of the task's inputs."
        )
