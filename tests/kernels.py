"""Weights in the formats of Keras and flax, as these write them, without either.

A network is a dictionary of layers, each of arrays under the names that these tools give them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

Layers = Mapping[str, Mapping[str, np.ndarray]]

KERAS = {"Linear": "dense", "Conv2d": "conv2d", "BatchNorm2d": "batch_normalization"}
FLAX = {"Linear": "Dense_0", "Conv2d": "Conv_0", "BatchNorm2d": "BatchNorm_0"}


def layers_of(modules: list[nn.Module], names: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    """The layers of torch with the kernels and names of Keras or flax: dense, dense_1 or Dense_0, Dense_1."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    counts: dict[str, int] = {}
    for module in modules:
        kind = type(module).__name__
        if kind not in names:
            continue
        number = counts[kind] = counts.get(kind, -1) + 1
        name = names[kind].removesuffix("_0")
        called = f"{name}_{number}" if number or names[kind].endswith("_0") else name
        layers[called] = arrays_of(module, names is FLAX)
    return layers


def arrays_of(module: nn.Module, flax: bool) -> dict[str, np.ndarray]:
    """The arrays of a layer: kernels with their outputs last, and those of a norm."""
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    if "running_mean" in state:
        names = ("scale", "bias", "mean", "var") if flax else ("gamma", "beta", "moving_mean", "moving_variance")
        return dict(zip(names, (state[k] for k in ("weight", "bias", "running_mean", "running_var")), strict=True))
    return {"kernel": state["weight"].transpose(*range(2, state["weight"].ndim), 1, 0), "bias": state["bias"]}


def write_keras_2(path: Path | io.BytesIO, layers: Layers, suffix: str = ":0", model: bool = True) -> None:
    """A file of ``model.save("net.h5")``, or of ``save_weights`` of Keras 2: names in attributes, in order."""
    import h5py

    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if model else file
        root.attrs["layer_names"] = np.array([name.encode() for name in [*layers, "flatten"]])
        root.create_group("flatten").attrs["weight_names"] = np.array([], dtype="S1")
        for name, arrays in layers.items():
            group = root.create_group(name)
            names = [f"{name}/{kind}{suffix}" for kind in arrays]
            group.attrs["weight_names"] = np.array([text.encode() for text in names])
            for text, array in zip(names, arrays.values(), strict=True):
                group.create_dataset(text, data=array)
        if model:
            optimizer = file.create_group("optimizer_weights/adam")
            for name, arrays in layers.items():
                optimizer.create_dataset(f"{name}_kernel_momentum", data=next(iter(arrays.values())))


def write_keras_3(path: Path | io.BytesIO, layers: Layers, compression: str | None = None) -> None:
    """A file of ``save_weights("net.weights.h5")``: numbered variables, in groups without an order."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, arrays in layers.items():
            group = file.create_group(f"layers/{name}/vars")
            group.attrs["name"] = name
            for i, array in enumerate(arrays.values()):
                group.create_dataset(str(i), data=array, compression=compression)
        file.create_group("layers/flatten/vars").attrs["name"] = "flatten"
        optimizer = file.create_group("optimizer/vars")
        for i, arrays in enumerate(layers.values()):
            optimizer.create_dataset(str(i), data=next(iter(arrays.values())))


def write_keras(path: Path, layers: Layers, data_format: str = "channels_last") -> None:
    """An archive of ``model.save("net.keras")``."""
    stream = io.BytesIO()
    write_keras_3(stream, layers)
    described = [{"class_name": "InputLayer", "config": {"name": "input_layer"}}]
    described += [{"class_name": "Layer", "config": {"name": name, "data_format": data_format}} for name in layers]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "sequential", "layers": described}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", stream.getvalue())


def variables(layers: Layers) -> dict[str, Any]:
    """The variables of flax: parameters, and the statistics of norms apart from them."""
    params = {name: {k: a for k, a in arrays.items() if k not in ("mean", "var")} for name, arrays in layers.items()}
    stats = {name: {k: arrays[k] for k in ("mean", "var")} for name, arrays in layers.items() if "mean" in arrays}
    return {"params": params, **({"batch_stats": stats} if stats else {})}


def write_flax(path: Path, tree: Any) -> None:
    """A file of ``flax.serialization.to_bytes``."""
    import msgpack

    def packed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: packed(item) for key, item in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        name = "bfloat16" if value.dtype == np.uint16 else value.dtype.name
        return msgpack.ExtType(1, msgpack.packb((value.shape, name, value.tobytes()), use_bin_type=True))

    path.write_bytes(msgpack.packb(packed(tree), use_bin_type=True))


def flat(tree: Mapping[str, Any], separator: str = "/", prefix: str = "") -> dict[str, np.ndarray]:
    """Nested dictionaries under joined names, as ``flax.traverse_util.flatten_dict`` makes them."""
    found: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        inner = value if isinstance(value, Mapping) else None
        found |= {prefix + key: value} if inner is None else flat(inner, separator, f"{prefix}{key}{separator}")
    return found
