"""The task of networks: inputs, targets and a loss."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.losses import LOSSES, Loss, loss_name, loss_of
from wsflow.targets import TARGETS, checked_inputs, checked_labels, checked_weights, class_weights, classes_of, codes_of


@dataclass(frozen=True, eq=False)
class Task:
    """Inputs, targets and a loss.

    Parameters
    ----------
    X : array-like of shape (b, p) or (b, ...)
        Inputs, scaled as the networks expect them: features, images (b, channels, height, width), or tokens, which
        are integers.
    y : array-like of shape (b,) or (b, k)
        For ``"cross_entropy"`` labels of any type, for ``"binary_cross_entropy"`` labels of two classes or an indicator
        (b, k) of several labels, for other losses numbers.
    loss : {"cross_entropy", "binary_cross_entropy", "mse", "gaussian_nll", "poisson"} or callable
        Of `wsflow.losses.LOSSES`, each the mean over examples and targets. A callable maps outputs (b, k) and targets
        (b, k), or integers (b,), to losses whose mean is taken; it sees one example at a time, by ``torch.vmap``, and
        a task with one cannot be saved.
    validation, test : Task, optional
        The same task on held-out data; they get its loss and its classes.
    source : dict
        Where the data came from and how they were split, as JSON data; enough to load them again.
    sample_weight : array-like of shape (b,), optional
        How often each example counts, in losses, gradients and measures. What looks at inputs only, without targets,
        takes all of them alike.
    class_weight : "balanced" or dict from label to float, optional
        Times the sample weights: ``examples / (classes * examples of the class)``, or as given and else 1.
    classes : array-like of shape (classes,), optional
        All labels, in the order of the outputs (default: those of `y` and the held-out data, sorted).

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        The labels in the order of the outputs, or the numbers of several labels.

    Raises
    ------
    ValueError
        If inputs and targets do not fit each other or the loss.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Task
    >>> task = Task(np.eye(3), ["cat", "dog", "dog"], class_weight="balanced")
    >>> task.n_inputs, task.n_outputs, task.targets
    (3, 2, array([0, 1, 1]))
    >>> task.weights
    array([1.5 , 0.75, 0.75])
    """

    X: np.ndarray
    y: np.ndarray
    loss: str | Callable[[Any, Any], Any] = "cross_entropy"
    validation: Task | None = None
    test: Task | None = None
    source: dict[str, Any] = field(default_factory=dict)
    sample_weight: np.ndarray | None = None
    class_weight: Any = None
    classes: Any = None

    def __post_init__(self) -> None:
        from sklearn.utils.validation import check_consistent_length

        row = TARGETS[loss_of(self.loss).targets]
        X = checked_inputs(self.X)
        y = row.check(self.y, X.dtype if X.dtype.kind == "f" else np.float32)
        check_consistent_length(X, y)
        given: dict[str, Any] = {"X": X, "y": y}
        if self.sample_weight is not None:
            given["sample_weight"] = checked_weights(self.sample_weight, len(X), "sample_weight")
        if self.classes is not None:
            given["classes"] = checked_labels(self.classes)
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if not row.labelled and (self.class_weight is not None or self.classes is not None):
            raise ValueError(
                f"The loss {loss_name(self.loss)!r} has no classes: leave out 'class_weight' and 'classes', and pass "
                "'sample_weight' to weight examples."
            )
        for name in ("validation", "test"):
            object.__setattr__(self, name, self._same_on(getattr(self, name)))
            self._check_shapes(name)
        # what does not fit is an error now
        _ = self.targets, self.weights

    def _same_on(self, held_out: Task | None) -> Task | None:
        """Return held-out data with the loss and the classes of this task."""
        if held_out is None:
            return None
        labelled = TARGETS[self.criterion.targets].labelled
        classes = self.classes_ if labelled else None
        if held_out.loss == self.loss and (not labelled or np.array_equal(held_out.classes_, self.classes_)):
            return held_out
        return replace(held_out, loss=self.loss, classes=classes)

    def _check_shapes(self, name: str) -> None:
        """Refuse held-out data with other features or targets; lengths of sequences and sizes of images may differ."""
        parts = [part for part in (self, getattr(self, name)) if part is not None]
        features = {
            part.X.shape[1:] if part.X.ndim == 2 and part.X.dtype.kind == "f" else part.X.ndim for part in parts
        }
        if len(features) > 1 or len({part.targets.shape[1:] for part in parts}) > 1:
            shapes = [f"{part.X.shape[1:]} and {part.targets.shape[1:]}" for part in parts]
            raise InvalidInputError(
                f"Each example of a Task has inputs and targets of shapes {shapes[0]}, but of its {name!r} data "
                f"{shapes[1]}. Prepare both alike."
            )

    def __repr__(self) -> str:
        name = f" {self.source['name']}," if "name" in self.source else ""
        data = f"{len(self.X)} examples of shape {self.X.shape[1:]}"
        outputs = f"{self.n_outputs} output{'' if self.n_outputs == 1 else 's'}"
        parts = ((part, getattr(self, part)) for part in ("validation", "test"))
        held_out = "".join(f", {len(task.X)} for {part}" for part, task in parts if task is not None)
        return f"<Task:{name} {data}{held_out}; {loss_name(self.loss)} of {outputs}>"

    @property
    def criterion(self) -> Loss:
        """The row of the table of losses."""
        return loss_of(self.loss)

    @property
    def is_classification(self) -> bool:
        """Whether targets are classes or labels."""
        return "classification" in self.criterion.kinds

    @property
    def held_out(self) -> Task:
        """The test data, or the validation data where there are none, or else the task itself."""
        return self.test or self.validation or self

    @property
    def n_inputs(self) -> int:
        """The number of input features p; pixels of all channels count."""
        return int(np.prod(self.X.shape[1:]))

    @property
    def n_outputs(self) -> int:
        """The number of outputs that the loss takes: classes, labels, or regression targets and their variances."""
        if self.criterion.targets == "classes":
            return len(self.classes_)
        if self.targets.ndim == 1:
            return int(self.targets.max()) + 1
        return self.criterion.outputs * self.targets.shape[1]

    def takes(self, n_outputs: int) -> bool:
        """Return whether the loss takes so many outputs.

        Of classes that are numbered 0, 1, ... the last may have no example, since data may be a part of all there are;
        how many outputs a function of one's own takes is not known.
        """
        if self.criterion.targets == "classes" and np.array_equal(self.classes_, np.arange(self.n_outputs)):
            return n_outputs >= self.n_outputs
        return self.criterion.targets == "any" or n_outputs == self.n_outputs

    @property
    def n_labels(self) -> int:
        """The number of labels of each example, 1 where it has one class."""
        return self.y.shape[1] if self.is_classification and self.y.ndim == 2 else 1

    @cached_property
    def classes_(self) -> np.ndarray:
        """The labels in the order of the outputs; a ValueError says that there are none."""
        target = self.criterion.targets
        if not TARGETS[target].labelled:
            raise ValueError(f"A Task with the loss {loss_name(self.loss)!r} has no classes.")
        if self.classes is None:
            parts = [part for part in (self.validation, self.test) if part is not None]
            named = [part.classes for part in parts if part.classes is not None and self.y.ndim == 1]
            return classes_of([self.y, *(part.y for part in parts), *named], target)
        expected = self.n_labels if self.n_labels > 1 else 2 if target == "labels" else len(self.classes)
        if self.classes.ndim != 1 or len(np.unique(self.classes)) != len(self.classes) or len(self.classes) != expected:
            raise ValueError(f"The 'classes' of a Task are {expected} different labels, got {self.classes.tolist()!r}.")
        return self.classes

    @cached_property
    def targets(self) -> np.ndarray:
        """What the loss takes: the index (b,) of each class, or numbers (b, k)."""
        if not TARGETS[self.criterion.targets].labelled:
            return self.y
        if self.criterion.targets == "classes":
            return codes_of(self.y, self.classes_)
        dtype = self.X.dtype if self.X.dtype.kind == "f" else np.float32
        codes = codes_of(self.y, self.classes_)[:, None] if self.y.ndim == 1 else self.y
        return codes.astype(dtype)

    @cached_property
    def weights(self) -> np.ndarray | None:
        """The weight (b,) of each example, by sample and class; None where all are alike."""
        if self.sample_weight is None and self.class_weight is None:
            return None
        own = np.ones(len(self.X)) if self.sample_weight is None else self.sample_weight
        if self.class_weight is None:
            return own
        if self.y.ndim == 2:
            raise ValueError(
                "Class weights are for one class of each example. Pass 'sample_weight' for several labels."
            )
        weights = own * class_weights(self.class_weight, self.classes_, self.targets.ravel().astype(np.int64), own)
        return checked_weights(weights, len(self.X), "class_weight")

    @property
    def size(self) -> float:
        """How many examples there are, each counted by its weight."""
        return float(len(self.X) if self.weights is None else self.weights.sum())

    def subset(self, rows: Any) -> Task:
        """Return the task on some of its examples, with its classes and weights and without held-out data."""
        return replace(
            self,
            X=self.X[rows],
            y=self.y[rows],
            validation=None,
            test=None,
            sample_weight=None if self.weights is None else self.weights[rows],
            class_weight=None,
            classes=self.classes_ if TARGETS[self.criterion.targets].labelled else None,
        )

    @cached_property
    def checksum(self) -> str:
        """The SHA-256 of inputs, targets and weights, those of validation and test included."""
        digest = hashlib.sha256(loss_name(self.loss).encode())
        for task in (self, self.validation, self.test):
            for values in () if task is None else (task.X, task.targets, task.weights):
                if values is not None:
                    digest.update(np.asarray(values, dtype=np.float64).round(6).tobytes())
        return digest.hexdigest()


def check_saved(task: Task) -> None:
    """Refuse to save a task whose loss is a function: code is neither written nor run again."""
    if not isinstance(task.loss, str):
        raise InvalidInputError(
            f"A task whose loss is a function, {loss_name(task.loss)!r}, is not saved: files hold data and no "
            f"code. Leave out the task and give it again later, or take one of the losses {', '.join(LOSSES)}."
        )
