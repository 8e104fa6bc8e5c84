"""The table of losses by name. It does not import torch: it feeds the command line's choices."""

from __future__ import annotations

from typing import Any

from wsflow.losses.classification import BinaryCrossEntropy, CrossEntropy
from wsflow.losses.custom import CustomLoss
from wsflow.losses.loss import Loss
from wsflow.losses.regression import GaussianNLL, PoissonNLL, SquaredError

LOSSES: dict[str, Loss] = {
    "cross_entropy": CrossEntropy(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "mse": SquaredError(),
    "gaussian_nll": GaussianNLL(),
    "poisson": PoissonNLL(),
}


def loss_of(loss: Any) -> Loss:
    """Return the row of a loss by its name, or a row for a function; a ValueError names the rows."""
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    if isinstance(loss, str) or not callable(loss):
        raise ValueError(f"The 'loss' of a Task is one of {', '.join(LOSSES)}, or a function, got {loss!r}.")
    return CustomLoss(loss)
