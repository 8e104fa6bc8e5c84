"""Weighted model averages: importance weights of networks, how many networks they are worth, and what these predict.

References
----------
Kish 1965, "Survey Sampling" (effective sample size); Owen 2013, "Monte Carlo theory, methods and examples", chapter 9
(self-normalised importance sampling); Wenzel et al. 2020, arXiv:2002.02405 (tempered posteriors).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from wsflow.evaluation.predictive import calibration, chunked_outputs, predict
from wsflow.exceptions import InvalidInputError
from wsflow.running import predictions
from wsflow.task import Task, check_task
from wsflow.weights import WeightArray

BISECTIONS = 60


@dataclass(frozen=True)
class Averaged:
    """A weighted model average.

    Parameters
    ----------
    average : ndarray of shape (b, k)
        sum_i w_i p_i(x), probabilities or outputs of a regression.
    weights : ndarray of shape (n,)
        w, which sum to 1.
    effective_size : float
        How many equally weighted networks they are worth.
    numbers : dict from str to float
        Those of the average on the task's targets, as `wsflow.evaluation.predictive.calibration` gives them.
    """

    average: np.ndarray
    weights: np.ndarray
    effective_size: float
    numbers: dict[str, float]


def normalized(log_weights: Any) -> np.ndarray:
    """Weights that sum to 1, from their logarithms up to a constant.

    Parameters
    ----------
    log_weights : array-like of shape (n,)
        Minus infinity is a weight of zero.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    InvalidInputError
        If there is none, one is not a number or plus infinity, or all are zero.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.averaging import normalized
    >>> normalized(np.log([2.0, 6.0]) - 1000)
    array([0.25, 0.75])
    """
    values = np.asarray(log_weights, dtype=np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any() or not np.isfinite(values.max()):
        raise InvalidInputError(
            "Log-weights are one number for each network, none of them NaN or plus infinity, and not all of them minus "
            f"infinity; got the shape {values.shape}."
        )
    return np.exp(values - logsumexp(values))


def effective_sample_size(weights: Any) -> float:
    """Kish's (sum w)^2 / sum w^2: how many equally weighted networks some weights are worth.

    Parameters
    ----------
    weights : array-like of shape (n,)
        Not negative; they need not sum to 1.

    Returns
    -------
    float
        Between 1 and n.

    Raises
    ------
    InvalidInputError
        If a weight is negative or not finite, or all are zero.

    Examples
    --------
    >>> from wsflow.evaluation.averaging import effective_sample_size
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
    """Self-normalised weights that turn draws of q into draws of a tempered posterior, w ~ L^(1/T) p / q.

    For networks drawn from their own prior, leave both densities out.

    Parameters
    ----------
    log_likelihood : array-like of shape (n,)
        log L, in nats.
    log_prior, log_q : array-like of shape (n,) or float
        Log-densities of the networks under the prior, and under what they were drawn from, with respect to the same
        volume; such as `score_samples` of a flow.
    temperature : float
        T: 1 is the posterior; above 1, the data count less.

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    ValueError
        If the temperature is not positive.
    InvalidInputError
        As `normalized`.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.averaging import importance_weights
    >>> importance_weights(np.log([1.0, 9.0]), temperature=2.0)
    array([0.25, 0.75])
    """
    _check_temperature(temperature)
    parts = (np.asarray(part, dtype=np.float64) for part in (log_likelihood, log_prior, log_q))
    likelihood, prior, proposal = parts
    return normalized(likelihood / temperature + prior - proposal)


def temperature_for(log_weights: Any, effective_size: float) -> float:
    """The lowest temperature T >= 1 at which w^(1/T) are worth so many networks.

    Parameters
    ----------
    log_weights : array-like of shape (n,)
    effective_size : float
        Between 1 and the number of networks with a weight.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If no temperature gives that size.

    Examples
    --------
    >>> from wsflow.evaluation.averaging import effective_sample_size, normalized, temperature_for
    >>> log_weights = [0.0, -10.0, -20.0]
    >>> temperature = temperature_for(log_weights, 2.0)
    >>> round(effective_sample_size(normalized([w / temperature for w in log_weights])), 6)
    2.0
    """
    values = np.asarray(log_weights, dtype=np.float64)
    weighted = int(np.isfinite(values).sum())
    if effective_sample_size(normalized(values)) >= effective_size:
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
        enough = effective_sample_size(normalized(middle * values)) >= effective_size
        low, high = (middle, high) if enough else (low, middle)
    return 1 / low


def log_likelihoods(networks: WeightArray, task: Task, noise: float = 1.0) -> np.ndarray:
    """Log-likelihood of each network on all examples of a task.

    Parameters
    ----------
    networks : WeightArray of shape (n, d)
    task : Task
    noise : float
        Standard deviation of the targets of a regression around the outputs.

    Returns
    -------
    ndarray of shape (n,)
        In nats: minus the summed cross-entropy, or the log-density of independent normal errors.

    Raises
    ------
    InvalidInputError
        As `predict`.
    """
    losses = predict(networks, task).losses
    if task.is_classification:
        return -len(task.X) * losses
    return -task.y.size * (losses / (2 * noise**2) + 0.5 * log(2 * pi * noise**2))


def posterior_predictive(
    networks: WeightArray,
    task: Task,
    weights: Any = None,
    log_weights: Any = None,
    temperature: float = 1.0,
) -> Averaged:
    """The weighted average of what networks predict, and how many networks it is worth.

    Parameters
    ----------
    networks : WeightArray of shape (n, d)
    task : Task
    weights : array-like of shape (n,), optional
        Not negative; default: all equal.
    log_weights : array-like of shape (n,), optional
        Their logarithms instead, up to a constant.
    temperature : float
        Weights count as w^(1/T): 1 leaves them, infinity makes them equal.

    Returns
    -------
    Averaged

    Raises
    ------
    ValueError
        If there are weights and log-weights, or the temperature is not positive.
    InvalidInputError
        If the weights are not what they should be, or the task is not one of these networks.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.evaluation.averaging import posterior_predictive
    >>> networks = WeightArray(np.zeros((5, 23)), Architecture.mlp([4, 3, 2]))
    >>> found = posterior_predictive(networks, Task(np.eye(4), [0, 1, 0, 1]), weights=[1, 1, 0, 0, 0])
    >>> found.average[0], found.effective_size
    (array([0.5, 0.5]), 2.0)
    """
    check_task(networks.architecture, task)
    share = _share(len(networks), weights, log_weights, temperature)
    total, start = torch.zeros(1, dtype=torch.float64), 0
    for outputs in chunked_outputs(networks, task.X):
        part = torch.from_numpy(share[start : start + len(outputs)])
        total = total + torch.einsum("i,ibk->bk", part, predictions(outputs, task.loss).double())
        start += len(outputs)
    average = total.numpy()
    return Averaged(average, share, effective_sample_size(share), calibration(average, task))


def _share(n: int, weights: Any, log_weights: Any, temperature: float) -> np.ndarray:
    """Weights that sum to 1."""
    _check_temperature(temperature)
    if weights is not None and log_weights is not None:
        raise ValueError("Networks are weighted by 'weights' or by 'log_weights'. Pass one of them.")
    if weights is not None:
        effective_sample_size(weights)
        with np.errstate(divide="ignore"):
            log_weights = np.log(np.asarray(weights, dtype=np.float64))
    values = np.zeros(n) if log_weights is None else np.asarray(log_weights, dtype=np.float64)
    if values.shape != (n,):
        raise InvalidInputError(f"{n} networks have {n} weights, got the shape {values.shape}.")
    return normalized(values / temperature)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"The 'temperature' of weights is positive, got {temperature!r}.")
