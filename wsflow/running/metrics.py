"""Losses, scores and predictions of n networks, from their outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsflow.losses import Classification, loss_of
from wsflow.task import Task


def losses(outputs: Tensor, targets: Tensor, loss: Any, weights: Tensor | None = None) -> Tensor:
    """Compute the mean loss of every network.

    Parameters
    ----------
    outputs : Tensor of shape (n, b, k)
        Logits, or predictions of a regression.
    targets : Tensor of shape (b,) or (n, b) of classes; (b, k) or (n, b, k) of reals
    loss : str or callable
        A key of `wsflow.losses.LOSSES`, or a function of one's own.
    weights : Tensor of shape (b,) or (n, b), optional
        Of the examples, with mean 1 over the data.

    Returns
    -------
    Tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from wsflow.running import losses
    >>> losses(torch.zeros(2, 4, 2), torch.tensor([0, 1, 0, 1]), "cross_entropy")
    tensor([0.6931, 0.6931])
    """
    return mean(loss_of(loss).examples(outputs, targets), weights)


def mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean (n,) of values (n, b, ...) over examples, whose weights have mean 1, and what each has."""
    if weights is None:
        return values.mean(tuple(range(1, values.dim())))
    weights = weights.to(values)
    values = values.flatten(2).mean(2) if values.dim() > 2 else values
    # an example without weight is left out, even where its value is not finite
    return (torch.where(weights > 0, values, 0.0) * weights).mean(1)


def scores(outputs: Tensor, targets: Tensor, loss: Any, weights: Tensor | None = None) -> Tensor:
    """Compute the score (n,) of every network.

    It is the accuracy, over all labels where there are several, for a regression the coefficient of determination R^2
    of the predicted means, and for a function of one's own minus the loss. The arguments are those of `losses`.

    Examples
    --------
    >>> import torch
    >>> from wsflow.running import scores
    >>> scores(torch.tensor([[[2.0, 1.0], [2.0, 1.0]]]), torch.tensor([0, 1]), "cross_entropy")
    tensor([0.5000])
    """
    row = loss_of(loss)
    if isinstance(row, Classification):
        return mean(row.right(outputs, targets).to(outputs.dtype), weights)
    if "custom" in row.kinds:
        return -losses(outputs, targets, loss, weights)
    predicted = row.predictions(outputs)
    if weights is None:
        residual = (predicted - targets).square().sum((1, 2))
        total = (targets - targets.mean(-2, keepdim=True)).square().sum((-2, -1))
        return 1 - residual / total
    share = weights.to(targets).unsqueeze(-1)
    centre = (share * targets).mean(-2, keepdim=True)
    total = (share * (targets - centre).square()).sum((-2, -1))
    return 1 - mean((predicted - targets).square(), weights) * predicted[0].numel() / total


def predictions(outputs: Tensor, loss: Any) -> Tensor:
    """Turn outputs (n, b, k) into what networks predict, whose mean over networks is the model average.

    These are the probabilities of classes, or of each of several labels, the expected targets of a regression, and the
    outputs where the loss is a function of one's own.
    """
    return loss_of(loss).predictions(outputs)


def tensors_of(task: Task) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the inputs, targets and weights of a task as tensors.

    Weights (b,) have mean 1 over the examples, and examples without weight are left out.
    """
    arrays, weights = (task.X, task.targets), task.weights
    if weights is not None:
        kept = weights > 0
        arrays, weights = (task.X[kept], task.targets[kept]), weights[kept]
    # tensors are never read-only
    inputs, targets = (torch.from_numpy(a if a.flags.writeable else a.copy()) for a in arrays)
    return inputs, targets, None if weights is None else torch.from_numpy(weights / weights.mean())


def matched(targets: Tensor, like: Tensor) -> Tensor:
    """Return targets, or inputs, in the precision of other numbers; classes and tokens stay integers."""
    return targets.to(like) if targets.is_floating_point() else targets.to(like.device)


def deviation(before: Tensor, after: Tensor) -> Tensor:
    """Return each network's largest change of an output (n, ...) over its largest output.

    It is zero without a change, and infinite where outputs that were all zero have changed.
    """
    before, after = before.flatten(1), after.flatten(1)
    change, largest = (after - before).abs().amax(1), before.abs().amax(1)
    return torch.where(change == 0, change, change / largest)
