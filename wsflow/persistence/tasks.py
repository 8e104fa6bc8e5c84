"""Tasks within files: the source and a checksum where the data can be loaded again, else the data themselves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.datasets import task_from_source
from wsflow.task import Task

SPLITS = ("training", "validation", "test")


def pack_task(task: Task, prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Encode a task as JSON data, and add `tensors` where its source does not say how to load it."""
    data = {"source": task.source, "checksum": task.checksum, "loss": task.loss}
    if "name" in task.source or "path" in task.source:
        return data
    splits = zip(SPLITS, (task, task.validation, task.test), strict=True)
    present = {name: split for name, split in splits if split is not None}
    for name, split in present.items():
        tensors[f"{prefix}.{name}.X"], tensors[f"{prefix}.{name}.y"] = split.X, split.y
    return {**data, "parts": list(present)}


def task_tensors(data: Mapping[str, Any] | None, prefix: str) -> list[str]:
    """Return the names of the tensors that `pack_task` added."""
    return [f"{prefix}.{split}.{array}" for split in (data or {}).get("parts", ()) for array in ("X", "y")]


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
    X, y = ({split: tensors[f"{prefix}.{split}.{array}"] for split in data["parts"]} for array in ("X", "y"))
    validation, test = (Task(X[split], y[split], data["loss"]) if split in X else None for split in SPLITS[1:])
    task = Task(X["training"], y["training"], data["loss"], validation, test, dict(data["source"]))
    if task.checksum != data["checksum"]:
        raise InvalidInputError("the task's checksum differs")
    return task
