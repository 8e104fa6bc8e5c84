"""The task of networks: inputs, targets and a loss."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

LOSSES = ("cross_entropy", "mse")
# 32 and 64 bit integers may be tokens; all other types become the first
INPUT_TYPES = [np.float64, np.float32, np.float16, np.int32, np.int64]


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
        from sklearn.utils.validation import check_array, check_consistent_length

        if self.loss not in LOSSES:
            raise ValueError(f"The 'loss' of a Task is one of {', '.join(LOSSES)}, got {self.loss!r}.")
        X = check_array(np.asarray(self.X), dtype=INPUT_TYPES, allow_nd=True, input_name="X of this Task")
        y = check_array(np.asarray(self.y), ensure_2d=False, allow_nd=True, input_name="y of this Task")
        check_consistent_length(X, y)
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
        """The test data, or the validation data where there are none, or else the task itself."""
        return self.test or self.validation or self

    @property
    def n_inputs(self) -> int:
        """The number of input features p; pixels of all channels count."""
        return int(np.prod(self.X.shape[1:]))

    @cached_property
    def n_outputs(self) -> int:
        """The number of classes, or of regression targets."""
        if not self.is_classification:
            return self.y.shape[1]
        return int(max(task.y.max() for task in (self, self.validation, self.test) if task is not None)) + 1

    @cached_property
    def checksum(self) -> str:
        """The SHA-256 of inputs and targets, those of validation and test included."""
        digest = hashlib.sha256(self.loss.encode())
        for task in (self, self.validation, self.test):
            for values in () if task is None else (task.X, task.y):
                digest.update(np.asarray(values, dtype=np.float64).round(6).tobytes())
        return digest.hexdigest()
