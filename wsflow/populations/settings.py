"""The settings of a training, checked, as plain values that can be written down and compared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from wsflow.activations import activation as row
from wsflow.architecture import Architecture
from wsflow.architecture.sequential import mlp_layers
from wsflow.populations.hyperparameters import RANGES, Range, check_range
from wsflow.populations.optimizers import OPTIMIZERS
from wsflow.populations.schedules import SCHEDULES, snapshot_steps
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.task import Task

DEFAULT_HIDDEN = (16, 16)
# the first weights are those of the module
OF_MODULE = "module"
TABLES: dict[str, Collection[str]] = {
    "initialisation": (*INITIALISATIONS, OF_MODULE),
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
COUNTS = ("n_runs", "cycles", "epochs", "batch_size", "snapshots", "snapshot_every", "chunk_size")
OPTIONAL = ("chunk_size",)
NUMBERS = ("random_state", "first_run")


@dataclass(frozen=True)
class PopulationSettings:
    """The parameters of `wsflow.train_population`, which explains them."""

    hidden: tuple[int, ...] | None
    architecture: str | None
    n_runs: int
    activation: str | None
    activation_argument: float | None
    initialisation: str
    initialisation_scale: Range
    optimizer: str
    learning_rate: Range
    momentum: Range
    weight_decay: Range
    temperature: Range
    dropout: Range | None
    data_fraction: Range
    schedule: str
    cycles: int
    epochs: int
    steps: Any
    batch_size: int
    snapshots: int
    snapshot_every: int
    random_state: int
    first_run: int
    device: str
    chunk_size: int | None
    asymmetry: Any = None
    anchor: bool = False
    shared_initialisation: bool = False
    keep_initial: bool = False

    def __post_init__(self) -> None:
        for name in (*COUNTS, *NUMBERS):
            value, minimum = getattr(self, name), int(name in COUNTS)
            if value is None and name in OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
                raise ValueError(
                    f"The {name!r} of train_population is an integer of at least {minimum}, got {value!r}."
                )
        for name in RANGES:
            object.__setattr__(self, name, check_range(name, getattr(self, name)))
        for name, table in TABLES.items():
            if getattr(self, name) not in table:
                choices = ", ".join(sorted(table))
                raise ValueError(f"The {name!r} of train_population is one of {choices}; got {getattr(self, name)!r}.")
        if self.cycles > 1 and not SCHEDULES[self.schedule].cycles:
            raise ValueError(
                f"The schedule {self.schedule!r} has one cycle, and 'cycles' is {self.cycles}. "
                "Choose schedule='cyclical'."
            )

    def ranges(self) -> dict[str, Any]:
        """Return the hyperparameters that runs may draw."""
        return {name: getattr(self, name) for name in RANGES}

    def iterations(self, n_examples: int) -> int:
        """Count the steps that the longest run takes."""
        if self.steps is None:
            return self.epochs * -(-n_examples // self.batch_size)
        return int(np.max(self.steps))

    def kept(self, total: int) -> list[int]:
        """Return the iterations, of so many, after which snapshots are taken; the last is the end of training."""
        first = [0] if self.keep_initial else []
        return first + snapshot_steps(self.cycles, total, self.snapshots, self.snapshot_every)

    def plain(self) -> dict[str, Any]:
        """Return the settings as JSON data."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def architecture_of(
    task: Task, hidden: tuple[int, ...], activation: str, argument: float | None = None
) -> Architecture:
    """Return the architecture of networks for a task, with the activation's parameter if it is not the default."""
    layers = mlp_layers([task.n_inputs, *hidden, task.n_outputs], activation, bias=True)
    if argument is None:
        return Architecture.sequential(layers)
    if not row(activation).argument:
        raise ValueError(
            f"The activation {activation!r} takes no 'activation_argument', got {argument!r}: leave it out."
        )
    return Architecture.sequential(
        [replace(layer, argument=float(argument)) if layer.kind == activation else layer for layer in layers]
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
