"""What networks predict on data: scores, losses, the model average and how much the predictions differ.

A model average is the mean of the predictive distributions, p(x) = 1/n sum_i p_i(x), never of logits. Of a regression
with a predicted variance, or of counts, it is a mixture: its log-likelihood is a logarithm of means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.exceptions import InvalidInputError
from wsflow.losses import Classification
from wsflow.populations.arguments import takes_networks
from wsflow.representation import in_a_line
from wsflow.running import forward, losses, scores
from wsflow.running.activation_sizes import networks_and_examples
from wsflow.running.compatibility import check_task
from wsflow.running.metrics import mean
from wsflow.task import Task
from wsflow.weights import WeightArray

# activations of one chunk of networks: 2^20 numbers, 4 MiB in float32, stay near the processor
CHUNK_NUMBERS = 2**20
MODULE_NETWORKS = 8


@in_a_line
@dataclass(frozen=True)
class Predictive:
    """What a set of networks predicts on a task.

    Parameters
    ----------
    scores, losses : ndarray of shape (n,)
        Accuracy of each network (over all labels), or R^2, or minus the loss where that is a function of one's own,
        and its mean loss.
    average : ndarray of shape (b, k)
        The mean of the networks' probabilities of classes, or of labels, or else of their predicted means.
    jsd : float
        Generalised Jensen-Shannon divergence between the networks' predictive distributions (Lin 1991), H(mean p) -
        mean H(p), averaged over inputs and labels, in nats; NaN for a regression.
    wrong : ndarray of bool, shape (n, b) or (n, b * labels), optional
        Which inputs, or labels, each network classifies wrongly; None for a regression.
    log_likelihood : ndarray of shape (b, m), optional
        Of the targets under the model average, where densities or counts are predicted.
    """

    scores: np.ndarray
    losses: np.ndarray
    average: np.ndarray
    jsd: float
    wrong: np.ndarray | None = None
    log_likelihood: np.ndarray | None = None


def score_key(task: Task) -> str:
    """Return the key of a task's score in the rows of reports and in files."""
    keys = {"classification": "accuracy", "regression": "r2", "custom": "minus_loss"}
    return next(keys[kind] for kind in task.criterion.kinds if kind in keys)


@takes_networks("weights")
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
    criterion = task.criterion
    return _classify(weights, task, criterion) if isinstance(criterion, Classification) else _regress(weights, task)


def _classify(weights: WeightArray, task: Task, criterion: Classification) -> Predictive:
    targets, share = torch.from_numpy(task.targets), example_weights(task)
    codes = targets.long()
    wrong, loss, score = [], [], []
    total, entropies = torch.zeros(1), torch.zeros(1)
    for outputs in chunked_outputs(weights, task.X):
        logs = criterion.log_probabilities(outputs)
        chosen = logs.gather(-1, codes.expand(logs.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        loss.append(mean(-chosen.double(), share))
        mistakes = ~criterion.right(outputs, targets)
        score.append(1 - mean(mistakes.double(), share))
        wrong.append(mistakes.flatten(1))
        probabilities = logs.exp_().double()
        total = total + probabilities.sum(0)
        entropies = entropies + torch.special.entr(probabilities).sum((0, -1))
    average = total / len(weights)
    jsd = torch.special.entr(average).sum(-1) - entropies / len(weights)
    several = average[..., 1] if task.n_labels > 1 else average.flatten(1)
    return Predictive(
        torch.cat(score).numpy(),
        torch.cat(loss).numpy(),
        several.numpy(),
        float(mean(jsd.unsqueeze(0), share)),
        torch.cat(wrong).numpy(),
    )


def _regress(weights: WeightArray, task: Task) -> Predictive:
    targets, share = torch.from_numpy(task.targets), example_weights(task)
    targets = targets.float() if targets.is_floating_point() else targets
    score, loss, total = [], [], torch.zeros(1)
    equal = torch.full((1, len(weights)), 1 / len(weights), dtype=torch.float32)
    mixture = Mixture(task, equal) if has_density(task) else None
    for outputs in chunked_outputs(weights, task.X):
        score.append(scores(outputs, targets, task.loss, share).double())
        loss.append(losses(outputs, targets, task.loss, share).double())
        total = total + task.criterion.predictions(outputs).double().sum(0)
        if mixture is not None:
            mixture.add(outputs)
    average = (total / len(weights)).numpy()
    likelihood = None if mixture is None else mixture.log_likelihood[0]
    found = torch.cat(score).numpy(), torch.cat(loss).numpy()
    return Predictive(*found, average, float("nan"), log_likelihood=likelihood)


def example_weights(task: Task) -> Tensor | None:
    """Return the weights (b,) of all examples, with mean 1; None where all are alike."""
    return None if task.weights is None else torch.from_numpy(task.weights / task.weights.mean())


def has_density(task: Task) -> bool:
    """Return whether networks predict distributions of numbers, whose averages are mixtures."""
    return {"regression", "likelihood"} <= set(task.criterion.kinds)


class Mixture:
    """log sum_i w_i p_i(y|x) (a, b, m) of a task's targets, for a mixtures of n networks with weights (a, n)."""

    def __init__(self, task: Task, mixing: Tensor) -> None:
        self._criterion, self._targets = task.criterion, torch.from_numpy(task.targets).double()
        self._logs, self._start = mixing.double().log(), 0
        self._total = torch.full((len(mixing), *self._targets.shape), -torch.inf, dtype=torch.float64)

    def add(self, outputs: Tensor) -> None:
        """Add the next networks, by their outputs (m, b, k)."""
        found = -self._criterion.examples(outputs.double(), self._targets)
        logs = self._logs[:, self._start : self._start + len(outputs)]
        self._start += len(outputs)
        # one mixture after the other, as all at once would need the memory of all networks many times
        for total, weights in zip(self._total, logs, strict=True):
            torch.logaddexp(total, torch.logsumexp(found + weights[:, None, None], 0), out=total)

    @property
    def log_likelihood(self) -> np.ndarray:
        """Of the networks so far."""
        return self._total.numpy()


def chunked_outputs(weights: WeightArray, inputs: np.ndarray, dtype: Any = np.float32) -> Iterator[Tensor]:
    """Yield the outputs (m, b, k) of a few networks at a time, computed in `dtype`, so that memory stays bounded."""
    architecture = weights.architecture
    # torch warns of memory that may not be written to
    x = torch.from_numpy(np.require(inputs, dtype if inputs.dtype.kind == "f" else np.int64, "W"))
    rows, examples = networks_and_examples(architecture, x, CHUNK_NUMBERS)
    with torch.no_grad():
        for start in range(0, len(weights), rows):
            chunk = torch.from_numpy(np.array(weights[start : start + rows], dtype=dtype))
            yield torch.cat([forward(chunk, architecture, batch) for batch in x.split(max(examples, 1))], 1)
