"""Fitted estimators and pipelines of wsflow's own steps as files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.persistence.format import read, write
from wsflow.persistence.values import decode, encode
from wsflow.populations.population import versions

STEPS: dict[str, str] = {
    "PermutationAligner": "wsflow.estimators.aligner",
    "ScaleCanonicalizer": "wsflow.estimators.canonicalizer",
    "WeightFlow": "wsflow.estimators.flow",
}
# who watches a fit is no part of the model
NOT_SAVED = ("progress",)


def save_model(model: Any, path: str | Path) -> None:
    """Write a fitted estimator, or a pipeline of them, to a safetensors file, whole or not at all.

    Only wsflow's own estimators are saved. What is loaded has the same parameters (except `progress`) and the same
    arrays, and samples the same. There is no pickle in it.

    Parameters
    ----------
    model : PermutationAligner, ScaleCanonicalizer, WeightFlow, or a Pipeline of these
    path : str or Path

    Raises
    ------
    InvalidInputError
        If a step is not wsflow's or is not fitted, or has a parameter that cannot be saved.
    OutputError
        If the file cannot be written; what was there is intact.

    See Also
    --------
    load_model

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import wsflow
    >>> flow = wsflow.WeightFlow(max_iter=5, random_state=0).fit(np.random.default_rng(0).normal(size=(50, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     wsflow.save_model(flow, pathlib.Path(folder, "model.st"))
    ...     loaded = wsflow.load_model(pathlib.Path(folder, "model.st"))
    >>> bool((loaded.sample(3, random_state=0) == flow.sample(3, random_state=0)).all())
    True
    """
    pipeline = hasattr(model, "steps")
    steps = list(model.steps) if pipeline else [(type(model).__name__.lower(), model)]
    tensors: dict[str, np.ndarray] = {}
    data = {
        "pipeline": pipeline,
        "steps": [_pack(name, step, tensors) for name, step in steps],
        "versions": versions("scikit-learn", "torch"),
    }
    write(path, "model", tensors, data)


def load_model(path: str | Path) -> Any:
    """Read a model that `save_model` wrote.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    estimator or Pipeline
        Fitted. A task among its parameters is None, with a warning, if its data are not where they were.

    Raises
    ------
    InvalidInputError
        If the file is damaged or something else.

    See Also
    --------
    save_model : with an example.
    """
    path = Path(path)
    tensors, data = read(path, "model")
    try:
        steps = [(step["name"], _unpack(step, tensors, path)) for step in data["steps"]]
        if not data["pipeline"]:
            return steps[0][1]
        from sklearn.pipeline import Pipeline

        return Pipeline(steps)
    except KeyError as error:
        raise InvalidInputError(f"{path}: the model has no {error}. Load it with the wsflow that saved it.") from error
    except (ValueError, TypeError, IndexError, AttributeError, RuntimeError, MemoryError) as error:
        message = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        raise InvalidInputError(message) from error


def _pack(name: str, step: Any, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    kind = type(step).__name__
    if kind not in STEPS or type(step) is not _class(kind):
        what = repr(step) if isinstance(step, str) else kind
        raise InvalidInputError(
            f"The step {name!r} is {what}, which wsflow does not save: it saves {', '.join(STEPS)}. "
            "Save a pipeline without that step, or the step itself by other means."
        )
    params = {key: value for key, value in step.get_params(deep=False).items() if key not in NOT_SAVED}
    if not isinstance(params.get("random_state"), (int, np.integer, type(None))):
        raise InvalidInputError(
            f"The 'random_state' of {kind} is a {type(params['random_state']).__name__}, whose state is not saved. "
            "Fit with an integer or None."
        )
    arrays, fitted = _fitted(name, step)
    added: dict[str, np.ndarray] = {key: np.asarray(array) for key, array in arrays.items()}
    values: dict[str, np.ndarray] = {}
    packed = {
        "name": name,
        "class": kind,
        "arrays": sorted(added),
        "params": encode(params, f"{name}.params", values),
        "data": encode(fitted, f"{name}.data", values),
    }
    for key, array in [*((f"{name}.{key}", array) for key, array in added.items()), *values.items()]:
        if key in tensors:
            raise InvalidInputError(f"Two arrays of the model would be {key!r} in the file. Rename the step {name!r}.")
        tensors[key] = array
    return packed


def _fitted(name: str, step: Any) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(step)
    except NotFittedError as error:
        raise InvalidInputError(f"The step {name!r} is not fitted: call fit before it is saved.") from error
    return step._get_fitted()


def _unpack(step: Mapping[str, Any], tensors: Mapping[str, np.ndarray], path: Path) -> Any:
    if step["class"] not in STEPS:
        raise InvalidInputError(
            f"{path}: the step {step['name']!r} is a {step['class']!r}, which this wsflow does not have. "
            "Install a newer wsflow."
        )
    estimator = _class(step["class"])(**decode(step["params"], tensors, path))
    arrays = {key: tensors[f"{step['name']}.{key}"] for key in step["arrays"]}
    estimator._set_fitted(arrays, decode(step["data"], tensors, path))
    return estimator


def _class(kind: str) -> Any:
    return getattr(import_module(STEPS[kind]), kind)
