"""Task: what the networks are for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.architecture.sequential import LINEAR
from wsflow.exceptions import InvalidInputError

LOSSES = ("cross_entropy", "mse")


@dataclass(frozen=True, eq=False)
class Task:
    """Inputs, targets and a loss.

    Parameters
    ----------
    X : array-like of shape (b, p) or (b, ...)
        Inputs, scaled as the networks expect them: features, images (b, channels, height, width), or tokens, which
        are integers.
    y : array-like of shape (b,) or (b, k)
        Class indices for ``"cross_entropy"``, real targets for ``"mse"``.
    loss : {"cross_entropy", "mse"}
        Mean cross-entropy of logits, in nats, or mean squared error.
    validation, test : Task, optional
        The same task on held-out data.
    source : dict
        Where the data came from and how they were split, as JSON data; enough to load them again.

    Raises
    ------
    ValueError
        If inputs and targets do not fit each other or the loss.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Task
    >>> task = Task(np.eye(3), [0, 1, 1])
    >>> task.n_inputs, task.n_outputs
    (3, 2)
    """

    X: np.ndarray
    y: np.ndarray
    loss: str = "cross_entropy"
    validation: Task | None = None
    test: Task | None = None
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        X, y = np.asarray(self.X), np.asarray(self.y)
        # 32 and 64 bit integers may be tokens
        X = X if X.dtype.kind == "f" or X.dtype in (np.int32, np.int64) else X.astype(np.float64)
        if self.loss not in LOSSES:
            raise ValueError(f"The 'loss' of a Task is one of {', '.join(LOSSES)}, got {self.loss!r}.")
        if X.ndim < 2 or len(X) != len(y) or not len(X):
            raise ValueError(
                f"A Task needs inputs (b, p), or (b, channels, height, width), "
                f"with b targets and b > 0, got shapes {X.shape} and {y.shape}."
            )
        if not (np.isfinite(X).all() and np.isfinite(y).all()):
            raise ValueError("The inputs or targets of this Task are not all finite: impute or drop them first.")
        if self.loss == "cross_entropy":
            if y.ndim != 1 or (y != np.round(y)).any() or y.min() < 0:
                raise ValueError("Targets of a classification Task are class indices 0, 1, 2, ... of shape (b,).")
            y = y.astype(np.int64)
        else:
            y = y.astype(X.dtype if X.dtype.kind == "f" else np.float32).reshape(len(y), -1)
        object.__setattr__(self, "X", X)
        object.__setattr__(self, "y", y)

    @property
    def is_classification(self) -> bool:
        """Whether targets are classes."""
        return self.loss == "cross_entropy"

    @property
    def held_out(self) -> Task:
        """The test part, or the validation part where there is none, or else the task itself."""
        return self.test or self.validation or self

    @property
    def n_inputs(self) -> int:
        """Number of input features p, pixels of all channels together."""
        return int(np.prod(self.X.shape[1:]))

    @cached_property
    def n_outputs(self) -> int:
        """Number of classes, or of regression targets."""
        if not self.is_classification:
            return self.y.shape[1]
        parts = [t.y for t in (self, self.validation, self.test) if t is not None]
        return int(max(y.max() for y in parts)) + 1

    @cached_property
    def checksum(self) -> str:
        """A SHA-256 of inputs and targets, held-out parts included."""
        digest = hashlib.sha256(self.loss.encode())
        for part in (self, self.validation, self.test):
            if part is not None:
                digest.update(np.ascontiguousarray(part.X, dtype=np.float64).round(6).tobytes())
                digest.update(np.ascontiguousarray(part.y, dtype=np.float64).round(6).tobytes())
        return digest.hexdigest()


def check_task(architecture: Architecture, task: Task) -> None:
    """Refuse a task whose inputs or outputs are not those of the networks.

    Parameters
    ----------
    architecture : Architecture
        One that does not say how to run its networks passes: nothing is known of its inputs.
    task : Task

    Raises
    ------
    InvalidInputError

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.task import Task, check_task
    >>> check_task(Architecture.mlp([4, 3, 2]), Task(np.eye(4), [0, 1, 0, 1]))
    """
    linear = [layer for layer in architecture.layers if layer.kind == LINEAR]
    if not linear:
        return
    inputs, outputs = linear[0].inputs, linear[-1].outputs
    # a class without an example is no error: the largest class of the data may be below the number of outputs
    misfit = outputs < task.n_outputs if task.is_classification else outputs != task.n_outputs
    if inputs != task.n_inputs or misfit:
        raise InvalidInputError(
            f"The networks are {architecture}, with {inputs} inputs and {outputs} outputs, but the task has "
            f"{task.n_inputs} inputs and {task.n_outputs} outputs. Pass the task that they were trained for."
        )
