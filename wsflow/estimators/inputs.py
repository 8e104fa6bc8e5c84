"""What users pass as networks, and warnings of what an estimator will not do with it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.architecture.modules import is_sequential
from wsflow.arrays import dense
from wsflow.evaluation.verdict import RUNS_PER_WEIGHT
from wsflow.exceptions import (
    FewRunsWarning,
    InvalidInputError,
    MissingArchitectureWarning,
    UnequalSpreadsWarning,
    WsflowWarning,
)
from wsflow.flow.sources import HARDLY
from wsflow.geometry import Geometry
from wsflow.manifolds import Sphere
from wsflow.populations.population import Population
from wsflow.weights import WeightArray

# a tenth of fewer runs is no run, so that none is held out for validation
FEW_RUNS = 10
# packages whose own calls of an estimator are not where a user would look
BETWEEN = ("wsflow", "sklearn", "joblib")


def as_networks(estimator: Any, X: Any) -> Any:
    """Return the weights of a Population, or a WeightArray of a list of modules or state dicts; all else as it is.

    An InvalidInputError says what to pass instead of a path, of several populations, or of a single network.
    """
    if isinstance(X, Population):
        return X.weights
    X = dense(X, f"The X of {type(estimator).__name__}")
    if isinstance(X, Iterator) or (str(getattr(X, "dtype", "")) == "object" and X.ndim == 1):
        X = list(X)
    first = X[0] if isinstance(X, (list, tuple)) and X else X
    if isinstance(first, (str, Path)):
        raise InvalidInputError(
            f"{type(estimator).__name__} takes networks, not the name of a file. Pass "
            f"wsflow.load_population({str(first)!r}).weights, or wsflow.load_networks of files of other tools."
        )
    # some sparse matrices are dictionaries
    if isinstance(X, nn.Module) or (isinstance(X, dict) and not hasattr(X, "shape")):
        raise InvalidInputError(
            f"{type(estimator).__name__} takes many networks, and this is one {type(X).__name__}: pass a list of them."
        )
    if not isinstance(X, (list, tuple)) or not X:
        return X
    if isinstance(first, nn.Module):
        return _of_modules(estimator, X)
    if isinstance(first, Mapping):
        return _of_states(estimator, X)
    if isinstance(first, (Population, WeightArray)):
        raise InvalidInputError(
            f"{type(estimator).__name__} takes one population, and this is a {type(X).__name__} of {len(X)}. Join them "
            "with wsflow.concatenate."
        )
    return X


def _known(estimator: Any) -> Any:
    return getattr(estimator, "architecture_", None) or estimator.architecture


def _of_modules(estimator: Any, modules: Any) -> WeightArray:
    if all(is_sequential(module) for module in modules):
        return WeightArray.from_modules(modules)
    if _known(estimator) is None:
        raise InvalidInputError(
            f"{type(estimator).__name__} reads lists of nn.Sequential of Linear and activation layers by itself. Pass "
            "WeightArray.from_modules(modules, example_input=x), with an input x of these networks."
        )
    return WeightArray.from_modules(modules, _known(estimator))


def _of_states(estimator: Any, states: Any) -> WeightArray:
    if _known(estimator) is None:
        raise InvalidInputError(
            "A state dict does not say which activation lies between its layers. Pass "
            "WeightArray.from_state_dicts(states, activation='relu') (or another), or architecture=."
        )
    return WeightArray.from_state_dicts(states, architecture=_known(estimator))


def warn_of_plain(estimator: Any, what: str) -> None:
    """Warn that rows have no architecture, and of what is therefore not done."""
    name = type(estimator).__name__
    warn(
        f"X is a plain array, and no architecture says what its columns are: {name} {what}. Pass a WeightArray, such "
        f"as WeightArray(X, architecture), or {name}(architecture=Architecture.mlp([...])).",
        MissingArchitectureWarning,
    )


def warn_of_few(estimator: Any, n: int, n_runs: int) -> None:
    """Warn of so few runs that nothing keeps a flow from learning them by heart."""
    if n_runs >= FEW_RUNS:
        return
    architecture = estimator.architecture_
    needed = (
        "" if architecture is None else f", about {round(RUNS_PER_WEIGHT * architecture.n_weights)} for such networks"
    )
    warn(
        f"{type(estimator).__name__} is fitted to {n} rows of {n_runs} runs, too few to hold one out: expect samples "
        f"that are hardly more than copies of these rows. Train more runs{needed}.",
        FewRunsWarning,
    )


def warn_of_unequal_spreads(geometry: Geometry, points: Tensor) -> None:
    """Warn of spheres on which points (n, size) vary so little beside others that one unit for all is too coarse."""
    variances = points.var(0, correction=0)
    columns = [rows for manifold, rows in geometry.manifold.factors if isinstance(manifold, Sphere)]
    spreads = torch.cat([variances[rows].sum(-1).sqrt() for rows in columns]) if columns else points.new_zeros(1)
    small = int((spreads < HARDLY * spreads.amax()).sum())
    if small:
        warn(
            f"{small} of {len(spreads)} neurons vary less than {HARDLY:.0%} as much as others do, and samples of these "
            "neurons will vary too much: this flow has one unit for all. Where neurons have names, each has its own: "
            "use source='gaussian' and velocity=NeuronTransformer(identity='learned').",
            UnequalSpreadsWarning,
        )


def warn(text: str, category: type[WsflowWarning]) -> None:
    """Warn at the line of the first caller outside of wsflow and scikit-learn, where Python shows a warning once."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
