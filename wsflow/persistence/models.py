"""Fitted estimators and pipelines of wsflow's own steps, and of plain ones of scikit-learn, as files.

A step is saved through the protocol `Step`: its parameters, and its fitted state as arrays and plain values. A
parameter may be an object that holds parameters of its own, of a class of `HOLDERS`. Parameters of an older wsflow go
through the function of their class in `MIGRATIONS` when they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wsflow.evaluation.report import Report
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.persistence.card import card_of, caveats_of, check_beside
from wsflow.persistence.classes import STEPS, class_of, holders
from wsflow.persistence.description import describe_content
from wsflow.persistence.format import decoding, encode, read
from wsflow.persistence.hub import local_file
from wsflow.persistence.plain_steps import PLAIN_STEPS, is_plain, plain_state, restored
from wsflow.persistence.schemas import ARRAYS, FITTED, MODEL
from wsflow.persistence.values import Parameters, decode, without_tasks
from wsflow.persistence.values import encode as encode_values
from wsflow.populations.population import versions
from wsflow.writing import check_target, write_bytes


def _aligner(params: Parameters) -> Parameters:
    """Translate the parameters of a PermutationAligner of wsflow 0.1, which had the options of its method beside it."""
    from wsflow.symmetry.matching.methods import METHODS

    known = {key: params[key] for key in params if key not in ("options", "max_sweeps", "max_iter", "max_reference")}
    automatic = "weight" if params.get("task") is None else "chain"
    method = automatic if params["method"] == "auto" else params["method"]
    options = dict(params.get("options") or {})
    if method == "weight" and params.get("max_sweeps", 50) != 50:
        options["max_sweeps"] = params["max_sweeps"]
    return known | {"method": METHODS[method](**options)} if options else known


# name of a class -> a function from parameters that any earlier wsflow saved to those of today
MIGRATIONS: dict[str, Callable[[Parameters], Parameters]] = {"PermutationAligner": _aligner}
# a callback that watches a fit, the folder of its checkpoint, and where it runs are no part of the model
NOT_SAVED = ("progress", "checkpoint", "device", "n_jobs")
# what an aligner measured, which is NaN where it could not be
MEASURED = ("barrier_before", "barrier_after")


class Step(Protocol):
    """An estimator that can be saved."""

    def get_params(self, deep: bool = True) -> Parameters:
        """Return the arguments of the constructor."""
        ...

    def _get_fitted(self) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
        """Return what `fit` made: arrays by name, and values that `encode` knows."""
        ...

    def _set_fitted(self, arrays: Mapping[str, np.ndarray], data: dict[str, Any]) -> None:
        """Restore what `_get_fitted` returned."""
        ...


def save_model(model: Any, path: str | Path, *, card: bool = False, report: Report | None = None) -> None:
    """Write a fitted estimator, or a pipeline of them, to a safetensors file, completely or not at all.

    Saved are wsflow's own estimators, and scikit-learn's steps of `wsflow.persistence.plain_steps`, whose fitted state
    is plain: scalers, PCA and TruncatedSVD. What is loaded has the same parameters (except `progress`, `checkpoint`,
    `device` and `n_jobs`) and the same arrays, and samples the same. There is no pickle in it.

    Parameters
    ----------
    model : PermutationAligner, ScaleCanonicalizer, WeightFlow, MetaAutoencoder, MetaRegressor, VariationalNetwork, ...
        Or StandardScaler, PCA, or a Pipeline of these.
    path : str or Path
    card : bool
        Whether to write what is known of the model as Markdown too, to ``model.md`` beside ``model.st`` (`model_card`).
    report : Report, optional
        Of `evaluate`, for the card, which is then written.

    Raises
    ------
    InvalidInputError
        If a step is none of these or is not fitted, or has a parameter that cannot be saved or not be loaded again.
    NumericalError
        If an array of a step is not finite.
    OutputError
        If a file cannot be written, or would replace one that is no card; what was there is intact.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import wsflow
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> flow = wsflow.WeightFlow("euclidean", max_iter=5, random_state=0).fit(X)
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
    decode = lambda tensors, data: _decoded(tensors, without_tasks(data), Path(path))  # noqa: E731
    check_target(path)
    content, _ = encode(path, "model", tensors, data, decode, MODEL)
    if not card and report is None:
        write_bytes(path, content)
        return
    beside = check_beside(path)
    text = card_of(describe_content(content, path), caveats_of(model), Path(path).name, report)
    write_bytes(path, content)
    write_bytes(beside, text.encode())


def load_model(path: str | Path) -> Any:
    """Read a model that `save_model` wrote.

    Parameters
    ----------
    path : str or Path
        A file, a folder that has a ``model.safetensors``, or the address ``hf://owner/name`` of such a folder on the
        Hugging Face Hub (`from_pretrained`).

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
    path = local_file(path, "model")
    tensors, data = read(path, "model", MODEL)
    with decoding(path, "model"):
        return _decoded(tensors, data, path)


def _decoded(tensors: Mapping[str, np.ndarray], data: Mapping[str, Any], path: Path) -> Any:
    steps = [(step["name"], _unpack(step, tensors, path)) for step in data["steps"]]
    if not data["pipeline"]:
        return steps[0][1]
    from sklearn.pipeline import Pipeline

    names = [name for name, _ in steps]
    if wrong := next((n for n, step in steps[:-1] if not hasattr(step, "transform") or names.count(n) > 1), None):
        raise InvalidInputError(
            f"{path}: the step {wrong!r} is there twice, or transforms nothing before the last one."
        )
    return Pipeline(steps)


def migrate(name: str, params: Parameters) -> Parameters:
    """Translate the saved parameters of a class to those of today, which need no translation."""
    return MIGRATIONS[name](params) if name in MIGRATIONS else params


def _pack(name: str, step: Any, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    kind = type(step).__name__
    if not is_plain(step) and (kind not in STEPS or type(step) is not class_of(kind, STEPS)):
        what = repr(step) if isinstance(step, str) else kind
        raise InvalidInputError(
            f"The step {name!r} is {what}, which wsflow does not save: it saves {', '.join([*STEPS, *PLAIN_STEPS])}. "
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
    if (wrong := _not_finite(added)) is not None:
        raise NumericalError(f"The array {f'{name}.{wrong}'!r} is not finite: nothing was written. Fit {name!r} again.")
    values: dict[str, np.ndarray] = {}
    packed = {
        "name": name,
        "class": kind,
        "arrays": sorted(added),
        "params": encode_values(params, f"{name}.params", values, holders()),
        "data": encode_values(fitted, f"{name}.data", values),
    }
    for key, array in [*((f"{name}.{key}", array) for key, array in added.items()), *values.items()]:
        if key in tensors:
            raise InvalidInputError(f"Two arrays of the model would be {key!r} in the file. Rename the step {name!r}.")
        tensors[key] = array
    return packed


def _fitted(name: str, step: Step) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(step)
    except NotFittedError as error:
        raise InvalidInputError(f"The step {name!r} is not fitted: call fit before it is saved.") from error
    return ({}, plain_state(step)) if is_plain(step) else step._get_fitted()


def _unpack(data: Mapping[str, Any], tensors: Mapping[str, np.ndarray], path: Path) -> Any:
    name, kind = data["name"], data["class"]
    if kind not in STEPS and kind not in PLAIN_STEPS:
        raise InvalidInputError(
            f"{path}: the step {name!r} is a {kind!r}, which this wsflow does not have. Install a newer wsflow."
        )
    params = decode(data["params"], tensors, path, holders(), migrate)
    arrays = {key: _array(tensors, f"{name}.{key}") for key in data["arrays"]}
    if (wrong := _not_finite(arrays)) is not None:
        raise InvalidInputError(f"{path}: the array {f'{name}.{wrong}'!r} is not finite. Fit the model again.")
    fitted = decode(data["data"], tensors, path)
    if kind in PLAIN_STEPS:
        return restored(kind, params, fitted)
    if kind == "WeightFlow":
        from wsflow.persistence.migrations import weight_flow

        params, fitted = weight_flow(params, arrays, fitted)
    for schemas, value, what in ((ARRAYS, arrays, "arrays"), (FITTED, fitted, "data")):
        if kind in schemas:
            schemas[kind](value, f"{name}.{what}")
    step: Step = class_of(kind, STEPS)(**_known(kind, migrate(kind, params)))
    if hasattr(step, "_parameter_constraints"):
        step._validate_params()  # type: ignore[attr-defined]
    step._set_fitted(arrays, dict(fitted))
    return step


def _known(kind: str, params: Parameters) -> Parameters:
    """Refuse parameters that a class does not have."""
    known = signature(class_of(kind, STEPS)).parameters
    if unknown := sorted(set(params) - set(known)):
        raise InvalidInputError(f"a {kind} has no parameter {unknown[0]!r}. Install a newer wsflow.")
    return params


def _array(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors:
        raise InvalidInputError(f"the array {name!r} is missing.")
    return tensors[name]


def _not_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Name the first array with a number that is not finite."""
    floats = {key: array for key, array in arrays.items() if array.dtype.kind == "f" and key not in MEASURED}
    return next((key for key, array in floats.items() if not np.isfinite(array).all()), None)
