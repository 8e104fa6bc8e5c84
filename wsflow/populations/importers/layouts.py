"""Names and axes of Keras and flax as those of torch, and layers that have no names at all.

A dense kernel is (inputs, outputs) and becomes (outputs, inputs), a convolution's (height, width, inputs, outputs)
becomes (outputs, inputs, height, width). Where a dense layer follows a convolution its inputs are pixels times
channels; `channel_major` makes them channels times pixels, as the architecture knows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate, takewhile
from math import prod
from operator import mul

import numpy as np

from wsflow.architecture import Block, Fixed, Parameter
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.leaves import Leaf

# the last component of names, and the one that torch has
NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "scale": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "mean": "running_mean",
    "moving_variance": "running_var",
    "var": "running_var",
    "embedding": "weight",
    "embeddings": "weight",
}
SIGNS = ("kernel", "moving_variance")  # names that only these tools have
UNREAD = re.compile(r"transpose|query|key|value|attention|(depthwise|pointwise|recurrent)_kernel", re.IGNORECASE)
DEPTHWISE = re.compile(r"depthwise_conv", re.IGNORECASE)
TORCH = "Build the module in torch and save its state_dict."
# numbers in place of names, from savez and of lists, and names such as W1 and b1
POSITION = re.compile(r"^(?P<parent>.*?)(?P<place>arr_\d+|\[\d+\](\.\[\d+\])*|[A-Za-z]+_?\d+)$")


def torch_layout(leaves: Mapping[str, Leaf], channels_last: bool = True) -> dict[str, Leaf]:
    """Return tensors under the names and with the axes of torch, if they are those of Keras or flax or have none."""
    dotted = {key.replace("/", ".").removesuffix(":0"): key for key in leaves}
    if len(dotted) == len(leaves) and any(key.rpartition(".")[2] in SIGNS for key in dotted):
        return dict(_converted(name, leaves[key], channels_last) for name, key in _joined(dotted).items())
    return _positional(leaves)


def _joined(names: Mapping[str, str]) -> dict[str, str]:
    """Return names with the statistics of flax among the parameters."""
    return {re.sub(r"(^|\.)batch_stats\.", r"\1params.", name): key for name, key in names.items()}


def _converted(name: str, leaf: Leaf, channels_last: bool) -> tuple[str, Leaf]:
    parent, _, kind = name.rpartition(".")
    rank = len(leaf.sizes)
    if kind not in NAMES or (kind != "kernel" and rank > 1):
        return name, leaf
    converted = f"{parent}.{NAMES[kind]}" if parent else NAMES[kind]
    if kind != "kernel" or rank < 2 or UNREAD.search(name.removesuffix(".kernel").rpartition(".")[2]):
        return (name if kind == "kernel" else converted), leaf
    spatial = tuple(range(rank - 2))
    if DEPTHWISE.search(parent):
        return converted, replace(leaf, permutation=(rank - 2, rank - 1, *spatial), merged=True)
    return converted, replace(leaf, permutation=(rank - 1, rank - 2, *spatial), channels_last=channels_last)


def channel_major(array: np.ndarray, parameter: Parameter) -> np.ndarray:
    """Return the weight of a linear layer with its inputs as channels times pixels, given as pixels times channels."""
    splits = {_channels_and_pixels(block, parameter.shape[0]) for block in parameter.blocks if array.ndim == 2}
    mixed = [(channels, pixels) for channels, pixels in splits if channels > 1 and pixels > 1]
    if not mixed:
        return array
    if len(splits) > 1:
        raise InvalidInputError(f"{parameter.name!r} has several inputs with pixels: their order is not known. {TORCH}")
    channels, pixels = mixed[0]
    return array.reshape(len(array), pixels, channels).swapaxes(1, 2).reshape(array.shape)


def _channels_and_pixels(block: Block, outputs: int) -> tuple[int, int]:
    """Return of how many channels and pixels the inputs of a linear layer are, by the axes of its block."""
    products = list(accumulate(block.extents, mul, initial=1))
    done = products.index(outputs, 1) if outputs in products[1:] else 1
    inputs = list(zip(block.axes[done:], block.extents[done:], strict=True))
    pixels = list(takewhile(lambda pair: isinstance(pair[0], Fixed), reversed(inputs)))
    return prod(n for _, n in inputs[: len(inputs) - len(pixels)]), prod(n for _, n in pixels)


def _positional(leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """Return tensors that only have positions, such as those of Keras' ``get_weights``, under names of layers."""
    matches = {key: POSITION.match(key) for key in leaves}
    parents = {match.group("parent") if match else None for match in matches.values()}
    if len(parents) != 1 or None in parents:
        return dict(leaves)
    order = sorted(leaves, key=lambda key: ([int(n) for n in re.findall(r"\d+", key)], -len(leaves[key].sizes)))
    layers = _layers([leaves[key] for key in order])
    if layers is None:
        return dict(leaves)
    transposed = _orientation(layers)
    named: dict[str, Leaf] = {}
    for i, layer in enumerate(layers):
        for kind, leaf in layer.items():
            rank = len(leaf.sizes)
            permutation = (rank - 1, rank - 2, *range(rank - 2)) if transposed and rank > 1 else None
            named[f"{i}.{kind}"] = replace(leaf, permutation=permutation, channels_last=transposed and rank > 1)
    return named


def _layers(leaves: list[Leaf]) -> list[dict[str, Leaf]] | None:
    """Return the layers in a sequence of tensors: each weight with its bias, and norms with their four vectors."""
    layers: list[dict[str, Leaf]] = []
    rest = list(leaves)
    while rest:
        if len(rest[0].sizes) < 2:
            return None
        vectors = next((i for i, leaf in enumerate(rest[1:]) if len(leaf.sizes) != 1), len(rest) - 1)
        weight, following, rest = rest[0], rest[1 : 1 + vectors], rest[1 + vectors :]
        if vectors not in (0, 1, 4, 5):
            return None
        layers.append({"weight": weight, **({"bias": following.pop(0)} if vectors % 4 else {})})
        if following:
            layers.append(dict(zip(("weight", "bias", "running_mean", "running_var"), following, strict=True)))
    return layers


def _orientation(layers: list[dict[str, Leaf]]) -> bool:
    """Return whether weights end with their outputs, which biases and the layers behind them show."""
    weights = [layer for layer in layers if len(layer["weight"].sizes) > 1]
    ends = [
        all(_outputs(layer, last) == layer["bias"].sizes[0] for layer in weights if "bias" in layer)
        and all(_inputs(b, last) % _outputs(a, last) == 0 for a, b in zip(weights, weights[1:], strict=False))
        for last in (False, True)
    ]
    if all(ends):
        raise InvalidInputError(
            "its arrays have no names, and by their shapes their weights could be (inputs, outputs) as in Keras or "
            "(outputs, inputs) as in torch. Save them with names: numpy.savez(path, **{'dense.kernel': ...})."
        )
    return ends[1]


def _outputs(layer: Mapping[str, Leaf], last: bool) -> int:
    return max(layer["weight"].sizes[-1 if last else 0], 1)


def _inputs(layer: Mapping[str, Leaf], last: bool) -> int:
    return layer["weight"].sizes[-2 if last else 1]
