"""Fitted multi-layer perceptrons of scikit-learn, recognised by their attributes without an import."""

from __future__ import annotations

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
