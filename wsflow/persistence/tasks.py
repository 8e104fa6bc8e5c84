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

PARTS = ("training", "validation", "test")


def pack_task(task: Task, prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """A task as JSON data, and as tensors where its source does not say how to load it.

    Parameters
    ----------
    task : Task
    prefix : str
        What the names of the tensors begin with.
    tensors : dict from str to ndarray
        Where they are put.

    Returns
    -------
    dict
    """
    data = {"source": task.source, "checksum": task.checksum, "loss": task.loss}
    if "name" in task.source or "path" in task.source:
        return data
    parts = dict(zip(PARTS, (task, task.validation, task.test), strict=True))
    for part, held in parts.items():
        if held is not None:
            tensors[f"{prefix}.{part}.X"], tensors[f"{prefix}.{part}.y"] = held.X, held.y
    return {**data, "parts": [part for part, held in parts.items() if held is not None]}


def task_tensors(data: Mapping[str, Any] | None, prefix: str) -> list[str]:
    """The names of the tensors that `pack_task` made.

    Parameters
    ----------
    data : mapping or None
        What `pack_task` returned.
    prefix : str

    Returns
    -------
    list of str
    """
    parts = (data or {}).get("parts", ())
    return [f"{prefix}.{part}.{name}" for part in parts for name in ("X", "y")]


def unpack_task(
    data: Mapping[str, Any] | None, prefix: str, tensors: Mapping[str, np.ndarray], path: Path
) -> Task | None:
    """The task that `pack_task` packed.

    Parameters
    ----------
    data : mapping or None
        What `pack_task` returned.
    prefix : str
    tensors : mapping from str to ndarray
    path : Path
        The file, for messages.

    Returns
    -------
    Task or None
        None, with a warning, if its data are not where they were or not what they were: the networks are still good.
    """
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
    X, y = ({part: tensors[f"{prefix}.{part}.{name}"] for part in data["parts"]} for name in ("X", "y"))
    validation, test = (Task(X[part], y[part], data["loss"]) if part in X else None for part in PARTS[1:])
    task = Task(X["training"], y["training"], data["loss"], validation, test, dict(data["source"]))
    if task.checksum != data["checksum"]:
        raise InvalidInputError("the task's checksum differs")
    return task
