"""Samples of pipelines: the flow's, back through the transformers, and a scorer that compares generators by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sklearn.pipeline import Pipeline

from wsflow.estimators.inputs import as_networks
from wsflow.evaluation.energy_score import energy_score
from wsflow.task import Task


def sample(model: Any, n_samples: int = 1, random_state: Any = None, **options: Any) -> Any:
    """Draw new networks from a fitted flow or pipeline, as runnable networks.

    Parameters
    ----------
    model : WeightFlow, or Pipeline that ends with one
    n_samples : int
    random_state : int, RandomState or None
    **options
        Of `WeightFlow.sample`, such as `guidance`, `temperature` or `return_log_prob`.

    Returns
    -------
    WeightArray, or ndarray without an architecture, of shape (n_samples, d)
        Canonical representatives; what ``ScaleCanonicalizer(last_layer="unit")`` dropped is put back. With
        ``return_log_prob=True`` a pair, of these and their log-densities before it was.

    Raises
    ------
    ValueError
        If `n_samples` is not positive, or an option does not go with the flow.
    NumericalError
        If the flow leaves the finite numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import wsflow
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> wsflow.sample(wsflow.WeightFlow("euclidean", max_iter=5, random_state=0).fit(X), 3, random_state=0).shape
    (3, 2)
    """
    if not isinstance(model, Pipeline):
        return model.sample(n_samples, random_state, **options)
    drawn = model[-1].sample(n_samples, random_state, **options)
    if options.get("architecture") is not None:
        # another hidden width: the transformers know only their own, and what they would restore is the function
        return drawn
    rows, *log_prob = drawn if options.get("return_log_prob") else (drawn,)
    for _, step in reversed(model.steps[:-1]):
        if step is not None and step != "passthrough":
            rows = step.inverse_transform(rows)
    return (rows, *log_prob) if log_prob else rows


def check_path(guidance: Any, noise: float) -> None:
    """Refuse samples that follow no path along which their log-density could be integrated."""
    if guidance is not None:
        raise ValueError(
            "The log-density of guided samples needs second derivatives of the guidance's loss, which it does not "
            "have. Use return_log_prob=False, or guidance=None."
        )
    if noise > 0:
        raise ValueError(
            "Stochastic samples follow no path along which their log-density could be integrated. Use noise=0, or "
            "return_log_prob=False and score_samples."
        )


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
