"""Losses of logits: one of several classes, or labels each of which is there or not."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from wsflow.losses.loss import Loss, diagonal

if TYPE_CHECKING:
    from torch import Tensor

# a square root has no slope at zero
SMALLEST = 1e-6


class Classification(Loss):
    """A loss of logits."""

    kinds = ("classification", "likelihood")

    @abstractmethod
    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the log-probabilities (n, b, k) of classes, or (n, b, m, 2) of no and yes for each label."""

    @abstractmethod
    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return which examples (n, b), or which of their labels (n, b, m), are classified rightly."""


class CrossEntropy(Classification):
    """-log softmax(z)_y of logits z."""

    targets = "classes"
    description = "one of several classes; the outputs are logits, one for each class"

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        targets = targets.expand(outputs.shape[:2])
        return -outputs.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.log_softmax(-1)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.argmax(-1) == targets

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1)

    def moments(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1)

    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        return -(moments * outputs.log_softmax(-1)).sum(-1)

    def coordinates(self, outputs: Tensor) -> Tensor:
        """Square roots of probabilities, whose distance is Hellinger's."""
        return outputs.softmax(-1).clamp_min(SMALLEST).sqrt()

    def change(self, outputs: Tensor, change: Tensor) -> Tensor:
        """Take off the mean: logits mean the same when all of them move together."""
        return change - change.mean(-1, keepdim=True)

    def curvature_root(self, outputs: Tensor) -> list[Tensor]:
        """diag(sqrt p) - p sqrt(p)^T, as the Hessian is diag(p) - p p^T."""
        p = outputs.softmax(-1)
        root = p.sqrt().diag_embed() - p.unsqueeze(-1) * p.sqrt().unsqueeze(-2)
        return list(root.unbind(-1))

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """The entropy of the classes."""
        shares = targets.flatten().bincount(weights) / weights.sum()
        return float(_entropy(shares).sum())


class BinaryCrossEntropy(Classification):
    """log(1 + exp((1 - 2 y) z)) of the logit z of each label y, 0 or 1."""

    targets = "labels"
    description = "one of two classes, or several labels of which each is there or not; a logit for each label"

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return _softplus((1 - 2 * targets) * outputs)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        signed = outputs.unsqueeze(-1) * outputs.new_tensor([1.0, -1.0])
        return -_softplus(signed)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs > 0) == (targets > 0.5)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each of several labels; of a single one, those of both classes."""
        if outputs.shape[-1] > 1:
            return outputs.sigmoid()
        return (outputs * outputs.new_tensor([-1.0, 1.0])).sigmoid()

    def moments(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        return _softplus(-outputs) + (1 - moments) * outputs

    def coordinates(self, outputs: Tensor) -> Tensor:
        """Square roots of both probabilities of each label, whose distance is Hellinger's."""
        both = (outputs.unsqueeze(-1) * outputs.new_tensor([-1.0, 1.0])).sigmoid()
        return both.flatten(-2).clamp_min(SMALLEST).sqrt()

    def change(self, outputs: Tensor, change: Tensor) -> Tensor:
        """The logits themselves, as those of several classes."""
        return change

    def curvature_root(self, outputs: Tensor) -> list[Tensor]:
        """The Hessian is diag(p (1 - p)) / m."""
        return diagonal((outputs.sigmoid() * (-outputs).sigmoid() / outputs.shape[-1]).sqrt())

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """The mean entropy of the labels."""
        share = weights / weights.sum() @ targets
        return float((_entropy(share) + _entropy(1 - share)).mean())


def _softplus(z: Tensor) -> Tensor:
    return z.logaddexp(z.new_zeros(()))


def _entropy(p: Tensor) -> Tensor:
    return -p.xlogy(p)
