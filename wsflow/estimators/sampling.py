"""Sampling from a pipeline: the flow's samples, back through the transformers."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline


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
