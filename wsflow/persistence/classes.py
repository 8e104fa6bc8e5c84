"""The classes whose objects the file of a model may hold, by name: nothing else that a file names is imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

# name of a class -> the module that defines it, imported when a model is saved or loaded
STEPS: dict[str, str] = {
    "MetaAutoencoder": "wsflow.estimators.autoencoder",
    "MetaClassifier": "wsflow.estimators.predictors",
    "MetaRegressor": "wsflow.estimators.predictors",
    "PermutationAligner": "wsflow.estimators.aligner",
    "ProcrustesAligner": "wsflow.estimators.procrustes",
    "ScaleCanonicalizer": "wsflow.estimators.canonicalizer",
    "VariationalNetwork": "wsflow.estimators.variational",
    "WeightFlow": "wsflow.estimators.flow",
}
HOLDERS: dict[str, str] = {
    "Asymmetry": "wsflow.populations.asymmetry",
    "TraceEstimator": "wsflow.flow.divergence",
    "RungeKutta": "wsflow.flow.solvers",
    "DormandPrince": "wsflow.flow.adaptive",
    **dict.fromkeys(
        (
            "NetworkGeometry", "NeuronTransformer", "RelationalTransformer", "MLP", "GaussianSource",
            "ExchangeableSource", "IsotropicSource", "InitialSource",
            "ConsensusHints", "EnergyMatching", "ScalarCondition", "LabelCondition", "AdamW",
        ),
        "wsflow.models.options",
    ),
    **dict.fromkeys(
        ("Statistics", "DeepSets", "Convolutional", "NeuralGraph", "ScaleEquivariant", "Probe"),
        "wsflow.models.metanetworks",
    ),
    **dict.fromkeys(
        ("WeightMatching", "ActivationMatching", "SinkhornMatching", "StraightThroughMatching", "ChainMatching"),
        "wsflow.symmetry.matching.methods",
    ),
}  # fmt: skip


def class_of(name: str, homes: Mapping[str, str]) -> Any:
    """Return the class of that name, importing the module that defines it."""
    return getattr(import_module(homes[name]), name)


def holders() -> dict[str, type]:
    """Return the classes of parameters that hold parameters of their own."""
    return {name: class_of(name, HOLDERS) for name in HOLDERS}
