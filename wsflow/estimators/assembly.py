"""From the parameters of a WeightFlow to its parts: geometry, prior, velocity, metric and settings."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.architecture.layers import LINEAR
from wsflow.estimators.function import function_metric
from wsflow.estimators.validation import check_choices
from wsflow.flow.couplings import COUPLINGS
from wsflow.flow.likelihood import rademacher_probes, unit_probes
from wsflow.flow.paths import PREDICTIONS, TIMES
from wsflow.flow.priors import Drawn, Isotropic, Prior, WrappedGaussian
from wsflow.flow.solvers import TABLEAUX
from wsflow.flow.training import Metric, Settings, VelocityField
from wsflow.geometry import GEOMETRIES, Geometry, vectors
from wsflow.initialisation import INITIALISATIONS
from wsflow.symmetry.canonical import canonical_action
from wsflow.velocity.table import VELOCITIES
from wsflow.weights import WeightArray

if TYPE_CHECKING:
    from wsflow.estimators.flow import WeightFlow

CHOICES: dict[str, tuple[Any, ...]] = {
    "geometry": ("auto", *GEOMETRIES),
    "last_layer": ("euclidean", "polar"),
    "bias": ("inside", "outside"),
    "velocity": ("auto", *VELOCITIES),
    "identity": (None, "learned"),
    "prior": ("auto", "gaussian", "isotropic", "initialisation"),
    "initialisation": tuple(INITIALISATIONS),
    "coupling": tuple(COUPLINGS),
    "prediction": tuple(PREDICTIONS),
    "time": tuple(TIMES),
    "metric": ("auto", "euclidean", "function"),
    "solver": tuple(TABLEAUX),
    "divergence": ("auto", "exact", "hutchinson"),
}
COUNTS = ("max_iter", "batch_size", "width", "depth", "heads", "solver_steps", "n_probes", "metric_inputs")
# parameter -> lowest and highest value
INTERVALS: dict[str, tuple[float, float]] = {
    "shrinkage": (0, 1),
    "metric_weight": (0, 1),
    "learning_rate": (0, float("inf")),
    "weight_decay": (0, float("inf")),
    "ema_decay": (0, 1),
    "clip": (0, float("inf")),
    "validation_fraction": (0, 0.9),
}
CHUNK = 128  # rows that pass through the network together, always padded to so many
EXACT_SIZE = 64  # columns up to which the exact divergence is affordable


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
    check_choices(flow, CHOICES)
    for name in (*COUNTS, *(("patience",) if flow.patience is not None else ())):
        check_count(name, getattr(flow, name))
    for name, (low, high) in INTERVALS.items():
        value = getattr(flow, name)
        if not isinstance(value, Real) or not low <= float(value) <= high:
            raise ValueError(f"The {name!r} parameter of WeightFlow is between {low} and {high}, got {value!r}.")
    if flow.identity is None and flow.prior == "gaussian":
        raise ValueError(
            "prior='gaussian' knows each neuron by name, identity=None none of them. "
            "Use prior='isotropic' or 'initialisation', or identity='learned'."
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


def same_but_for_widths(one: Architecture, other: Architecture) -> bool:
    """Whether two sequential networks differ in nothing but their hidden widths.

    Parameters
    ----------
    one, other : Architecture

    Returns
    -------
    bool
    """

    def skeleton(architecture: Architecture) -> list[object]:
        linear = [layer for layer in architecture.layers if layer.kind == LINEAR]
        kinds = [(layer.kind, layer.name, layer.bias, layer.argument) for layer in architecture.layers]
        return [*kinds, linear[0].inputs, linear[-1].outputs] if linear else [architecture]

    return skeleton(one) == skeleton(other)


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


def prior_of(flow: WeightFlow, points: Tensor) -> Prior:
    """The source of a flow, fitted to points where it is one that is fitted.

    Parameters
    ----------
    flow : WeightFlow
    points : Tensor of shape (n, size)

    Returns
    -------
    Prior
    """
    kind = flow.prior
    if kind == "auto":
        kind = "gaussian" if flow.identity == "learned" else "isotropic"
    manifold = flow.geometry_.manifold
    if kind == "gaussian":
        return WrappedGaussian.fit(manifold, points, flow.shrinkage)
    if kind == "isotropic":
        return Isotropic(manifold, _pooled_scale(flow.architecture_, points))
    if flow.architecture_ is None:
        raise ValueError("prior='initialisation' draws networks, so it needs an architecture: fit a WeightArray.")
    draw = functools.partial(
        _initial_points,
        architecture=flow.architecture_,
        geometry=flow.geometry_,
        scheme=flow.initialisation,
        bias=flow.bias,
    )
    return Drawn(manifold, draw)


def _pooled_scale(architecture: Architecture | None, points: Tensor) -> Tensor:
    """Root mean square of each parameter, the same for all its columns."""
    square = points.square().mean(0)
    for columns in architecture.slices.values() if architecture is not None else (slice(None),):
        square[columns] = square[columns].mean()
    return square.sqrt().clamp_min(1e-6)


def _initial_points(
    n: int, generator: torch.Generator, *, architecture: Architecture, geometry: Geometry, scheme: str, bias: Any
) -> Tensor:
    """Networks as they look before training, on the manifold."""
    weights = INITIALISATIONS[scheme](architecture, n, generator).double()
    if geometry.name != "euclidean":
        weights = canonical_action(weights, architecture, bias)(weights)
    return geometry.to_points(weights)


def prior_of_width(flow: WeightFlow, fitted: WeightFlow) -> Prior:
    """The source for another hidden width.

    Parameters
    ----------
    flow : WeightFlow
        Of the other width.
    fitted : WeightFlow

    Returns
    -------
    Prior
    """
    manifold, architecture = flow.geometry_.manifold, flow.architecture_
    if architecture is None or fitted.architecture_ is None or not isinstance(fitted.prior_, Isotropic):
        return prior_of(flow, torch.empty(0))
    scale = fitted.prior_.scale.new_ones(manifold.size)
    for name, columns in architecture.slices.items():
        scale[columns] = fitted.prior_.scale[fitted.architecture_.slices[name]].mean()
    scale[architecture.n_weights :] = fitted.prior_.scale[fitted.architecture_.n_weights :]
    return Isotropic(manifold, scale)


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
    architecture = flow.architecture_
    name = flow.velocity
    if name == "auto":
        name = "mlp" if architecture is None else "neuron"
    n_extra = flow.geometry_.manifold.size - flow.n_features_in_
    options = {"dim": flow.width, "depth": flow.depth, "heads": flow.heads, "identity": flow.identity}
    # torch's layers draw from the global generator when built: fork it, so that it stays as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        network = VELOCITIES[name](flow.n_features_in_ if architecture is None else architecture, n_extra, **options)
    return VelocityField(network, flow.geometry_.manifold, flow.prior_, flow.prediction).float()


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
    return Settings(n_steps=flow.max_iter, patience=flow.patience, **{name: getattr(flow, name) for name in same})


def probes_of(flow: WeightFlow) -> Tensor:
    """The vectors along which divergences are taken, the same for all rows.

    Parameters
    ----------
    flow : WeightFlow

    Returns
    -------
    Tensor of shape (probes, size)
    """
    size = flow.geometry_.manifold.size
    if flow.divergence == "exact" or (flow.divergence == "auto" and size <= EXACT_SIZE):
        return unit_probes(size, torch.float64)
    seed = flow.random_state if isinstance(flow.random_state, int) else 0
    return rademacher_probes(size, flow.n_probes, torch.float64, torch.Generator().manual_seed(seed))


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply a function to chunks of one size: a row has the same result in any batch.

    Parameters
    ----------
    function : callable
        From (CHUNK, size) to (CHUNK, ...).
    rows : Tensor of shape (n, size)

    Returns
    -------
    Tensor of shape (n, ...)
    """
    results = []
    for chunk in rows.split(CHUNK):
        missing = CHUNK - len(chunk)
        padded = torch.cat([chunk, chunk[:1].expand(missing, -1)]) if missing else chunk
        results.append(function(padded)[: len(chunk)])
    return torch.cat(results)
