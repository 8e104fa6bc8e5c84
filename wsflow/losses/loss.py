"""What a loss is: what it takes off outputs and targets, and what networks with it predict.

Outputs are tensors (n, b, k) of n networks on b examples, targets are (b,) or (n, b) classes, else (b, m) or (n, b, m)
numbers. A loss that is a negative log-likelihood, in nats, has its constants, so that losses of different kinds of
predictions compare.

References
----------
Martens 2020, arXiv:1412.1193 (Gauss-Newton and Fisher matrices of losses).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


class Loss(ABC):
    """A loss, and the distribution that a network with this loss predicts.

    `kinds` says which measures apply: those of ``"classification"``, of ``"regression"``, of a ``"likelihood"``, or
    ``"custom"``; `targets` is a key of `wsflow.targets.TARGETS`; `outputs` counts the outputs for each target.
    """

    kinds: ClassVar[tuple[str, ...]]
    targets: ClassVar[str]
    description: ClassVar[str]
    outputs: ClassVar[int] = 1

    @abstractmethod
    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each example (n, b), or of each of its targets (n, b, m), of which the mean is taken."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """Return what is predicted, so that a model average is the mean of it: probabilities or expected targets."""

    @abstractmethod
    def moments(self, outputs: Tensor) -> Tensor:
        """Return the expectations (n, b, ...) of the predictive distribution that `expected` needs."""

    @abstractmethod
    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        """Return the loss as `examples` does, up to a constant, expected under a distribution with these moments."""

    @abstractmethod
    def coordinates(self, outputs: Tensor) -> Tensor:
        """Return coordinates (n, b, ...) whose Euclidean distance is one between predictive distributions."""

    @abstractmethod
    def change(self, outputs: Tensor, change: Tensor) -> Tensor:
        """Return a small change of outputs (n, b, k), in a length that measures the change of what they mean."""

    @abstractmethod
    def curvature_root(self, outputs: Tensor) -> list[Tensor]:
        """Return the columns (n, b, k) of R, where R R^T is the expected Hessian of an example's loss by its outputs.

        The expectation is that of the network's own predictive distribution, which makes it the Fisher matrix of a
        likelihood, and the Gauss-Newton matrix.
        """

    @abstractmethod
    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """Return the loss of the best constant prediction, or another positive unit where that has no meaning.

        Targets are float64 or classes, (b,) or (b, m), as are the weights (b,) of the examples.
        """

    def compared(self, outputs: Tensor) -> Tensor:
        """Return the numbers of the predictive distribution whose differences tell networks apart."""
        return self.predictions(outputs)

    def second_moments(self, outputs: Tensor) -> Tensor | None:
        """Return the predicted E[y^2] (n, b, m), where a variance is predicted."""
        return None


class Plain(Loss):
    """A loss whose outputs are the predictions, with the geometry of squared errors."""

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs

    def moments(self, outputs: Tensor) -> Tensor:
        return outputs

    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        """Squared errors."""
        return (outputs - moments).square()

    def coordinates(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def change(self, outputs: Tensor, change: Tensor) -> Tensor:
        """The outputs themselves."""
        return change


def diagonal(root: Tensor) -> list[Tensor]:
    """Return the columns of a diagonal matrix for each example (n, b, k)."""
    return list(root.diag_embed().unbind(-1))
