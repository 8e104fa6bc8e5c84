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

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.damaged import intact
from wsflow.populations.importers.imported import Checkpoint
from wsflow.populations.readers import MAXIMUM_BYTES, MAXIMUM_RATIO

SAVE = "Save it again with model.save or model.save_weights."
WEIGHTS = "model.weights.h5"
MAXIMUM_DEPTH = 20
MAXIMUM_GROUPS = 100_000
# the variables of a layer by their number in files that have no names: of a kernel, and of a norm
KERNEL = ("kernel", "bias")
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read_keras(path: Path) -> Checkpoint:
    """Read the weights in a ``.keras`` archive, in the order of its configuration."""
    with intact(path, "archive of Keras", SAVE):
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(WEIGHTS) if WEIGHTS in archive.namelist() else None
            if info is None or info.file_size > min(MAXIMUM_BYTES, MAXIMUM_RATIO * max(info.compress_size, 1)):
                raise ValueError(f"it has no {WEIGHTS}, or one of a size that is not read")
            content = archive.read(info)
            config = _config(archive)
        return _checkpoint(path, io.BytesIO(content), config)


def read_hdf5(path: Path) -> Checkpoint:
    """Read the weights in an HDF5 file of Keras."""
    with intact(path, "HDF5 file", SAVE):
        return _checkpoint(path, io.BytesIO(path.read_bytes()), "")


def _config(archive: zipfile.ZipFile) -> str:
    names = [info for info in archive.infolist() if info.filename == "config.json" and info.file_size < 2**26]
    return archive.read(names[0]).decode("utf-8") if names else ""


def _checkpoint(path: Path, file: io.BytesIO, config: str) -> Checkpoint:
    try:
        import h5py
    except ImportError as error:
        raise InvalidInputError(f"{path}: files of Keras need the h5py package: pip install wsflow[keras].") from error
    with h5py.File(file, "r") as root:
        text = config or str(_text(root.attrs.get("model_config", "")))
        group = root.get("model_weights", root)
        state = dict(_named(group)) if "layer_names" in group.attrs else dict(_numbered(group))
        order = _layer_order(text)
    if not state:
        raise ValueError("it has no weights of layers")
    names = {name.split(".")[0] for name in state}
    if not order or not names <= set(order):
        ordered = "layer_names" in group.attrs if group else False
        return Checkpoint(state, "a file of Keras", ordered, channels_last="channels_first" not in text)
    state = dict(sorted(state.items(), key=lambda item: order.index(item[0].split(".")[0])))
    return Checkpoint(state, "a file of Keras", True, channels_last="channels_first" not in text)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _layer_order(config: str) -> list[str]:
    """Return the names of the layers of a configuration, if there is one."""
    layers = json.loads(config).get("config", {}).get("layers", []) if config else []
    return [layer["config"]["name"] for layer in layers if "name" in layer.get("config", {})]


def _named(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of files that list the names of layers and weights, in their order."""
    for layer in map(_text, group.attrs["layer_names"]):
        for name in map(_text, group[layer].attrs["weight_names"]):
            leaf = name.rpartition("/")[2].removesuffix(":0")
            yield f"{layer}.{leaf}", _array(group[layer], name)


def _numbered(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of files in which the variables of a layer have numbers."""
    for path, variables in _variable_groups(group, (), [0]):
        arrays = [_array(variables, str(i)) for i in range(len(variables))]
        ranks = [array.ndim for array in arrays]
        if ranks == [1] * 4:
            names: tuple[str, ...] = NORM
        elif ranks and ranks[0] > 1 and ranks[1:] in ([], [1]):
            names = KERNEL
        else:
            names = tuple(f"variable{i}" for i in range(len(arrays)))
        layer = str(_text(variables.attrs.get("name", path[-1] if path else "layer")))
        yield from ((f"{layer}.{name}", array) for name, array in zip(names, arrays, strict=False))


def _variable_groups(group: Any, path: tuple[str, ...], count: list[int]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the groups of variables of layers that are in the file itself, without those of the optimizer."""
    import h5py

    for name in group:
        count[0] += 1
        if len(path) > MAXIMUM_DEPTH or count[0] > MAXIMUM_GROUPS:
            raise ValueError("its groups are too many or nested too deeply")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or (not path and name.startswith("optimizer")):
            continue
        child = group[name]
        if isinstance(child, h5py.Group) and name == "vars" and len(child):
            yield path, child
        elif isinstance(child, h5py.Group):
            yield from _variable_groups(child, (*path, name), count)


def _array(group: Any, name: str) -> Any:
    """Read a dataset of numbers, unless it lies in another file or would unpack to far too much."""
    import h5py

    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise ValueError(f"{name!r} is no array, or lies in another file")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    stored = max(dataset.id.get_storage_size(), 1)
    if dataset.dtype.kind not in "fiub" or size > min(MAXIMUM_BYTES, MAXIMUM_RATIO * stored):
        raise ValueError(f"{name!r} is no array of numbers, or would unpack from {stored} to {size} bytes")
    return dataset[()]
