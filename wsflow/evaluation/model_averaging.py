"""Model averages: the posterior predictive of weighted networks, and how averages improve with more networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.evaluation.importance_sampling import effective_sample_size, normalize
from wsflow.evaluation.measures import OOD, measure, measure_average
from wsflow.evaluation.predictive import Mixture, chunked_outputs, has_density
from wsflow.exceptions import InvalidInputError
from wsflow.populations.arguments import takes_networks
from wsflow.representation import in_a_line
from wsflow.running import predictions
from wsflow.running.compatibility import check_task
from wsflow.task import Task
from wsflow.weights import WeightArray

SIZES = (1, 2, 5, 10, 20, 50, 100)
DRAWS = 20


@in_a_line
@dataclass(frozen=True)
class ModelAverage:
    """The average sum_i w_i p_i(x) (b, k), the weights w (n,), which sum to 1, and how many networks they are worth.

    The `numbers` are the measures of the average as a forecast: accuracy, likelihood, Brier score and calibration
    error, or R^2 and mean squared error; of a loss of one's own none are known. The `labels` (b,) are those of the
    largest probabilities, in the task's own terms, and the `variance` (b, m) is that of the mixture; None where there
    are none.
    """

    average: np.ndarray
    weights: np.ndarray
    effective_size: float
    numbers: dict[str, float]
    labels: np.ndarray | None = None
    variance: np.ndarray | None = None


@takes_networks("networks")
def posterior_predictive(
    networks: WeightArray,
    task: Task,
    weights: Any = None,
    log_weights: Any = None,
    temperature: float = 1.0,
) -> ModelAverage:
    """Average the predictions of networks, weighted or not, and measure the average on a task.

    Parameters
    ----------
    weights : array-like of shape (n,), optional
        Not negative; default: all equal.
    log_weights : array-like of shape (n,), optional
        Their logarithms instead, up to a constant.
    temperature : float
        Weights count as w^(1/T): 1 leaves them, infinity makes them equal.

    Raises
    ------
    ValueError
        If there are weights and log-weights, or the temperature is not positive.
    InvalidInputError
        If the weights are not what they should be, or the task is not one of these networks.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, posterior_predictive
    >>> networks = WeightArray(np.zeros((5, 23)), Architecture.mlp([4, 3, 2]))
    >>> found = posterior_predictive(networks, Task(np.eye(4), [0, 1, 0, 1]), weights=[1, 1, 0, 0, 0])
    >>> found.average[0], found.effective_size
    (array([0.5, 0.5]), 2.0)
    """
    check_task(networks.architecture, task)
    share = _share(len(networks), weights, log_weights, temperature)
    mixing = torch.from_numpy(share)
    mixture = Mixture(task, mixing.unsqueeze(0)) if has_density(task) else None
    total, second = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for rows, outputs in _outputs(networks, task.X):
        total = total + torch.einsum("i,ibk->bk", mixing[rows], predictions(outputs, task.loss).double())
        squares = task.criterion.second_moments(outputs.double())
        if mixture is not None and squares is not None:
            mixture.add(outputs)
            second = second + torch.einsum("i,ibk->bk", mixing[rows], squares)
    average, likelihood = total.numpy(), None if mixture is None else mixture.log_likelihood[0]
    variance = None if mixture is None else (second - total.square()).clamp_min(0).numpy()
    labels = labels_of(average, task) if task.is_classification else None
    numbers = measure_average(average, task, likelihood)
    return ModelAverage(average, share, effective_sample_size(share), numbers, labels, variance)


def labels_of(probabilities: np.ndarray, task: Task) -> np.ndarray:
    """Return the likeliest labels in the task's own terms (b,), or an indicator (b, m) of several labels."""
    if task.n_labels > 1:
        return (probabilities > 0.5).astype(np.int64)
    return task.classes_[probabilities.argmax(1)]


def _share(n: int, weights: Any, log_weights: Any, temperature: float) -> np.ndarray:
    """Return weights (n,) that sum to 1."""
    if weights is not None and log_weights is not None:
        raise ValueError("Networks are weighted by 'weights' or by 'log_weights'. Pass one of them.")
    if weights is not None:
        effective_sample_size(weights)
        with np.errstate(divide="ignore"):
            log_weights = np.log(np.asarray(weights, dtype=np.float64))
    values = np.zeros(n) if log_weights is None else np.asarray(log_weights, dtype=np.float64)
    if values.shape != (n,):
        raise InvalidInputError(f"{n} networks have {n} weights, got the shape {values.shape}.")
    return normalize(values, temperature)


@in_a_line
@dataclass(frozen=True)
class PredictiveCurve:
    """The measures of model averages, by how many networks are in them.

    Parameters
    ----------
    mean, sd : dict from str to ndarray of shape (sizes,)
        Over draws of that many networks: the measures of a forecast, and ``"ood_auroc"`` if foreign inputs were given.
        Draws overlap where the size is not small beside the number of networks, and the sd is then too small.
    """

    sizes: tuple[int, ...]
    mean: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]


@takes_networks("weights", named=True)
def predictive_curve(
    weights: WeightArray | Mapping[str, WeightArray],
    task: Task,
    sizes: Sequence[int] = SIZES,
    *,
    ood: np.ndarray | None = None,
    ood_score: str = "entropy",
    draws: int = DRAWS,
    random_state: int = 0,
) -> Any:
    """Measure model averages on held-out data, by the number of networks in them (Lakshminarayanan et al. 2017).

    Parameters
    ----------
    weights : WeightArray of shape (n, d), or mapping from names to such
        Samples of a flow or of a `VariationalNetwork`, a deep ensemble of trained networks, or what else is to be
        averaged; several sources have a curve each, as `wsflow.plotting.PredictiveDisplay` takes them.
    sizes : sequence of int
        Those above n are left out.
    ood : ndarray of shape (b, p), optional
        Foreign inputs, for a classification.
    ood_score : {"entropy", "max_probability"}
        As in `wsflow.evaluation.ood_auroc`.
    draws : int
        How many times to draw networks, without replacement, for each size.

    Returns
    -------
    PredictiveCurve, or dict from names to PredictiveCurve

    Raises
    ------
    InvalidInputError
        If no size is possible, foreign inputs are given for a regression, or the loss is a function of one's own, for
        whose averages no measure is known.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, predictive_curve
    >>> rows = np.random.default_rng(0).normal(size=(8, 23))
    >>> curve = predictive_curve(WeightArray(rows, Architecture.mlp([4, 3, 2])), Task(np.eye(4), [0, 1, 0, 1]))
    >>> curve.sizes, bool(curve.mean["nll"][-1] < curve.mean["nll"][0])
    ((1, 2, 5), True)
    """
    if isinstance(weights, Mapping):
        options: Any = {"ood": ood, "ood_score": ood_score, "draws": draws, "random_state": random_state}
        return {name: predictive_curve(each, task, sizes, **options) for name, each in weights.items()}
    check_task(weights.architecture, task)
    possible = tuple(sorted(size for size in set(sizes) if 1 <= size <= len(weights)))
    if not possible:
        raise InvalidInputError(f"No average of {min(sizes, default=0)} networks can be made of {len(weights)}.")
    if "custom" in task.criterion.kinds:
        raise InvalidInputError(
            "The loss of this task is a function of your own, and no measure of a model average is known for it: give "
            "the task one of the named losses, or average its outputs by posterior_predictive."
        )
    if ood is not None and not task.is_classification:
        raise InvalidInputError(
            "Foreign inputs are detected by probabilities, and this task is a regression: leave out 'ood'."
        )
    mixing = _mixing(len(weights), possible, draws, random_state)
    data = task.held_out
    inside = _averages(weights, data.X, task.loss, mixing)
    likelihoods: Any = _log_likelihoods(weights, data, mixing) if has_density(data) else [None] * len(inside)
    found = [measure_average(average, data, known) for average, known in zip(inside, likelihoods, strict=True)]
    if ood is not None:
        outside = _averages(weights, ood, task.loss, mixing)
        for row, *pair in zip(found, inside, outside, strict=True):
            known, foreign = (_by_label(average) if task.n_labels > 1 else average for average in pair)
            counted = slice(None) if data.weights is None else data.weights > 0
            shares = None if data.weights is None else data.weights[counted]
            row |= measure(OOD, data, known[counted], foreign, ood_score, shares)
    values = {key: np.array([row[key] for row in found]).reshape(len(possible), draws) for key in found[0]}
    mean, sd = ({key: getattr(v, name)(axis=1) for key, v in values.items()} for name in ("mean", "std"))
    return PredictiveCurve(possible, mean, sd)


def _mixing(n: int, sizes: Sequence[int], draws: int, random_state: int) -> Tensor:
    """Return the weight of each network in each average, of shape (sizes x draws, n)."""
    mixing = np.zeros((len(sizes), draws, n))
    for index, size in enumerate(sizes):
        # a generator of its own for each size: leaving one out changes no other
        chosen = np.random.default_rng([random_state, size]).random((draws, n)).argsort(1)[:, :size]
        np.put_along_axis(mixing[index], chosen, 1 / size, axis=1)
    return torch.from_numpy(mixing.reshape(-1, n)).float()


def _averages(weights: WeightArray, inputs: np.ndarray, loss: Any, mixing: Tensor) -> np.ndarray:
    """Return the averages (averages, b, k) of predictions, adding up one chunk of networks after the other."""
    total = torch.zeros(1, dtype=torch.float32)
    for rows, outputs in _outputs(weights, inputs):
        predicted = predictions(outputs, loss)
        part = mixing[:, rows] @ predicted.flatten(1)
        total = total + part.reshape(len(mixing), *predicted.shape[1:])
    return total.numpy()


def _log_likelihoods(weights: WeightArray, task: Task, mixing: Tensor) -> np.ndarray:
    """Return the log-likelihoods (averages, b, m) of a task's targets under averages of densities or counts."""
    mixture = Mixture(task, mixing)
    for _, outputs in _outputs(weights, task.X):
        mixture.add(outputs)
    return mixture.log_likelihood


def _by_label(average: np.ndarray) -> np.ndarray:
    """Return the probabilities (b, m, 2) of no and yes from those of labels (b, m)."""
    return np.stack([1 - average, average], -1)


def _outputs(weights: WeightArray, inputs: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
    """Yield the outputs (m, b, k) of a few networks at a time, with the rows that they are."""
    start = 0
    for outputs in chunked_outputs(weights, inputs):
        yield slice(start, start + len(outputs)), outputs
        start += len(outputs)
