"""Losses, scores and predictions of n networks, from their outputs."""

from __future__ import annotations

import torch
from torch import Tensor


def losses(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Compute the mean loss of every network.

    Parameters
    ----------
    outputs : Tensor of shape (n, b, k)
        Logits, or predictions of a regression.
    targets : Tensor of shape (b,) or (n, b) of classes; (b, k) or (n, b, k) of reals
    loss : {"cross_entropy", "mse"}

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
    if loss == "mse":
        return (outputs - targets).square().mean((1, 2))
    targets = targets.expand(outputs.shape[:2])
    return -outputs.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1).mean(1)


def scores(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Compute the accuracy (n,) of every network, or for a regression its coefficient of determination R^2.

    The arguments are those of `losses`.

    Examples
    --------
    >>> import torch
    >>> from wsflow.running import scores
    >>> scores(torch.tensor([[[2.0, 1.0], [2.0, 1.0]]]), torch.tensor([0, 1]), "cross_entropy")
    tensor([0.5000])
    """
    if loss == "mse":
        residual = (outputs - targets).square().sum((1, 2))
        total = (targets - targets.mean(-2, keepdim=True)).square().sum((-2, -1))
        return 1 - residual / total
    return (outputs.argmax(-1) == targets).to(outputs.dtype).mean(1)


def predictions(outputs: Tensor, loss: str) -> Tensor:
    """Turn outputs (n, b, k) into class probabilities; those of a regression, with the loss "mse", are predictions."""
    return outputs.softmax(-1) if loss == "cross_entropy" else outputs


def deviation(before: Tensor, after: Tensor) -> Tensor:
    """Return each network's largest change of an output (n, ...) over its largest output.

    It is zero without a change, and infinite where outputs that were all zero have changed.
    """
    before, after = before.flatten(1), after.flatten(1)
    change, largest = (after - before).abs().amax(1), before.abs().amax(1)
    return torch.where(change == 0, change, change / largest)
