"""From the parameters of a WeightFlow to its parts: geometry, prior, velocity, metric and settings."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators import conditioning, density
from wsflow.estimators.consensus import hints_of
from wsflow.estimators.function import function_metric, predictions_of
from wsflow.estimators.validation import check_choices
from wsflow.flow.couplings import COUPLINGS
from wsflow.flow.field import VelocityField
from wsflow.flow.matching import Matching, Predictions
from wsflow.flow.paths import PREDICTIONS, TIMES
from wsflow.flow.training import Metric, Progress, Settings
from wsflow.geometry import GEOMETRIES, Geometry, vectors
from wsflow.metanetworks.conditions import CONDITIONS
from wsflow.metanetworks.encoders import ENCODERS, velocity_name
from wsflow.metanetworks.velocity import velocity_network
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.weights import WeightArray

if TYPE_CHECKING:
    from wsflow.estimators.flow import WeightFlow

CHOICES: dict[str, tuple[Any, ...]] = {
    "geometry": ("auto", *GEOMETRIES),
    "last_layer": ("euclidean", "polar"),
    "bias": ("inside", "outside"),
    "velocity": ("auto", *ENCODERS),
    "identity": (None, "learned"),
    "prior": ("auto", "gaussian", "exchangeable", "isotropic", "standard", "initialisation"),
    "initialisation": tuple(INITIALISATIONS),
    "coupling": tuple(COUPLINGS),
    "prediction": ("auto", *PREDICTIONS),
    "time": tuple(TIMES),
    "metric": ("auto", "euclidean", "function"),
    "hints": ("auto", "gradient", None),
    "condition": (None, *CONDITIONS),
    **density.CHOICES,
}
COUNTS = (
    "max_iter",
    "batch_size",
    "width",
    "depth",
    "heads",
    "solver_steps",
    "n_probes",
    "metric_inputs",
    "hint_inputs",
)
# these may be 0
STEPS = ("predictive_iter",)
# parameter -> lowest and highest value
INTERVALS: dict[str, tuple[float, float]] = {
    "shrinkage": (0, 1),
    "metric_weight": (0, 1),
    "learning_rate": (0, float("inf")),
    "weight_decay": (0, float("inf")),
    "ema_decay": (0, 1),
    "clip": (0, float("inf")),
    "validation_fraction": (0, 0.9),
    "condition_dropout": (0, 1),
    "dropout": (0, 0.9),
    "predictive_weight": (0, float("inf")),
    "rtol": (1e-13, 1),
    "atol": (0, 1),
}


def check_parameters(flow: WeightFlow) -> None:
    """Refuse parameters with wrong values.

    Parameters
    ----------
    flow : WeightFlow

    Raises
    ------
    ValueError
        Naming the parameter, what is expected, and the value.
    """
    # a mapping names manifolds of one's own, and what is in it is judged when the architecture is known
    own = isinstance(flow.geometry, Mapping)
    check_choices(flow, {name: values for name, values in CHOICES.items() if not (own and name == "geometry")})
    for name in (*COUNTS, *(("patience",) if flow.patience is not None else ())):
        check_count(name, getattr(flow, name))
    for name, (low, high) in INTERVALS.items():
        value = getattr(flow, name)
        if not isinstance(value, Real) or not low <= float(value) <= high:
            raise ValueError(f"The {name!r} parameter of WeightFlow is between {low} and {high}, got {value!r}.")
    for name in STEPS:
        value = getattr(flow, name)
        if not isinstance(value, Integral) or value < 0:
            raise ValueError(f"The {name!r} parameter of WeightFlow is a whole number of at least 0, got {value!r}.")
    if flow.condition is not None and flow.coupling != "independent":
        raise ValueError(
            "A condition needs coupling='independent': a plan over a batch would pair source points with conditions, "
            "and the source of each condition would be another."
        )
    if flow.width % flow.heads:
        raise ValueError(f"The 'width' of WeightFlow is a multiple of its 'heads', got {flow.width} and {flow.heads}.")


def check_count(name: str, value: Any) -> None:
    """Refuse what is not a whole number of at least 1.

    Parameters
    ----------
    name : str
    value : object

    Raises
    ------
    ValueError
    """
    if not isinstance(value, Integral) or int(value) < 1:
        raise ValueError(f"The {name!r} parameter of WeightFlow is a whole number of at least 1, got {value!r}.")


def geometry_of(flow: WeightFlow) -> Geometry:
    """The geometry of a flow that knows its architecture and its number of columns.

    Parameters
    ----------
    flow : WeightFlow

    Returns
    -------
    Geometry
    """
    name, architecture = flow.geometry, flow.architecture_
    if architecture is None:
        if name != "auto" or flow.last_layer == "polar" or flow.velocity in ("neuron", "relational"):
            raise ValueError(
                f"WeightFlow(geometry={name!r}, last_layer={flow.last_layer!r}, velocity={flow.velocity!r}) needs to "
                "know what the columns are. Pass a WeightArray, or architecture=Architecture.mlp([...])."
            )
        return vectors(flow.n_features_in_)
    if len(architecture.statistic_columns):
        raise ValueError(
            "These networks hold running statistics, which are recomputed from data and not modelled. "
            "WeightFlow fits networks without batch norm."
        )
    if isinstance(name, Mapping):
        return Geometry.from_manifolds(architecture, name, flow.last_layer)
    geometry = GEOMETRIES["geometric" if name == "auto" else name](architecture, flow.last_layer, flow.bias)
    if name in ("normalized", "geometric") and not architecture_has_spheres(architecture):
        warnings.warn(
            f"No activation of this architecture commutes with positive scalings, so its {name} geometry is Euclidean.",
            UserWarning,
            stacklevel=4,
        )
    return geometry


def architecture_has_spheres(architecture: Architecture) -> bool:
    """Whether some neuron has positive scalings, and with them a sphere.

    Parameters
    ----------
    architecture : Architecture

    Returns
    -------
    bool
    """
    return not GEOMETRIES["geometric"](architecture).target.is_flat


def held_out_rows(X: Any, groups: Any, n: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Which rows are for validation: whole runs.

    Parameters
    ----------
    X : WeightArray or array
    groups : array-like of shape (n,) or None
        The run of each row; by default those of X.
    n : int
    fraction : float
        Of the runs.
    generator : torch.Generator

    Returns
    -------
    BoolTensor of shape (n,)
    """
    runs = X.runs if isinstance(X, WeightArray) and groups is None else groups
    runs = np.arange(n) if runs is None else np.asarray(runs)
    if runs.shape != (n,):
        raise ValueError(f"The groups of {n} rows are {n} labels, got shape {runs.shape}.")
    labels = np.unique(runs)
    chosen = labels[torch.randperm(len(labels), generator=generator)[: int(fraction * len(labels))].numpy()]
    return torch.from_numpy(np.isin(runs, chosen))


def velocity_field_of(flow: WeightFlow, generator: torch.Generator) -> VelocityField:
    """An untrained velocity.

    Parameters
    ----------
    flow : WeightFlow
    generator : torch.Generator

    Returns
    -------
    VelocityField
    """
    layout, n_extra = flow.geometry_.layout, flow.geometry_.n_extra
    name, hints = velocity_name(flow.velocity, layout), hints_of(flow)
    options: dict[str, Any] = {"depth": flow.depth, "dropout": flow.dropout}
    options["condition"] = conditioning.embedding_of(flow)
    if name == "mlp":
        # one vector for a whole network is wider than one for each neuron
        options["dim"] = 4 * flow.width
    else:
        options |= {"dim": flow.width, "heads": flow.heads, "identity": flow.identity}
    if hints is not None:
        options["n_hints"] = hints.count
    # torch's layers draw from the global generator when built: fork it, so that it stays as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        network = velocity_network(name, flow.n_features_in_ if layout is None else layout, n_extra, **options)
    return VelocityField(network, flow.geometry_.manifold, flow.prior_, prediction_of(flow), hints).float()


def prediction_of(flow: WeightFlow) -> str:
    """How the velocity is made: "auto" leaves the drift between Gaussians to the hints, where there are some.

    Parameters
    ----------
    flow : WeightFlow
        With its `consensus_`.

    Returns
    -------
    str
        A key of `wsflow.flow.paths.PREDICTIONS`.
    """
    if flow.prediction != "auto":
        return flow.prediction
    # tokens are narrower than networks, so that without hints nothing else would carry each weight's own drift
    return "preconditioned" if flow.consensus_ is None else "velocity"


def metric_of(flow: WeightFlow) -> Metric | None:
    """The metric in which errors of the velocity are measured, beside the Euclidean one.

    Parameters
    ----------
    flow : WeightFlow

    Returns
    -------
    callable or None

    Raises
    ------
    ValueError
        If the metric is the function metric, and there is no task or nothing says how to run the networks.
    """
    task, architecture = flow.task, flow.architecture_
    if task is None or architecture is None or not architecture.layers:
        if flow.metric == "function":
            raise ValueError(
                "metric='function' runs the networks: it needs task=Task(X, y) and the architecture of a sequential "
                "network."
            )
        return None
    if flow.metric == "euclidean":
        return None
    return function_metric(task, architecture, flow.geometry_, flow.metric_inputs)


def matching_of(flow: WeightFlow) -> tuple[Matching, Predictions] | None:
    """How predictions are matched after flow matching, where they are.

    Parameters
    ----------
    flow : WeightFlow

    Returns
    -------
    pair of Matching and a callable, or None

    Raises
    ------
    ValueError
        If they are to be matched, and there is no task or nothing says how to run the networks.
    """
    if not flow.predictive_iter:
        return None
    task, architecture = flow.task, flow.architecture_
    if task is None or architecture is None or not architecture.layers:
        raise ValueError(
            "Matching predictions (predictive_iter) runs the networks: it needs task=Task(X, y) and the architecture "
            "of a sequential network."
        )
    matching = Matching(flow.predictive_iter, flow.predictive_weight, flow.solver_steps, max(2, flow.batch_size // 2))
    return matching, predictions_of(task, architecture, flow.geometry_)


def stages(progress: Progress | None, *lengths: int) -> list[Progress | None]:
    """Progress of stages that follow each other, each of which counts its own steps.

    Parameters
    ----------
    progress : callable or None
        Called with the steps done and their number, of all stages.
    *lengths : int

    Returns
    -------
    list of callable or None

    Examples
    --------
    >>> from wsflow.estimators.assembly import stages
    >>> stages(print, 5, 3)[1](1, 3)
    6 8
    """
    if progress is None:
        return [None] * len(lengths)
    starts = itertools.accumulate(lengths[:-1], initial=0)
    return [lambda done, _, start=start: progress(start + done, sum(lengths)) for start in starts]  # type: ignore[misc]


def settings_of(flow: WeightFlow) -> Settings:
    """How to train.

    Parameters
    ----------
    flow : WeightFlow

    Returns
    -------
    Settings
    """
    same = ("batch_size", "learning_rate", "weight_decay", "ema_decay", "clip", "coupling", "time", "metric_weight")
    others: dict[str, Any] = {name: getattr(flow, name) for name in (*same, "condition_dropout")}
    return Settings(n_steps=flow.max_iter, patience=flow.patience, **others)
