"""Tasks within files: the source and a checksum where the data can be loaded again, else the data themselves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.persistence.schemas import SPLITS
from wsflow.populations.datasets import is_reproducible, task_from_source
from wsflow.task import Task, check_saved


def pack_task(task: Task, prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Encode a task as JSON data, and add `tensors` where its source does not say how to load it."""
    check_saved(task)
    data = {"source": task.source, "checksum": task.checksum, "loss": task.loss}
    if is_reproducible(task):
        return data
    splits = zip(SPLITS, (task, task.validation, task.test), strict=True)
    present = {name: split for name, split in splits if split is not None}
    for name, split in present.items():
        tensors[f"{prefix}.{name}.X"], tensors[f"{prefix}.{name}.y"] = split.X, split.targets
    weighted = {name: split.sample_weight for name, split in present.items() if split.sample_weight is not None}
    tensors.update({f"{prefix}.{name}.weight": weights for name, weights in weighted.items()})
    by_class = {name: _plain(split.class_weight) for name, split in present.items() if split.class_weight is not None}
    # what is not there is not written: files of tasks without labels and weights are those of 0.1
    classes: list[Any] = task.classes_.tolist() if task.is_classification else []
    if task.loss == "cross_entropy" and [*map(repr, classes)] == [*map(repr, range(len(classes)))]:
        # the numbers 0, 1, ... of 0.1
        classes = []
    further = {"classes": classes, "weighted": list(weighted), "class_weight": by_class}
    return {**data, "parts": list(present), **{name: value for name, value in further.items() if value}}


def _plain(class_weight: Any) -> Any:
    """Return class weights as JSON data: keys of dictionaries may be numbers."""
    if isinstance(class_weight, str):
        return class_weight
    return [[np.asarray(label).item(), float(weight)] for label, weight in class_weight.items()]


def task_tensors(data: Mapping[str, Any] | None, prefix: str) -> list[str]:
    """Return the names of the tensors that `pack_task` added."""
    data = data or {}
    names = [f"{prefix}.{split}.{array}" for split in data.get("parts", ()) for array in ("X", "y")]
    return names + [f"{prefix}.{split}.weight" for split in data.get("weighted", ())]


def unpack_task(
    data: Mapping[str, Any] | None, prefix: str, tensors: Mapping[str, np.ndarray], path: Path
) -> Task | None:
    """Decode a task; one whose data were moved or changed is None, with a warning: the networks are still good."""
    if data is None:
        return None
    if "parts" in data:
        return _from_tensors(data, prefix, tensors)
    try:
        return task_from_source(data["source"], data["checksum"])
    except (ValueError, TypeError) as error:
        warnings.warn(f"{path}: its task was not loaded, and is None. {error}", stacklevel=3)
        return None


def _from_tensors(data: Mapping[str, Any], prefix: str, tensors: Mapping[str, np.ndarray]) -> Task:
    targets = [tensors[f"{prefix}.{split}.y"] for split in data["parts"]]
    classes = np.asarray(data["classes"]) if "classes" in data else None
    if classes is None and data["loss"] == "cross_entropy":
        # in files without them, as those of 0.1, they are 0 to the largest target
        classes = np.arange(max(y.max() for y in targets) + 1)
    by_class, weighted = data.get("class_weight", {}), data.get("weighted", ())
    parts: dict[str, Any] = {}
    for split, y in zip(data["parts"], targets, strict=True):
        weight = by_class.get(split)
        parts[split] = Task(
            tensors[f"{prefix}.{split}.X"],
            y if classes is None or (y.ndim == 2 and y.shape[1] > 1) else classes[y.astype(np.int64).ravel()],
            data["loss"],
            sample_weight=tensors[f"{prefix}.{split}.weight"] if split in weighted else None,
            class_weight=weight if weight is None or isinstance(weight, str) else dict(map(tuple, weight)),
            classes=classes,
        )
    task, validation, test = (parts.get(split) for split in SPLITS)
    if task is None:
        raise InvalidInputError("the task has no training part")
    task = replace(task, validation=validation, test=test, source=dict(data["source"]))
    if task.checksum != data["checksum"]:
        raise InvalidInputError("the task's checksum differs")
    return task
