"""Run n networks at once: outputs, losses, scores and predictions from rows of weights."""

from wsflow.running.execution import forward
from wsflow.running.metrics import losses, predictions, scores
from wsflow.running.rows import flatten, take, unflatten

__all__ = ["flatten", "forward", "losses", "predictions", "scores", "take", "unflatten"]
