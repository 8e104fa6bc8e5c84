"""Evidence on predictors of networks: ranks with their ceiling, scores within orbits, what settings alone tell.

References
----------
Kendall 1945, "The treatment of ties in ranking problems", Biometrika 33(3) (tau-b); Unterthiner et al. 2020,
arXiv:2002.11448 (accuracy from weights, beside a predictor of hyperparameters alone).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wsflow.exceptions import InvalidInputError
from wsflow.representation import in_a_line
from wsflow.symmetry.actions import Action
from wsflow.weights import WeightArray


def kendall_tau(y: Any, predicted: Any) -> float:
    """Return Kendall's tau-b between numbers and predictions of them; 0 where one of them is constant.

    Parameters
    ----------
    y, predicted : array-like of shape (n,)

    See Also
    --------
    tau_ceiling : the largest one that predictions without ties may have.

    Examples
    --------
    >>> from wsflow.evaluation import kendall_tau
    >>> round(kendall_tau([1, 2, 3, 4], [1.0, 3.0, 2.0, 4.0]), 4)
    0.6667
    """
    from scipy.stats import kendalltau

    first, second = _numbers(y, "y"), _numbers(predicted, "predicted")
    if len(first) != len(second):
        raise InvalidInputError(f"There are {len(second)} predictions of {len(first)} numbers: pass one for each.")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(kendalltau(first, second).statistic)


def tau_ceiling(y: Any) -> float:
    """Return the largest tau-b that predictions without ties of their own reach, which ties in the numbers impose.

    Of all pairs only those that differ in y count for such predictions, but all of theirs are in the denominator: with
    n0 pairs, of which n1 are tied in y, it is sqrt((n0 - n1) / n0).

    Parameters
    ----------
    y : array-like of shape (n,)

    Examples
    --------
    >>> from wsflow.evaluation import tau_ceiling
    >>> tau_ceiling([1, 2, 3]), round(tau_ceiling([1, 1, 2]), 4)
    (1.0, 0.8165)
    """
    values = _numbers(y, "y")
    pairs = len(values) * (len(values) - 1) / 2
    counts = np.unique(values, return_counts=True)[1]
    tied = float((counts * (counts - 1) / 2).sum())
    return float(np.sqrt((pairs - tied) / pairs))


@in_a_line
@dataclass(frozen=True)
class OrbitScore:
    """Hold the score of a predictor on networks, and on the same functions in other places of their orbits.

    Parameters
    ----------
    clean, moved : float
        The second one is the mean over all draws of group elements.
    worst : float
        The lowest score of a draw.
    """

    clean: float
    moved: float
    worst: float

    @property
    def loss(self) -> float:
        """What the moves cost."""
        return self.clean - self.moved


def orbit_score(
    model: Any,
    X: WeightArray,
    y: Any,
    *,
    scoring: Callable[[Any, Any], float] | None = None,
    n_draws: int = 1,
    log_scale: float = 1.0,
    random_state: int = 0,
) -> OrbitScore:
    """Score a predictor on test networks, and again after random symmetries of their architecture have moved them.

    The moved networks are the same functions, so that nothing that is to be predicted of them has changed.

    Parameters
    ----------
    model : predictor, or a pipeline that ends with one
        With `predict`, and `score` where there is no `scoring`.
    X : WeightArray of shape (n, d)
    y : array-like of shape (n,)
    scoring : callable, optional
        From y and predictions to a number, such as `kendall_tau`; by default the model's own score.
    n_draws : int
        How often all networks are moved.
    log_scale : float
        Standard deviation of the normal logarithms of positive scales.
    random_state : int

    Raises
    ------
    InvalidInputError
        If X has no architecture, or one without symmetries.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, MetaRegressor, WeightArray
    >>> from wsflow.evaluation import orbit_score
    >>> X = WeightArray(np.random.default_rng(0).normal(size=(60, 23)), Architecture.mlp([4, 3, 2]))
    >>> y = np.asarray(X[:, :12]).std(axis=1)
    >>> invariant = MetaRegressor("statistics", max_iter=50, random_state=0).fit(X[:50], y[:50])
    >>> abs(orbit_score(invariant, X[50:], y[50:]).loss) < 1e-9
    True
    """
    if not isinstance(X, WeightArray) or not (X.architecture.groups or X.architecture.wires):
        raise InvalidInputError(
            "orbit_score moves networks by the symmetries of their architecture: pass networks with an architecture "
            "that has some."
        )

    def score(networks: Any) -> float:
        return float(model.score(networks, y) if scoring is None else scoring(y, model.predict(networks)))

    generator = torch.Generator().manual_seed(random_state)
    moved = []
    for _ in range(n_draws):
        action = Action.random(X.architecture, len(X), generator, log_scale)
        moved.append(score(action(X)))
    return OrbitScore(score(X), float(np.mean(moved)), min(moved))


@in_a_line
@dataclass(frozen=True)
class HyperparameterBaseline:
    """Hold what hyperparameters alone tell of networks.

    Parameters
    ----------
    predicted : ndarray of shape (n,)
        Of each network from the others, whole runs held out.
    score : float
        The coefficient of determination of numbers, or the accuracy of classes.
    tau : float
        Kendall's tau-b of numbers; not a number for classes.
    """

    predicted: np.ndarray
    score: float
    tau: float


def hyperparameter_baseline(
    hyperparameters: Any, y: Any, groups: Any = None, *, n_splits: int = 5, random_state: int = 0
) -> HyperparameterBaseline:
    """Predict numbers or classes of networks from their hyperparameters alone, by gradient-boosted trees.

    What a metanetwork adds is what it has beyond this.

    Parameters
    ----------
    hyperparameters : mapping of str to array-like of shape (n,), or array-like of shape (n, k)
        Texts count as categories.
    y : array-like of shape (n,)
        Numbers, or classes where they are texts, booleans or whole numbers.
    groups : array-like of shape (n,), optional
        The run of each network, which is held out as a whole; by default each is one.
    n_splits : int
    random_state : int

    Raises
    ------
    InvalidInputError
        If lengths differ, or there are fewer runs than splits.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation import hyperparameter_baseline
    >>> rate = np.random.default_rng(0).uniform(size=200)
    >>> hyperparameter_baseline({"learning_rate": rate}, rate**2).score > 0.9
    True
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    features, values = _features(hyperparameters), np.asarray(y)
    runs = np.arange(len(values)) if groups is None else np.asarray(groups)
    if not len(features) == len(values) == len(runs):
        raise InvalidInputError(
            f"There are hyperparameters of {len(features)} networks, {len(values)} values of y and {len(runs)} groups: "
            "pass one for each network."
        )
    if len(np.unique(runs)) < n_splits:
        raise InvalidInputError(
            f"{n_splits} splits hold out whole runs, and there are {len(np.unique(runs))}: pass a smaller n_splits."
        )
    is_number = values.dtype.kind == "f"
    kind = HistGradientBoostingRegressor if is_number else HistGradientBoostingClassifier
    model, splits = kind(random_state=random_state), GroupKFold(n_splits)
    predicted = cross_val_predict(model, features, values, groups=runs, cv=splits)
    if is_number:
        return HyperparameterBaseline(predicted, float(r2_score(values, predicted)), kendall_tau(values, predicted))
    return HyperparameterBaseline(predicted, float(accuracy_score(values, predicted)), float("nan"))


def _features(hyperparameters: Any) -> np.ndarray:
    given = hyperparameters
    columns = list(given.values()) if isinstance(given, Mapping) else list(np.asarray(given).T)
    if not columns:
        raise InvalidInputError("There are no hyperparameters: pass one array or more.")
    arrays = [np.asarray(column) for column in columns]
    numbers = [
        np.unique(a.astype(str), return_inverse=True)[1] if a.dtype.kind in "OUS" else a.astype(float) for a in arrays
    ]
    return np.stack(numbers, 1)


def _numbers(values: Any, name: str) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all():
        raise InvalidInputError(f"{name} is a list of two finite numbers or more, got shape {found.shape}.")
    return found
