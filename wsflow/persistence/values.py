"""Parameters and fitted values as JSON data: what JSON lacks (tuples, arrays, tasks, architectures) is tagged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.options import Options
from wsflow.persistence.format import to_json
from wsflow.persistence.tasks import pack_task, unpack_task
from wsflow.task import Task

Parameters = dict[str, Any]
# the classes, by name, of objects that have parameters of their own (get_params) and nothing else
Holders = Mapping[str, type]
NO_HOLDERS: Holders = MappingProxyType({})


def encode(value: Any, prefix: str, tensors: dict[str, np.ndarray], holders: Holders = NO_HOLDERS) -> Any:
    """Encode a value as JSON data, and add its arrays to `tensors` under names that begin with `prefix`."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        items = [encode(item, f"{prefix}.{i}", tensors, holders) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict) and all(isinstance(k, str) and not k.startswith("$") for k in value):
        return {key: encode(item, f"{prefix}.{key}", tensors, holders) for key, item in value.items()}
    if isinstance(value, Architecture):
        return {"$architecture": json.loads(value.to_json())}
    if isinstance(value, Task):
        return {"$task": pack_task(value, prefix, tensors), "tensors": prefix}
    if type(value) is np.ndarray:
        tensors[prefix] = value
        return {"$array": prefix}
    kind: Any = type(value)
    name = kind.__name__
    if holders.get(name) is kind:
        return {"$object": {"class": name, "params": encode(value.get_params(deep=False), prefix, tensors, holders)}}
    others = f" and objects of {', '.join(holders)}" if holders else ""
    raise InvalidInputError(
        f"'{prefix}' is of the type {name}, which is not saved: only None, booleans, numbers, strings, lists, tuples, "
        f"dicts, arrays, tasks, architectures{others} are."
    )


def decode(
    data: Any,
    tensors: Mapping[str, np.ndarray],
    path: Path,
    holders: Holders = NO_HOLDERS,
    migrate: Callable[[str, Parameters], Parameters] = lambda name, params: params,
) -> Any:
    """Decode what `encode` encoded, with the parameters of holders as `migrate` translates them."""
    inner = partial(decode, tensors=tensors, path=path, holders=holders, migrate=migrate)
    if isinstance(data, list):
        return [inner(item) for item in data]
    if not isinstance(data, dict):
        return data
    tag = next((key for key in data if key.startswith("$")), None)
    if tag is None:
        return {key: inner(item) for key, item in data.items()}
    content = data[tag]
    if tag == "$tuple":
        return tuple(inner(content))
    if tag == "$float":
        return float(content)
    if tag == "$array":
        return tensors[content]
    if tag == "$architecture":
        return Architecture.from_json(to_json(content))
    if tag == "$task":
        return unpack_task(content, data["tensors"], tensors, path)
    if tag != "$object":
        raise ValueError(f"the value {tag!r} is unknown. Install a newer wsflow.")
    name = content["class"]
    if name not in holders:
        raise ValueError(f"the class {name!r} of a parameter is unknown. Install a newer wsflow.")
    made = holders[name](**migrate(name, inner(content["params"])))
    if isinstance(made, Options):
        made.check()
    return made


def without_tasks(data: Any) -> Any:
    """Replace tasks in encoded data by None, which is what those whose data have moved are decoded to."""
    if isinstance(data, list):
        return [without_tasks(item) for item in data]
    if not isinstance(data, dict):
        return data
    return None if "$task" in data else {key: without_tasks(item) for key, item in data.items()}
