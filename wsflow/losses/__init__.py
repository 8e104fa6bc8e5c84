"""Losses of tasks: what they take off outputs and targets, what is predicted, and how predictions are compared."""

from wsflow.losses.classification import Classification
from wsflow.losses.loss import Loss
from wsflow.losses.losses import LOSSES, loss_name, loss_of

__all__ = ["LOSSES", "Classification", "Loss", "loss_name", "loss_of"]
