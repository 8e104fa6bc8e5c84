"""Networks as initialisation for a task: how their scores rise with the number of gradient steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wsflow.architecture import Architecture
from wsflow.evaluation.predictive import predict
from wsflow.populations.arguments import takes_networks
from wsflow.populations.optimizers import OPTIMIZERS, Rates
from wsflow.representation import in_a_line
from wsflow.running import forward, losses, matched, tensors_of, train_forward
from wsflow.running.compatibility import check_task
from wsflow.task import Task
from wsflow.weights import WeightArray

# noise belongs to sampling a posterior, not to learning curves
CHOICES = tuple(name for name, row in OPTIMIZERS.items() if not row.sampler)


@in_a_line
@dataclass(frozen=True)
class LearningCurves:
    """Scores and losses (k, n) of networks on held-out data, after `steps` (k,) gradient steps; the first is 0."""

    steps: np.ndarray
    scores: np.ndarray
    losses: np.ndarray

    def steps_to(self, score: float) -> float:
        """Return the gradient steps until the mean score reaches a value, interpolated; infinity if it does not."""
        mean = self.scores.mean(1)
        reached = np.flatnonzero(mean >= score)
        if not len(reached):
            return float("inf")
        k = reached[0]
        if k == 0:
            return float(self.steps[0])
        share = (score - mean[k - 1]) / (mean[k] - mean[k - 1])
        return float(self.steps[k - 1] + share * (self.steps[k] - self.steps[k - 1]))


@takes_networks("weights")
def learning_curves(
    weights: WeightArray,
    task: Task,
    *,
    n_steps: int = 100,
    every: int = 10,
    optimizer: str = "sgd",
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    batch_size: int = 64,
    random_state: int = 0,
    evaluate_on: Task | None = None,
) -> LearningCurves:
    """Train given networks on a task, all on the same minibatches, and follow their scores on held-out data.

    Parameters
    ----------
    weights : WeightArray of shape (n, d)
        Where training starts; they are left as they are.
    n_steps, every : int
        Gradient steps, and steps between evaluations.
    optimizer : {"sgd", "adam"}
        Adam takes no `momentum`.
    batch_size : int
        Drawn with replacement.
    random_state : int
        Of the minibatches: the same for any networks, so that curves compare.
    evaluate_on : Task, optional
        Default: the task's held-out part.

    Raises
    ------
    ValueError
        If there is no such optimizer, or no step.
    InvalidInputError
        If the task is not one of these networks.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, learning_curves
    >>> rows = np.random.default_rng(0).normal(size=(5, 23)).astype("float32")
    >>> networks, task = WeightArray(rows, Architecture.mlp([4, 3, 2])), Task(np.eye(4), [0, 1, 0, 1])
    >>> curves = learning_curves(networks, task, n_steps=40, every=20)
    >>> curves.steps, bool(curves.losses[-1].mean() < curves.losses[0].mean())
    (array([ 0, 20, 40]), True)
    """
    if optimizer not in CHOICES or min(n_steps, every, batch_size) < 1:
        raise ValueError(
            f"learning_curves takes at least one step with one of {CHOICES}, got optimizer={optimizer!r}, "
            f"n_steps={n_steps}, every={every}, batch_size={batch_size}."
        )
    check_task(weights.architecture, task)
    held_out = task.held_out if evaluate_on is None else evaluate_on
    rows = torch.from_numpy(np.array(weights, dtype=np.float32))
    rule = OPTIMIZERS[optimizer]
    memory = [torch.zeros_like(rows) for _ in range(rule.memory)]
    rate, decay = (torch.tensor([[value]]).to(rows) for value in (learning_rate, momentum))
    generator = torch.Generator().manual_seed(random_state)
    X, y, share = tensors_of(task)
    X, y, share = matched(X, rows), matched(y, rows), None if share is None else share.to(rows)
    steps, found = [0], [predict(weights, held_out)]
    for step in range(1, n_steps + 1):
        batch = torch.randint(len(X), (batch_size,), generator=generator)
        leaf = rows.detach().requires_grad_()
        outputs, statistics = _outputs(leaf, weights.architecture, X[batch], generator)
        loss = losses(outputs, y[batch], task.loss, None if share is None else share[batch]).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        rule.update(rows, gradient, memory, Rates(step, rate, decay, torch.zeros(1, 1), lambda: torch.zeros_like(rows)))
        rows[:, weights.architecture.statistic_columns] = statistics
        if step % every == 0 or step == n_steps:
            steps.append(step)
            found.append(predict(weights.like(rows.numpy().copy()), held_out))
    return LearningCurves(np.array(steps), np.stack([f.scores for f in found]), np.stack([f.losses for f in found]))


def _outputs(
    rows: torch.Tensor, architecture: Architecture, inputs: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs, and statistics behind the step; networks without batch norms run as they are evaluated."""
    if len(architecture.statistic_columns):
        return train_forward(rows, architecture, inputs, generator)
    return forward(rows, architecture, inputs), rows.detach()[:, :0]
