"""wsflow: scikit-learn for neural-network weights.

Public names load on first use, so that importing wsflow costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wsflow import hooks

if TYPE_CHECKING:
    from wsflow.architecture import Architecture as Architecture
    from wsflow.estimators.aligner import PermutationAligner as PermutationAligner
    from wsflow.estimators.autoencoder import MetaAutoencoder as MetaAutoencoder
    from wsflow.estimators.canonicalizer import ScaleCanonicalizer as ScaleCanonicalizer
    from wsflow.estimators.flow import WeightFlow as WeightFlow
    from wsflow.estimators.predictors import MetaClassifier as MetaClassifier
    from wsflow.estimators.predictors import MetaRegressor as MetaRegressor
    from wsflow.estimators.procrustes import ProcrustesAligner as ProcrustesAligner
    from wsflow.estimators.sampling import EnergyScorer as EnergyScorer
    from wsflow.estimators.sampling import sample as sample
    from wsflow.estimators.variational import VariationalNetwork as VariationalNetwork
    from wsflow.evaluation.barrier import loss_barrier as loss_barrier
    from wsflow.evaluation.connectivity import interpolate as interpolate
    from wsflow.evaluation.detection import detect as detect
    from wsflow.evaluation.merging import merge as merge
    from wsflow.evaluation.model_averaging import posterior_predictive as posterior_predictive
    from wsflow.evaluation.model_averaging import predictive_curve as predictive_curve
    from wsflow.evaluation.report import evaluate as evaluate
    from wsflow.evaluation.transfer import learning_curves as learning_curves
    from wsflow.flow.guidance import Descent as Descent
    from wsflow.objectives.guidance import Guidance as Guidance
    from wsflow.persistence import from_pretrained as from_pretrained
    from wsflow.persistence import load_model as load_model
    from wsflow.persistence import load_population as load_population
    from wsflow.persistence import load_report as load_report
    from wsflow.persistence import model_card as model_card
    from wsflow.persistence import push_to_hub as push_to_hub
    from wsflow.persistence import save_model as save_model
    from wsflow.persistence import save_population as save_population
    from wsflow.plotting import plot_barrier_matrix as plot_barrier_matrix
    from wsflow.plotting import plot_path as plot_path
    from wsflow.populations.datasets import load_task as load_task
    from wsflow.populations.importers import load_networks as load_networks
    from wsflow.populations.joining import concatenate as concatenate
    from wsflow.populations.population import Population as Population
    from wsflow.populations.training import train_population as train_population
    from wsflow.task import Task as Task
    from wsflow.weights import WeightArray as WeightArray

__version__ = "0.2.0"

_HOMES = {
    "Architecture": "wsflow.architecture",
    "Descent": "wsflow.flow.guidance",
    "EnergyScorer": "wsflow.estimators.sampling",
    "Guidance": "wsflow.objectives.guidance",
    "MetaAutoencoder": "wsflow.estimators.autoencoder",
    "MetaClassifier": "wsflow.estimators.predictors",
    "MetaRegressor": "wsflow.estimators.predictors",
    "PermutationAligner": "wsflow.estimators.aligner",
    "Population": "wsflow.populations.population",
    "ProcrustesAligner": "wsflow.estimators.procrustes",
    "ScaleCanonicalizer": "wsflow.estimators.canonicalizer",
    "Task": "wsflow.task",
    "VariationalNetwork": "wsflow.estimators.variational",
    "WeightArray": "wsflow.weights",
    "WeightFlow": "wsflow.estimators.flow",
    "concatenate": "wsflow.populations.joining",
    "detect": "wsflow.evaluation.detection",
    "evaluate": "wsflow.evaluation.report",
    "from_pretrained": "wsflow.persistence",
    "interpolate": "wsflow.evaluation.connectivity",
    "learning_curves": "wsflow.evaluation.transfer",
    "load_model": "wsflow.persistence",
    "load_networks": "wsflow.populations.importers",
    "load_population": "wsflow.persistence",
    "load_report": "wsflow.persistence",
    "load_task": "wsflow.populations.datasets",
    "loss_barrier": "wsflow.evaluation.barrier",
    "merge": "wsflow.evaluation.merging",
    "model_card": "wsflow.persistence",
    "plot_barrier_matrix": "wsflow.plotting",
    "plot_path": "wsflow.plotting",
    "posterior_predictive": "wsflow.evaluation.model_averaging",
    "predictive_curve": "wsflow.evaluation.model_averaging",
    "push_to_hub": "wsflow.persistence",
    "sample": "wsflow.estimators.sampling",
    "save_model": "wsflow.persistence",
    "save_population": "wsflow.persistence",
    "train_population": "wsflow.populations.training",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wsflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def _later(home: str, name: str) -> Any:
    """Return what imports a function, or a class, when it is called, and calls it."""
    return lambda *arguments: getattr(importlib.import_module(home), name)(*arguments)


hooks.read_module = _later("wsflow.tracing", "architecture_of_module")
hooks.module_of_program = _later("wsflow.running.program", "ProgramModule")
hooks.try_program = _later("wsflow.running.runner", "try_program")
hooks.largest_deviation = lambda *arguments: _later("wsflow.tracing", "certify")(*arguments).deviation
hooks.orbit_approximations = lambda *arguments: _later("wsflow.tracing", "certify_orbits")(*arguments).approximations
hooks.display_of_report = lambda report: _later("wsflow.plotting", "ReportDisplay")(report).plot()
hooks.page_of_report = _later("wsflow.plotting.page", "report_page")


def __dir__() -> list[str]:
    return __all__
