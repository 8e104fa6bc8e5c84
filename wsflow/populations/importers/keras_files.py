"""Weights of Keras in HDF5: files of ``save`` and ``save_weights`` of Keras 2 and 3, and ``.keras`` archives.

References
----------
https://keras.io/guides/serialization_and_saving (the formats).
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.leaves import Checkpoint
from wsflow.populations.readers import MAXIMUM_BYTES, MAXIMUM_RATIO

WEIGHTS, CONFIG = "model.weights.h5", "config.json"
MAXIMUM_DEPTH = 20
MAXIMUM_GROUPS = 100_000
# the variables of a layer by their number in files that have no names: of a kernel, and of a norm
KERNEL = ("kernel", "bias")
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read_keras(path: Path) -> Checkpoint:
    """Read the weights in a ``.keras`` archive, in the order of its configuration."""
    with zipfile.ZipFile(path) as archive:
        content = _member(archive, WEIGHTS)
        config = _member(archive, CONFIG).decode("utf-8") if CONFIG in archive.namelist() else ""
    return _checkpoint(path, content, config)


def read_hdf5(path: Path) -> Checkpoint:
    """Read the weights in an HDF5 file of Keras."""
    return _checkpoint(path, path.read_bytes(), "")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > min(MAXIMUM_BYTES, MAXIMUM_RATIO * max(info.compress_size, 1)):
        raise ValueError(f"{name} would unpack from {info.compress_size} to {info.file_size} bytes")
    return archive.read(info)


def _checkpoint(path: Path, content: bytes, config: str) -> Checkpoint:
    try:
        # libhdf5 does not end on some damaged files, so a reader in Python is used
        import pyfive
    except ImportError as error:
        raise InvalidInputError(
            f"{path}: files of Keras need the pyfive package: pip install wsflow[keras]."
        ) from error
    try:
        return _content(pyfive.File(io.BytesIO(content)), len(content), config)
    except pyfive.core.InvalidHDF5File as error:
        raise ValueError(error) from error


def _content(root: Any, size: int, config: str) -> Checkpoint:
    reader = _Reader(root, size)
    config = config or _text(reader.root.attrs.get("model_config", ""))
    named = "layer_names" in reader.weights.attrs
    state = dict(reader.named() if named else reader.numbered()) or dict(reader.arrays(reader.weights, ()))
    if not state:
        raise ValueError("it has no arrays")
    order = _layer_order(config)
    layers = {name.split(".")[0] for name in state}
    if layers <= set(order):
        state = dict(sorted(state.items(), key=lambda item: order.index(item[0].split(".")[0])))
    elif not named:
        # the first of several layers of a kind has no number
        firsts = {layer: f"{layer}_0" for layer in layers if f"{layer}_1" in layers}
        split = {name: name.partition(".") for name in state}
        state = {f"{firsts.get(split[name][0], split[name][0])}.{split[name][2]}": a for name, a in state.items()}
    return Checkpoint(state, "file of Keras", named or layers <= set(order), "channels_first" not in config)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _layer_order(config: str) -> list[str]:
    """Return the names of the layers of a configuration, if there is one."""
    layers = json.loads(config).get("config", {}).get("layers", []) if config else []
    return [layer["config"]["name"] for layer in layers if "name" in layer.get("config", {})]


class _Reader:
    """An HDF5 file, whose arrays are read if they are numbers, and no more than the file can hold."""

    def __init__(self, root: Any, size: int) -> None:
        self.root, self.limit = root, min(MAXIMUM_BYTES, MAXIMUM_RATIO * size)
        self.weights = root.get("model_weights", root)
        self.n_groups = 0

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yield the arrays of files that list the names of layers and weights, in their order."""
        for layer in map(_text, self.weights.attrs["layer_names"]):
            group = self.weights[layer]
            for name in map(_text, group.attrs["weight_names"]):
                yield f"{layer}.{name.rpartition('/')[2].removesuffix(':0')}", self.array(group[name], name)

    def numbered(self) -> Iterator[tuple[str, Any]]:
        """Yield the arrays of files in which the variables of a layer have numbers."""
        for path, variables in self.variables(self.weights, ()):
            arrays = [self.array(variables[str(i)], str(i)) for i in range(len(variables))]
            ranks = [array.ndim for array in arrays]
            names = tuple(f"variable{i}" for i in range(len(arrays)))
            if ranks == [1] * 4:
                names = NORM
            elif ranks[0] > 1 and ranks[1:] in ([], [1]):
                names = KERNEL
            layer = _text(variables.attrs.get("name", path[-1] if path else "layer"))
            yield from ((f"{layer}.{name}", array) for name, array in zip(names, arrays, strict=False))

    def variables(self, group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Yield the groups of variables of layers, without those of the optimizer."""
        for name in self.names(group, path):
            if not path and name.startswith("optimizer"):
                continue
            child = group[name]
            if hasattr(child, "keys") and name == "vars" and len(child):
                yield path, child
            elif hasattr(child, "keys"):
                yield from self.variables(child, (*path, name))

    def arrays(self, group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """Yield all arrays, of files that are not of Keras."""
        for name in self.names(group, path):
            child = group[name]
            if hasattr(child, "keys"):
                yield from self.arrays(child, (*path, name))
            else:
                yield ".".join((*path, name)), self.array(child, name)

    def names(self, group: Any, path: tuple[str, ...]) -> Iterator[str]:
        """Yield the names in a group, which may contain itself."""
        for name in group:
            self.n_groups += 1
            if len(path) > MAXIMUM_DEPTH or self.n_groups > MAXIMUM_GROUPS:
                raise ValueError("its groups are too many or nested too deeply")
            yield name

    def array(self, dataset: Any, name: str) -> np.ndarray:
        """Read an array of numbers."""
        dtype = np.dtype(getattr(dataset, "dtype", object))
        size = math.prod(getattr(dataset, "shape", ())) * dtype.itemsize
        self.limit -= size
        if dtype.kind not in "fiub" or self.limit < 0:
            raise ValueError(f"{name!r} is no array of numbers, or would unpack to {size} bytes")
        return np.asarray(dataset[()])
