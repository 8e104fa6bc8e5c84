"""Run n networks at once: outputs, losses, scores and predictions from rows of weights."""

from wsflow.running.execution import forward, train_forward
from wsflow.running.metrics import losses, matched, predictions, scores, tensors_of
from wsflow.running.rows import flatten, take, unflatten

__all__ = [
    "flatten",
    "forward",
    "losses",
    "matched",
    "predictions",
    "scores",
    "take",
    "tensors_of",
    "train_forward",
    "unflatten",
]
