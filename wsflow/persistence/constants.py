"""Constants of programs as tensors of a file: the JSON data of an architecture name those that are large."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from wsflow.memory import physical_memory

PREFIX = "wsflow.constant."
# bytes from which a constant is a tensor of its own
LARGE = 1024
# types that files have, by the names that programs have for them; others are kept as bytes
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
# they take the type of the weights when they are used
DTYPES["weights"] = DTYPES["float64"]


def put_apart(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a file's JSON data with names for the large constants of all programs, and these as tensors."""
    data, tensors = copy.deepcopy(data), {}
    for row in _constants(data):
        name, dtype, shape, text = row
        content = base64.b64decode(text) if isinstance(text, str) else b""
        if len(content) >= LARGE:
            key = f"{PREFIX}{hashlib.sha256(repr((dtype, shape)).encode() + content).hexdigest()[:16]}"
            array = np.frombuffer(content, DTYPES.get(dtype, np.dtype("uint8")))
            tensors[key] = array.reshape(shape) if dtype in DTYPES else array
            row[:] = [name, dtype, shape, {"tensor": key}]
    return data, tensors


def put_back(data: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Put the constants that a file's JSON data name into the data.

    A ValueError says that one of them is missing, or that they are named so often that memory does not hold them.
    """
    total = 0
    for row in _constants(data):
        if isinstance(row[-1], dict):
            key = row[-1]["tensor"]
            if not is_constant(key) or key not in tensors:
                raise ValueError(f"there is no tensor {key!r}")
            total += tensors[key].nbytes
            if total > physical_memory():
                raise ValueError(f"its programs have constants of {total:.1e} bytes, more than this machine's memory")
            row[-1] = base64.b64encode(tensors[key].tobytes()).decode("ascii")


def is_constant(name: Any) -> bool:
    """Whether a tensor of that name is a constant of a program."""
    return isinstance(name, str) and name.startswith(PREFIX)


def without_constants(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Everything else in a file, by name."""
    return {name: value for name, value in tensors.items() if not is_constant(name)}


def _constants(data: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield the description of each constant in the architectures of a population or of the steps of a model."""
    for architecture in (data.get("architecture"), *_tagged(data.get("steps"))):
        program = architecture.get("program") if isinstance(architecture, dict) else None
        if isinstance(program, dict):
            yield from (row for row in program.get("constants", ()) if isinstance(row, list) and row)


def _tagged(data: Any) -> Iterator[Any]:
    """Yield the architectures among encoded values."""
    if isinstance(data, dict):
        for key, item in data.items():
            if key == "$architecture":
                yield item
            else:
                yield from _tagged(item)
    elif isinstance(data, list):
        for item in data:
            yield from _tagged(item)
