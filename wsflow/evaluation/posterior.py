"""The posterior predictive: how a model average improves with the number of networks in it, and what it knows of
inputs that are not of the task.

References
----------
Lakshminarayanan, Pritzel and Blundell 2017, arXiv:1612.01474 (deep ensembles); Hendrycks and Gimpel 2017,
arXiv:1610.02136 (detection of foreign inputs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsflow.evaluation.predictive import calibration, chunked_outputs
from wsflow.exceptions import InvalidInputError
from wsflow.running import predictions
from wsflow.task import Task, check_task
from wsflow.weights import WeightArray

SIZES = (1, 2, 5, 10, 20, 50, 100)
DRAWS = 20


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    result: np.ndarray = (
        torch.special.entr(torch.from_numpy(np.asarray(probabilities, dtype=np.float64))).sum(-1).numpy()
    )
    return result


def _doubt(probabilities: np.ndarray) -> np.ndarray:
    return 1 - np.asarray(probabilities).max(-1)


# name -> how foreign an input looks: probabilities (b, k) -> (b,)
OOD_SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"entropy": _entropy, "max_probability": _doubt}


def ood_auroc(inside: np.ndarray, outside: np.ndarray, score: str = "entropy") -> float:
    """How well a forecast tells foreign inputs from those of the task: the area under the ROC curve.

    Parameters
    ----------
    inside, outside : ndarray of shape (b, k)
        Probabilities on inputs of the task, and on others; such as averages over networks.
    score : {"entropy", "max_probability"}
        What is larger on foreign inputs: the entropy of the probabilities, or one minus the largest of them.

    Returns
    -------
    float
        1/2 is guessing, 1 is perfect.

    Raises
    ------
    ValueError
        If the score is not one of them.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.posterior import ood_auroc
    >>> ood_auroc(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.5, 0.5], [0.85, 0.15]]))
    0.75
    """
    from sklearn.metrics import roc_auc_score

    if score not in OOD_SCORES:
        raise ValueError(f"The 'score' of ood_auroc is one of {', '.join(OOD_SCORES)}; got {score!r}.")
    values = np.concatenate([OOD_SCORES[score](inside), OOD_SCORES[score](outside)])
    return float(roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), values))


@dataclass(frozen=True)
class PredictiveCurve:
    """The numbers of model averages, by how many networks are in them.

    Parameters
    ----------
    sizes : tuple of int
    mean, sd : dict from str to ndarray of shape (sizes,)
        Over draws of that many networks: ``"accuracy"``, ``"nll"``, ``"brier"`` and ``"ece"``, or ``"r2"`` and
        ``"mse"``; and ``"ood_auroc"`` where foreign inputs were given. Draws overlap where the size is not small
        beside the number of networks, and the sd is then too small; it is 0 where a draw takes all.
    """

    sizes: tuple[int, ...]
    mean: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]


def predictive_curve(
    weights: WeightArray,
    task: Task,
    sizes: Sequence[int] = SIZES,
    *,
    ood: np.ndarray | None = None,
    ood_score: str = "entropy",
    draws: int = DRAWS,
    random_state: int = 0,
) -> PredictiveCurve:
    """Model averages of 1, 2, 5, ... networks on a task's held-out data.

    Parameters
    ----------
    weights : WeightArray of shape (n, d)
        Samples of a flow, a deep ensemble of trained networks, or what else is to be averaged.
    task : Task
    sizes : sequence of int
        Those above n are left out.
    ood : ndarray of shape (b, p), optional
        Foreign inputs.
    ood_score : {"entropy", "max_probability"}
    draws : int
        How many times to draw networks, without replacement, for each size.
    random_state : int
        Seed of the draws.

    Returns
    -------
    PredictiveCurve

    Raises
    ------
    InvalidInputError
        If no size is possible, or foreign inputs are given for a regression.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.evaluation import predictive_curve
    >>> rows = np.random.default_rng(0).normal(size=(8, 23))
    >>> curve = predictive_curve(WeightArray(rows, Architecture.mlp([4, 3, 2])), Task(np.eye(4), [0, 1, 0, 1]))
    >>> curve.sizes, bool(curve.mean["nll"][-1] < curve.mean["nll"][0])
    ((1, 2, 5), True)
    """
    check_task(weights.architecture, task)
    possible = tuple(sorted(size for size in set(sizes) if 1 <= size <= len(weights)))
    if not possible:
        raise InvalidInputError(f"No average of {min(sizes, default=0)} networks can be made of {len(weights)}.")
    if ood is not None and not task.is_classification:
        raise InvalidInputError(
            "Foreign inputs are told by probabilities, and this task is a regression: leave out 'ood'."
        )
    mixing = _mixing(len(weights), possible, draws, random_state)
    data = task.held_out
    inside = _averages(weights, data.X, task.loss, mixing)
    found = [calibration(average, data) for average in inside]
    if ood is not None:
        outside = _averages(weights, ood, task.loss, mixing)
        for row, said, foreign in zip(found, inside, outside, strict=True):
            row["ood_auroc"] = ood_auroc(said, foreign, ood_score)
    values = {key: np.array([row[key] for row in found]).reshape(len(possible), draws) for key in found[0]}
    mean, sd = ({key: getattr(v, name)(axis=1) for key, v in values.items()} for name in ("mean", "std"))
    return PredictiveCurve(possible, mean, sd)


def _mixing(n: int, sizes: Sequence[int], draws: int, random_state: int) -> Tensor:
    """How much of each network is in each average, of shape (sizes x draws, n)."""
    mixing = np.zeros((len(sizes), draws, n))
    for index, size in enumerate(sizes):
        # a generator of its own for each size: leaving one out changes no other
        chosen = np.random.default_rng([random_state, size]).random((draws, n)).argsort(1)[:, :size]
        np.put_along_axis(mixing[index], chosen, 1 / size, axis=1)
    return torch.from_numpy(mixing.reshape(-1, n)).float()


def _averages(weights: WeightArray, inputs: np.ndarray, loss: str, mixing: Tensor) -> np.ndarray:
    """The averages of predictions, of shape (averages, b, k), adding up one chunk of networks after the other."""
    total = torch.zeros(1)
    for rows, said in _said(weights, inputs, loss):
        part = mixing[:, rows] @ said.flatten(1)
        total = total + part.reshape(len(mixing), *said.shape[1:])
    averages: np.ndarray = total.numpy()
    return averages


def _said(weights: WeightArray, inputs: np.ndarray, loss: str) -> Iterator[tuple[slice, Tensor]]:
    start = 0
    for outputs in chunked_outputs(weights, inputs):
        yield slice(start, start + len(outputs)), predictions(outputs, loss)
        start += len(outputs)
