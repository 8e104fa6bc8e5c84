"""Scorers for scikit-learn's searches, which compare generators that log-densities do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsflow.estimators.inputs import as_networks
from wsflow.estimators.sampling import sample
from wsflow.evaluation.energy_score import energy_score
from wsflow.task import Task


@dataclass(frozen=True)
class EnergyScorer:
    """Score a generator by how well its samples have the law of held-out networks: ``scoring=`` of a search.

    The score is minus the energy score (see `wsflow.evaluation.energy_score`), which is strictly proper: in expectation
    the law of the held-out networks has the highest one, a generator that collapses or blurs has a lower one. It is
    that of runnable samples, after the transformers of a pipeline are undone, so that geometries, sources,
    preprocessing and generators without a density compare. Log-densities do not: their volumes differ, and a flow that
    is not on the spheres of canonical networks has one that grows without bound as it comes near them.

    Copies of n training networks lose little by it, half their mean distance over n: look at the novelty of what a
    search has chosen with `wsflow.evaluate`.

    Parameters
    ----------
    task : Task, optional
        Networks are compared by predictions on its held-out inputs; without one, by their weights.
    n_samples : int
        How many to draw; more make the score less noisy.
    random_state : int
        The same for every candidate, so that scores differ by the candidates.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from wsflow import Architecture, EnergyScorer, ScaleCanonicalizer, WeightArray, WeightFlow
    >>> rows = np.random.default_rng(0).normal(size=(40, 17))
    >>> X = ScaleCanonicalizer().fit_transform(WeightArray(rows, Architecture.mlp([2, 4, 1])))
    >>> flow = WeightFlow(max_iter=1, random_state=0)
    >>> search = GridSearchCV(flow, {"geometry": ["euclidean", "geometric"]}, scoring=EnergyScorer(), cv=2).fit(X)
    >>> bool((search.cv_results_["mean_test_score"] < 0).all())
    True
    """

    task: Task | None = None
    n_samples: int = 200
    random_state: int = 0

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Return the score of a fitted flow or pipeline on held-out networks X (n, d); y is ignored."""
        drawn = sample(estimator, self.n_samples, self.random_state)
        return -energy_score(drawn, as_networks(estimator, X), self.task)
