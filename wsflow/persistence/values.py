"""Parameters and fitted values as JSON data: what JSON lacks (tuples, arrays, tasks, architectures) is tagged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.persistence.format import to_json
from wsflow.persistence.tasks import pack_task, unpack_task
from wsflow.task import Task


def encode(value: Any, prefix: str, tensors: dict[str, np.ndarray]) -> Any:
    """A value as JSON data.

    Parameters
    ----------
    value : None, bool, int, float, str, list, tuple, dict, ndarray, Task or Architecture
        Containers of these too.
    prefix : str
        Where the value is: the names of its tensors begin with it, and an error names it.
    tensors : dict from str to ndarray
        Where arrays are put.

    Returns
    -------
    JSON data

    Raises
    ------
    InvalidInputError
        If the value is anything else.

    Examples
    --------
    >>> from wsflow.persistence.values import encode
    >>> encode({"widths": (3, 4)}, "model", {})
    {'widths': {'$tuple': [3, 4]}}
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        items = [encode(item, f"{prefix}.{i}", tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict) and all(isinstance(k, str) and not k.startswith("$") for k in value):
        return {key: encode(item, f"{prefix}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, Architecture):
        return {"$architecture": json.loads(value.to_json())}
    if isinstance(value, Task):
        return {"$task": pack_task(value, prefix, tensors), "tensors": prefix}
    if type(value) is np.ndarray:
        tensors[prefix] = value
        return {"$array": prefix}
    raise InvalidInputError(
        f"'{prefix}' is of the type {type(value).__name__}, which is not saved: only None, booleans, numbers, strings, "
        "lists, tuples, dicts, arrays, tasks and architectures are."
    )


def decode(data: Any, tensors: Mapping[str, np.ndarray], path: Path) -> Any:
    """The value that `encode` encoded.

    Parameters
    ----------
    data : JSON data
    tensors : mapping from str to ndarray
    path : Path
        The file, for messages.

    Returns
    -------
    object

    Raises
    ------
    ValueError, KeyError, TypeError
        If the data were not made by `encode`.
    """
    if isinstance(data, list):
        return [decode(item, tensors, path) for item in data]
    if not isinstance(data, dict):
        return data
    tag = next((key for key in data if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item, tensors, path) for key, item in data.items()}
    content = data[tag]
    if tag == "$tuple":
        return tuple(decode(content, tensors, path))
    if tag == "$float":
        return float(content)
    if tag == "$array":
        return tensors[content]
    if tag == "$architecture":
        return Architecture.from_json(to_json(content))
    if tag == "$task":
        return unpack_task(content, data["tensors"], tensors, path)
    raise ValueError(f"the value {tag!r} is unknown. Install a newer wsflow.")
