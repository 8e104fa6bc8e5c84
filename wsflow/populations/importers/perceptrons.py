"""Perceptrons: fitted ones of scikit-learn, and those of the nnet text format of the ACAS Xu networks.

An nnet file has a plain ReLU network and the constants that scale its data. Those of scikit-learn are recognised by
their attributes, without an import.

References
----------
Julian, Lopez, Brush, Owen and Kochenderfer 2016, "Policy compression for aircraft collision avoidance systems"
(networks); https://github.com/sisl/NNet (the format).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.leaves import Checkpoint

# scikit-learn's names of activations that have another one here
ACTIVATIONS = {"logistic": "sigmoid"}
OUTPUTS = {
    "identity": "The outputs are the predictions.",
    "softmax": "The outputs are logits: predict_proba is their softmax.",
    "logistic": "Each output is a logit of its own: predict_proba is its sigmoid, and for two classes that of class 1. "
    "It is a network for a task with loss='binary_cross_entropy'.",
}


def is_perceptron(value: Any) -> bool:
    """Return whether a value is a multi-layer perceptron of scikit-learn, fitted or not."""
    return hasattr(value, "hidden_layer_sizes") and hasattr(value, "get_params")


def read_perceptron(perceptron: Any) -> Checkpoint:
    """Read a fitted ``MLPClassifier`` or ``MLPRegressor``; the notes say what the outputs are."""
    if not hasattr(perceptron, "coefs_"):
        raise InvalidInputError(f"This {type(perceptron).__name__} is not fitted: call its fit first.")
    weights = [np.asarray(coefficients).T for coefficients in perceptron.coefs_]
    widths = [weights[0].shape[1], *(len(weight) for weight in weights)]
    act = ACTIVATIONS.get(perceptron.activation, perceptron.activation)
    state = {}
    for i, (weight, bias) in enumerate(zip(weights, perceptron.intercepts_, strict=True)):
        state[f"{2 * i}.weight"], state[f"{2 * i}.bias"] = weight, np.asarray(bias)
    notes = {"estimator": type(perceptron).__name__, "outputs": OUTPUTS.get(perceptron.out_activation_, "")}
    return Checkpoint(state, "perceptron", architecture=Architecture.mlp(widths, act), notes=notes)


def read_nnet(path: Path) -> Checkpoint:
    """Read a ReLU network in double precision, with the minima, maxima, means and ranges of its data."""
    lines = _numbers(path.read_text(encoding="utf-8"))
    try:
        widths, constants = _header(lines)
    except StopIteration as error:
        raise ValueError("it ends within its header") from error
    state = _state(widths, np.array([number for line in lines for number in line], dtype=np.float64))
    return Checkpoint(state, "nnet file", architecture=Architecture.mlp(widths, "relu"), normalization=constants)


def _numbers(text: str) -> Iterator[list[float]]:
    # 0.12 may be what is left of 0.123
    if not text.endswith((",", "\n")):
        raise ValueError("it ends within a line")
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",") if cell.strip()]
        if cells and not line.lstrip().startswith("//"):
            yield [float(cell) for cell in cells]


def _header(lines: Iterator[list[float]]) -> tuple[list[int], dict[str, list[float]]]:
    counts, widths = [[int(number) for number in next(lines)] for _ in range(2)]
    if len(counts) < 3 or len(widths) != counts[0] + 1 or (widths[0], widths[-1]) != (counts[1], counts[2]):
        raise ValueError(f"its header counts {counts}, and its widths are {widths}")
    if min(widths) < 1:
        raise ValueError(f"its widths are {widths}")
    next(lines)  # a flag that no longer means anything
    names = ("minima", "maxima", "means", "ranges")
    constants = {name: next(lines) for name in names}
    for name, extra in zip(names, (0, 0, 1, 1), strict=True):
        if len(constants[name]) != widths[0] + extra or not all(map(math.isfinite, constants[name])):
            raise ValueError(f"its {name} are {len(constants[name])} numbers, expected {widths[0] + extra} finite ones")
    return widths, constants


def _state(widths: list[int], values: np.ndarray) -> dict[str, np.ndarray]:
    needed = sum((a + 1) * b for a, b in pairwise(widths))
    if len(values) != needed:
        raise ValueError(f"it has {len(values)} weights, and its widths {widths} need {needed}")
    state, start = {}, 0
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        stop = start + inputs * outputs
        state[f"{2 * i}.weight"] = values[start:stop].reshape(outputs, inputs)
        state[f"{2 * i}.bias"] = values[stop : stop + outputs]
        start = stop + outputs
    return state


def fold_normalization(networks: Checkpoint) -> Checkpoint:
    """Fold the scaling of inputs into the first layer and that of outputs into the last; inputs are not clipped."""
    if networks.normalization is None or networks.architecture is None:
        raise InvalidInputError("This file has no constants of normalization to fold into the layers: pass fold=False.")
    means, ranges = (np.array(networks.normalization[name], dtype=np.float64) for name in ("means", "ranges"))
    if not ranges.all():
        raise InvalidInputError("A range of the normalization is zero, so that it cannot be folded: pass fold=False.")
    names = [name.removesuffix(".weight") for name in networks.architecture.names if name.endswith(".weight")]
    return replace(networks, tree=_folded(dict(networks.tree), names[0], names[-1], means, ranges))


def _folded(
    state: dict[str, Any], first: str, last: str, means: np.ndarray, ranges: np.ndarray
) -> dict[str, np.ndarray]:
    weight = state[f"{first}.weight"] / ranges[:-1]
    state[f"{first}.bias"] = state[f"{first}.bias"] - weight @ means[:-1]
    state[f"{first}.weight"] = weight
    state[f"{last}.weight"] = state[f"{last}.weight"] * ranges[-1]
    state[f"{last}.bias"] = state[f"{last}.bias"] * ranges[-1] + means[-1]
    return state
