"""What an earlier wsflow saved, in the terms of today."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from wsflow.flow.adaptive import DormandPrince
from wsflow.flow.divergence import TraceEstimator
from wsflow.flow.solvers import RungeKutta
from wsflow.models import options
from wsflow.persistence.values import Parameters


def weight_flow(
    params: Parameters, arrays: Collection[str], data: Mapping[str, Any]
) -> tuple[Parameters, Mapping[str, Any]]:
    """The parameters of a WeightFlow and what `fit` made of it; wsflow 0.1 had no objects among the parameters."""
    if "prior" not in params:
        return params, data
    auto = "velocity" if "consensus.inputs" in arrays else "preconditioned"
    prediction = auto if params["prediction"] == "auto" else params["prediction"]
    same = ("coupling", "task", "metric", "hints", "max_iter", "architecture", "random_state")
    trained = ("batch_size", "learning_rate", "validation_fraction", "patience")
    steps = params.get("predictive_iter", 0)
    kinds: dict[str, Any] = {"scalar": options.ScalarCondition, "label": options.LabelCondition}
    migrated = {name: params[name] for name in same} | {
        "geometry": _geometry(params),
        "velocity": _velocity(params, is_plain=not data["architecture"]),
        "source": _source(params),
        "energy": options.EnergyMatching(steps, params["predictive_weight"]) if steps else None,
        "condition": kinds[kind](params["condition_dropout"]) if (kind := params["condition"]) else None,
        "training": options.AdamW(**{name: params[name] for name in trained}),
        "solver": DormandPrince(params["rtol"], params["atol"])
        if params["solver"] == "dopri5"
        else RungeKutta(params["solver"], params["solver_steps"]),
        "density": TraceEstimator(params["divergence"], params["n_probes"], params["probes"]),
    }
    return migrated, {**data, "prediction": prediction}


def _geometry(old: Parameters) -> Any:
    kind, last_layer, bias = old["geometry"], old["last_layer"], old["bias"]
    if (last_layer, bias) == ("euclidean", "inside"):
        return kind
    return options.NetworkGeometry("geometric" if kind == "auto" else kind, last_layer, bias)


def _velocity(old: Parameters, is_plain: bool) -> Any:
    sizes = {name: old[name] for name in ("width", "depth")} | {"dropout": old.get("dropout", 0.0)}
    plain = {"width": 64, "depth": 3, "heads": 4, "identity": "learned", "dropout": 0.0}
    if old["velocity"] == "auto" and all(old.get(name, value) == value for name, value in plain.items()):
        return "auto"
    if old["velocity"] == "mlp" or (old["velocity"] == "auto" and is_plain):
        return options.MLP(4 * sizes.pop("width"), **sizes)
    kind = options.RelationalTransformer if old["velocity"] == "relational" else options.NeuronTransformer
    return kind(**sizes, heads=old["heads"], identity=old["identity"])


def _source(old: Parameters) -> Any:
    kind, shrinkage = old["prior"], old["shrinkage"]
    made: dict[str, Callable[[], Any]] = {
        "gaussian": lambda: options.GaussianSource(shrinkage),
        "exchangeable": lambda: options.ExchangeableSource(shrinkage),
        "initialisation": lambda: options.InitialSource(old["initialisation"]),
    }
    return made[kind]() if kind in made else kind
