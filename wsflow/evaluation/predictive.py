"""What networks predict on data: scores, losses, the model average and how much the predictions differ.

A model average is the mean of probabilities, p(x) = 1/n sum_i p_i(x), never of logits.
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
from wsflow.running.compatibility import check_task
from wsflow.task import Task
from wsflow.weights import WeightArray

# activations of one chunk of networks: 2^20 numbers, 4 MiB in float32, stay near the processor
CHUNK_NUMBERS = 2**20
MODULE_NETWORKS, MODULE_EXAMPLES = 8, 512


@dataclass(frozen=True)
class Predictive:
    """What a set of networks predicts on a task.

    Parameters
    ----------
    scores, losses : ndarray of shape (n,)
        Accuracy of each network, or R^2, and its mean loss.
    average : ndarray of shape (b, k)
        The mean of the networks' probabilities, or of their outputs for a regression.
    jsd : float
        Generalised Jensen-Shannon divergence between the networks' predictive distributions (Lin 1991), H(mean p) -
        mean H(p), averaged over inputs, in nats; NaN for a regression.
    wrong : ndarray of bool, shape (n, b), optional
        Which inputs each network classifies wrongly; None for a regression.
    """

    scores: np.ndarray
    losses: np.ndarray
    average: np.ndarray
    jsd: float
    wrong: np.ndarray | None = None


def score_key(task: Task) -> str:
    """Return the key of a task's score in the rows of reports and in files."""
    return "accuracy" if task.is_classification else "r2"


def predict(weights: WeightArray, task: Task) -> Predictive:
    """Run every network on a task's inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray
    >>> from wsflow.evaluation import predict
    >>> networks = WeightArray(np.zeros((5, 23)), Architecture.mlp([4, 3, 2]))
    >>> predict(networks, Task(np.eye(4), [0, 1, 0, 1])).average[0]
    array([0.5, 0.5])
    """
    check_task(weights.architecture, task)
    if not len(weights):
        raise InvalidInputError("There is no network to evaluate: pass at least one row of weights.")
    return _classify(weights, task) if task.is_classification else _regress(weights, task)


def _classify(weights: WeightArray, task: Task) -> Predictive:
    targets = torch.from_numpy(task.y)
    wrong, loss = [], []
    total, entropies = torch.zeros(1), torch.zeros(1)
    for outputs in chunked_outputs(weights, task.X):
        logs = outputs.log_softmax(-1)
        chosen = logs.gather(-1, targets.expand(outputs.shape[:2]).unsqueeze(-1)).squeeze(-1)
        loss.append(-chosen.double().mean(1))
        wrong.append(outputs.argmax(-1) != targets)
        probabilities = logs.exp_().double()
        total = total + probabilities.sum(0)
        entropies = entropies + torch.special.entr(probabilities).sum((0, 2))
    average = total / len(weights)
    jsd = (torch.special.entr(average).sum(-1) - entropies / len(weights)).mean()
    mistakes = torch.cat(wrong)
    score = 1 - mistakes.double().mean(1)
    return Predictive(score.numpy(), torch.cat(loss).numpy(), average.numpy(), float(jsd), mistakes.numpy())


def _regress(weights: WeightArray, task: Task) -> Predictive:
    targets = torch.from_numpy(task.y).float()
    score, loss, total = [], [], torch.zeros(1)
    for outputs in chunked_outputs(weights, task.X):
        score.append(scores(outputs, targets, task.loss).double())
        loss.append(losses(outputs, targets, task.loss).double())
        total = total + outputs.double().sum(0)
    average = (total / len(weights)).numpy()
    return Predictive(torch.cat(score).numpy(), torch.cat(loss).numpy(), average, float("nan"))


def chunked_outputs(weights: WeightArray, inputs: np.ndarray, dtype: Any = np.float32) -> Iterator[Tensor]:
    """Yield the outputs (m, b, k) of a few networks at a time, computed in `dtype`, so that memory stays bounded."""
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
