"""Fitted multi-layer perceptrons of scikit-learn, which are recognised by their attributes: nothing is imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.found import Found

# scikit-learn's names of activations that have another one here
ACTIVATIONS = {"logistic": "sigmoid"}
OUTPUTS = {
    "identity": "The outputs are the predictions.",
    "softmax": "The outputs are logits: predict_proba is their softmax.",
    "logistic": "Each output is a logit of its own: predict_proba is its sigmoid, and for two classes that of class 1. "
    "A task with cross_entropy needs an output for each class, which the logits (0, z) would be.",
}


def is_perceptron(value: Any) -> bool:
    """Whether something is a multi-layer perceptron of scikit-learn, fitted or not.

    Parameters
    ----------
    value : object

    Returns
    -------
    bool
    """
    return hasattr(value, "hidden_layer_sizes") and hasattr(value, "get_params")


def read_perceptron(estimator: Any) -> Found:
    """An ``MLPClassifier`` or ``MLPRegressor`` as a network, with an activation as it says.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted.

    Returns
    -------
    Found
        Its notes say what the outputs are.

    Raises
    ------
    InvalidInputError
        If it is not fitted.

    Examples
    --------
    >>> from sklearn.neural_network import MLPRegressor
    >>> from wsflow.populations.importers.estimators import read_perceptron
    >>> estimator = MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", max_iter=500).fit([[0.0], [1.0]], [0.0, 1.0])
    >>> str(read_perceptron(estimator).architecture)
    '1-3-1 relu (10 weights)'
    """
    if not hasattr(estimator, "coefs_"):
        raise InvalidInputError(f"This {type(estimator).__name__} is not fitted: call its fit first.")
    weights = [np.asarray(coefficients).T for coefficients in estimator.coefs_]
    widths = [weights[0].shape[1], *(len(weight) for weight in weights)]
    act = ACTIVATIONS.get(estimator.activation, estimator.activation)
    state = {}
    for i, (weight, bias) in enumerate(zip(weights, estimator.intercepts_, strict=True)):
        state[f"{2 * i}.weight"], state[f"{2 * i}.bias"] = weight, np.asarray(bias)
    notes = {"estimator": type(estimator).__name__, "outputs": OUTPUTS.get(estimator.out_activation_, "")}
    return Found((state,), Architecture.mlp(widths, act), notes=notes)
