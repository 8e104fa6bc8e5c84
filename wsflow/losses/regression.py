"""Losses of numbers: squared errors, and likelihoods with a predicted variance or of counts.

References
----------
Nix and Weigend 1994, "Estimating the mean and variance of the target probability distribution".
"""

from __future__ import annotations

from math import log, pi
from typing import TYPE_CHECKING

from wsflow.losses.loss import Loss, Plain, diagonal

if TYPE_CHECKING:
    from torch import Tensor


class SquaredError(Plain):
    """(z - y)^2 of each target."""

    kinds = ("regression",)
    targets = "numbers"
    description = "numbers; the outputs are their predictions"

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square()

    def curvature_root(self, outputs: Tensor) -> list[Tensor]:
        """The Hessian is 2/m."""
        return diagonal((2 / outputs.shape[-1]) ** 0.5 + 0 * outputs)

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """The variance of the targets."""
        share = weights / weights.sum()
        return float((share @ (targets - share @ targets).square()).mean())


class GaussianNLL(Loss):
    """(log 2 pi + s + (y - mu)^2 exp(-s)) / 2 of each target, the outputs being all means mu, then log-variances s."""

    kinds = ("regression", "likelihood")
    targets = "numbers"
    description = (
        "numbers with a predicted variance; the outputs are their means, then the logarithms of their variances"
    )
    outputs = 2

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        mean, s = outputs.chunk(2, -1)
        return 0.5 * (log(2 * pi) + s + (targets - mean).square() * (-s).exp())

    def predictions(self, outputs: Tensor) -> Tensor:
        """The means."""
        return outputs.chunk(2, -1)[0]

    def second_moments(self, outputs: Tensor) -> Tensor:
        mean, s = outputs.chunk(2, -1)
        return mean.square() + s.exp()

    def moments(self, outputs: Tensor) -> Tensor:
        """E[y] of all targets, then E[y^2]."""
        mean, s = outputs.chunk(2, -1)
        return _joined(mean, mean.square() + s.exp())

    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        (mean, s), (first, second) = outputs.chunk(2, -1), moments.chunk(2, -1)
        return 0.5 * (log(2 * pi) + s + (second - 2 * mean * first + mean.square()) * (-s).exp())

    def compared(self, outputs: Tensor) -> Tensor:
        """Means and standard deviations."""
        return self.coordinates(outputs)

    def coordinates(self, outputs: Tensor) -> Tensor:
        """Means and standard deviations, whose distance is the 2-Wasserstein distance."""
        mean, s = outputs.chunk(2, -1)
        return _joined(mean, (s / 2).exp())

    def change(self, outputs: Tensor, change: Tensor) -> Tensor:
        """In the Fisher metric: of a mean in standard deviations, and of a log-variance over the root of 2."""
        mean, s = change.chunk(2, -1)
        return _joined(mean * (-outputs.chunk(2, -1)[1] / 2).exp(), s / 2**0.5)

    def curvature_root(self, outputs: Tensor) -> list[Tensor]:
        """The Fisher matrix is diag(exp(-s), 1/2) / m."""
        s = outputs.chunk(2, -1)[1]
        root = _joined((-s / 2).exp(), 0.5**0.5 + 0 * s)
        return diagonal(root / s.shape[-1] ** 0.5)

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """What errors of one standard deviation add: the loss of a constant prediction may be negative."""
        return 0.5


class PoissonNLL(Loss):
    """exp(z) - y z + log y! of each target, the outputs z being the logarithms of rates."""

    kinds = ("regression", "likelihood")
    targets = "counts"
    description = "counts, or other numbers that are not negative; the outputs are the logarithms of their rates"

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.exp() - targets * outputs + (targets + 1).lgamma()

    def predictions(self, outputs: Tensor) -> Tensor:
        """The rates."""
        return outputs.exp()

    def second_moments(self, outputs: Tensor) -> Tensor:
        rate = outputs.exp()
        return rate + rate.square()

    def moments(self, outputs: Tensor) -> Tensor:
        return outputs.exp()

    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        """Without E[log y!], which no output changes."""
        return outputs.exp() - moments * outputs

    def coordinates(self, outputs: Tensor) -> Tensor:
        """2 sqrt(rate), whose distance is that of the Fisher metric."""
        return 2 * (outputs / 2).exp()

    def change(self, outputs: Tensor, change: Tensor) -> Tensor:
        """In the Fisher metric."""
        return change * (outputs / 2).exp()

    def curvature_root(self, outputs: Tensor) -> list[Tensor]:
        """The Hessian is diag(rate) / m."""
        return diagonal((outputs / 2).exp() / outputs.shape[-1] ** 0.5)

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """The loss of the mean rates."""
        share = weights / weights.sum()
        rate = share @ targets
        return float((rate - rate.xlogy(rate) + share @ (targets + 1).lgamma()).mean())


def _joined(first: Tensor, second: Tensor) -> Tensor:
    import torch

    return torch.cat([first, second], -1)
