"""What networks predict on data: scores, losses, model averages, calibration and diversity.

A model average is the mean of probabilities, p(x) = 1/n sum_i p_i(x), never of logits.

References
----------
Lakshminarayanan, Pritzel and Blundell 2017, arXiv:1612.01474 (averages of predictions);
Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599 (calibration error);
Lin 1991, "Divergence measures based on the Shannon entropy" (the generalised Jensen-Shannon divergence).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.exceptions import InvalidInputError
from wsflow.running import forward, losses, scores
from wsflow.task import Task, check_task
from wsflow.weights import WeightArray

# activations of one chunk of networks: 2^20 numbers, 4 MiB in float32, stay near the processor
CHUNK_NUMBERS = 2**20
MODULE_NETWORKS, MODULE_EXAMPLES = 8, 512


@dataclass(frozen=True)
class Predictive:
    """What a set of networks predicts on a task.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Accuracy of each network, or R^2.
    losses : ndarray of shape (n,)
        Mean loss of each network.
    average : ndarray of shape (b, k)
        The mean of the networks' probabilities, or of their outputs for a regression.
    jsd : float
        Generalised Jensen-Shannon divergence between the networks' predictive distributions, H(mean p) -
        mean H(p), averaged over inputs, in nats; NaN for a regression.
    wrong : ndarray of bool, shape (n, b), optional
        Which inputs each network classifies wrongly; None for a regression.
    """

    scores: np.ndarray
    losses: np.ndarray
    average: np.ndarray
    jsd: float
    wrong: np.ndarray | None = None


def predict(weights: WeightArray, task: Task) -> Predictive:
    """Run every network on a task's inputs.

    Parameters
    ----------
    weights : WeightArray of shape (n, d)
    task : Task

    Returns
    -------
    Predictive

    Raises
    ------
    InvalidInputError
        If there is no network, or the task's inputs or outputs are not those of the networks.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.evaluation.predictive import predict
    >>> networks = WeightArray(np.zeros((5, 23)), Architecture.mlp([4, 3, 2]))
    >>> predict(networks, Task(np.eye(4), [0, 1, 0, 1])).average[0]
    array([0.5, 0.5])
    """
    check_task(weights.architecture, task)
    if not len(weights):
        raise InvalidInputError("There is no network to evaluate: pass at least one row of weights.")
    return _classified(weights, task) if task.is_classification else _regressed(weights, task)


def _classified(weights: WeightArray, task: Task) -> Predictive:
    targets = torch.from_numpy(task.y)
    wrong, loss = [], []
    total, entropies = torch.zeros(1), torch.zeros(1)
    for outputs in chunked_outputs(weights, task.X):
        logs = outputs.log_softmax(-1)
        chosen = logs.gather(-1, targets.expand(outputs.shape[:2]).unsqueeze(-1)).squeeze(-1)
        loss.append(-chosen.double().mean(1))
        wrong.append(outputs.argmax(-1) != targets)
        said = logs.exp_().double()
        total = total + said.sum(0)
        entropies = entropies + torch.special.entr(said).sum((0, 2))
    average = total / len(weights)
    jsd = (torch.special.entr(average).sum(-1) - entropies / len(weights)).mean()
    mistakes = torch.cat(wrong)
    score = 1 - mistakes.double().mean(1)
    return Predictive(score.numpy(), torch.cat(loss).numpy(), average.numpy(), float(jsd), mistakes.numpy())


def _regressed(weights: WeightArray, task: Task) -> Predictive:
    targets = torch.from_numpy(task.y).float()
    score, loss, total = [], [], torch.zeros(1)
    for outputs in chunked_outputs(weights, task.X):
        score.append(scores(outputs, targets, task.loss).double())
        loss.append(losses(outputs, targets, task.loss).double())
        total = total + outputs.double().sum(0)
    average = (total / len(weights)).numpy()
    return Predictive(torch.cat(score).numpy(), torch.cat(loss).numpy(), average, float("nan"))


def chunked_outputs(weights: WeightArray, inputs: np.ndarray, dtype: Any = np.float32) -> Iterator[Tensor]:
    """Outputs of all networks, some networks at a time so that memory stays bounded.

    Parameters
    ----------
    weights : WeightArray of shape (n, d)
    inputs : ndarray of shape (b, p), or what the architecture's module takes
    dtype : dtype of floats
        The precision of weights, inputs and outputs.

    Yields
    ------
    Tensor of shape (m, b, k)
    """
    architecture = weights.architecture
    x = torch.from_numpy(np.asarray(inputs, dtype=dtype if inputs.dtype.kind == "f" else np.int64))
    if architecture.layers:
        width = max([x.shape[1], *(layer.outputs for layer in architecture.layers)])
        rows, examples = max(1, CHUNK_NUMBERS // (width * len(x))), len(x)
    else:
        # what a module computes in between is not known
        rows, examples = MODULE_NETWORKS, MODULE_EXAMPLES
    with torch.no_grad():
        for start in range(0, len(weights), rows):
            chunk = torch.from_numpy(np.array(weights[start : start + rows], dtype=dtype))
            yield torch.cat([forward(chunk, architecture, batch) for batch in x.split(examples)], 1)


def calibration(average: np.ndarray, task: Task) -> dict[str, float]:
    """The numbers of a model average.

    Parameters
    ----------
    average : ndarray of shape (b, k)
        Probabilities, or outputs of a regression.
    task : Task

    Returns
    -------
    dict from str to float
        Accuracy, negative log-likelihood, Brier score and expected calibration error; for a
        regression R^2 and mean squared error.
    """
    if not task.is_classification:
        squares = np.square(average - task.y)
        spread = np.square(task.y - task.y.mean(0)).sum()
        return {"r2": float(1 - squares.sum() / spread) if spread else float("nan"), "mse": float(squares.mean())}
    return {
        "accuracy": float((average.argmax(1) == task.y).mean()),
        "nll": negative_log_likelihood(average, task.y),
        "brier": brier_score(average, task.y),
        "ece": expected_calibration_error(average, task.y),
    }


def negative_log_likelihood(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean of -log p(target), in nats.

    Parameters
    ----------
    probabilities : ndarray of shape (b, k)
    targets : ndarray of int, shape (b,)

    Returns
    -------
    float
    """
    chosen = probabilities[np.arange(len(targets)), targets]
    # a probability that rounded to zero would make the mean infinite
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def brier_score(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean squared distance to the one-hot target, sum_k (p_k - y_k)^2.

    Parameters
    ----------
    probabilities : ndarray of shape (b, k)
    targets : ndarray of int, shape (b,)

    Returns
    -------
    float
        Between 0 and 2.

    Examples
    --------
    >>> brier_score(np.array([[0.5, 0.5]]), np.array([0]))
    0.5
    """
    hot = np.eye(probabilities.shape[1])[targets]
    return float(np.square(probabilities - hot).sum(1).mean())


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> float:
    """The expected calibration error, sum_m |B_m|/b |accuracy(B_m) - confidence(B_m)| over bins of equal width.

    Parameters
    ----------
    probabilities : ndarray of shape (b, k)
    targets : ndarray of int, shape (b,)
    n_bins : int

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> always_sure, half_right = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])
    >>> expected_calibration_error(always_sure, half_right)
    0.5
    """
    found = reliability(probabilities, targets, n_bins)
    known = found.share > 0
    return float((found.share * np.abs(found.accuracy - found.confidence))[known].sum())


@dataclass(frozen=True)
class Reliability:
    """How often a forecast is right, by how sure it is: one number for each bin of confidence.

    Parameters
    ----------
    confidence, accuracy : ndarray of shape (bins,)
        Means over the bin's forecasts; NaN where there is none.
    share : ndarray of shape (bins,)
        The part of all forecasts that is in the bin.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


def reliability(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 15) -> Reliability:
    """The reliability diagram: accuracy against confidence max_k p_k, in bins of equal width.

    Parameters
    ----------
    probabilities : ndarray of shape (b, k)
    targets : ndarray of int, shape (b,)
    n_bins : int

    Returns
    -------
    Reliability

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 2.

    Examples
    --------
    >>> from wsflow.evaluation.predictive import reliability
    >>> reliability(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]), n_bins=2).accuracy
    array([nan, 0.5])
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == targets
    # bins are open on the left and closed on the right, as in Guo et al.
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    sure, correct = (
        np.divide(np.bincount(bins, values, n_bins), count, out=np.full(n_bins, np.nan), where=count > 0)
        for values in (confidence, right)
    )
    return Reliability(sure, correct, count / len(targets))
