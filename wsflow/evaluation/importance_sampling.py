"""Importance weights of networks, and how many networks they are worth."""

from __future__ import annotations

from math import log, pi
from typing import Any

import numpy as np
from scipy.special import logsumexp

from wsflow.evaluation.predictive import predict
from wsflow.exceptions import InvalidInputError
from wsflow.task import Task
from wsflow.weights import WeightArray

BISECTIONS = 60


def normalize(log_weights: Any, temperature: float = 1.0) -> np.ndarray:
    """Return weights w^(1/T) (n,) that sum to 1, from log w (n,) up to a constant; minus infinity is no weight."""
    _check_temperature(temperature)
    values = np.asarray(log_weights, dtype=np.float64) / temperature
    if values.ndim != 1 or not len(values) or np.isnan(values).any() or not np.isfinite(values.max()):
        raise InvalidInputError(
            "Log-weights are one number for each network, none of them NaN or plus infinity, and not all of them minus "
            f"infinity; got the shape {values.shape}."
        )
    return np.exp(values - logsumexp(values))


def effective_sample_size(weights: Any) -> float:
    """Compute (sum w)^2 / sum w^2 (Kish 1965): how many equally weighted networks weights (n,) are worth.

    >>> effective_sample_size([1, 1, 1, 0]), effective_sample_size([5.0])
    (3.0, 1.0)
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InvalidInputError("Weights are finite, not negative, and not all zero.")
    share = values / values.max()
    return float(share.sum() ** 2 / np.square(share).sum())


def importance_weights(
    log_likelihood: Any, log_prior: Any = 0.0, log_q: Any = 0.0, *, temperature: float = 1.0
) -> np.ndarray:
    """Compute self-normalised weights that turn draws of q into draws of a tempered posterior, w ~ L^(1/T) p / q.

    Parameters
    ----------
    log_likelihood : array-like of shape (n,)
        log L, in nats.
    log_prior, log_q : array-like of shape (n,) or float
        Log-densities of the networks under the prior, and under what they were drawn from, with respect to the same
        volume; such as `score_samples` of a flow. For networks drawn from their own prior, leave both out.
    temperature : float
        T: 1 is the posterior; above 1, the data count less.

    References
    ----------
    Owen 2013, "Monte Carlo theory, methods and examples", chapter 9; Wenzel et al. 2020, arXiv:2002.02405 (tempered
    posteriors).

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.importance_sampling import importance_weights
    >>> importance_weights(np.log([1.0, 9.0]), temperature=2.0)
    array([0.25, 0.75])
    """
    _check_temperature(temperature)
    likelihood, prior, proposal = (np.asarray(term, dtype=np.float64) for term in (log_likelihood, log_prior, log_q))
    return normalize(likelihood / temperature + prior - proposal)


def temperature_for(log_weights: Any, effective_size: float) -> float:
    """Find the lowest temperature T >= 1 at which w^(1/T) (n,) are worth so many networks; a ValueError if none is."""
    values = np.asarray(log_weights, dtype=np.float64)
    weighted = int(np.isfinite(values).sum())
    if effective_sample_size(normalize(values)) >= effective_size:
        return 1.0
    if not effective_size < weighted:
        raise ValueError(
            f"{weighted} networks with a weight are worth less than {effective_size:g} at any temperature. "
            "Ask for a smaller effective size, or draw more networks."
        )
    # the size grows with T, from the present one at T = 1 to all of them at infinity: bisect in 1/T
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        enough = effective_sample_size(normalize(middle * values)) >= effective_size
        low, high = (middle, high) if enough else (low, middle)
    return 1 / low


def log_likelihoods(networks: WeightArray, task: Task, noise: float = 1.0) -> np.ndarray:
    """Compute the log-likelihood (n,) of each network on all examples of a task, in nats.

    It is minus the summed loss where that is a negative log-likelihood, or for squared errors the log-density of
    independent normal errors with the standard deviation `noise`; each example counts by its weight. An
    InvalidInputError says that a function of one's own is no likelihood.
    """
    kinds = task.criterion.kinds
    if "custom" in kinds:
        raise InvalidInputError(
            "The loss of this task is a function of your own, of which no likelihood is known: compute it yourself."
        )
    losses = predict(networks, task).losses
    n_targets = task.size * (1 if task.targets.ndim == 1 else task.targets.shape[1])
    if "likelihood" in kinds:
        return -n_targets * losses
    return -n_targets * (losses / (2 * noise**2) + 0.5 * log(2 * pi * noise**2))


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"The 'temperature' of weights is positive, got {temperature!r}.")
