"""The table of losses: what each takes off outputs and targets, and what networks with it predict.

Outputs are tensors (n, b, k) of n networks on b examples, targets are (b,) or (n, b) classes, else (b, m) or (n, b, m)
numbers. A loss that is a negative log-likelihood, in nats, has its constants, so that losses of different kinds of
predictions compare. This file does not import torch: it feeds the command line's choices.

References
----------
Nix and Weigend 1994, "Estimating the mean and variance of the target probability distribution"; Martens 2020,
arXiv:1412.1193 (Gauss-Newton and Fisher matrices of losses).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

# a square root has no slope at zero
SMALLEST = 1e-6


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
        """As `Loss.examples`."""
        targets = targets.expand(outputs.shape[:2])
        return -outputs.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """As `Classification.log_probabilities`."""
        return outputs.log_softmax(-1)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `Classification.right`."""
        return outputs.argmax(-1) == targets

    def predictions(self, outputs: Tensor) -> Tensor:
        """As `Loss.predictions`."""
        return outputs.softmax(-1)

    def moments(self, outputs: Tensor) -> Tensor:
        """As `Loss.moments`."""
        return outputs.softmax(-1)

    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        """As `Loss.expected`."""
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
        """As `Loss.examples`."""
        return _softplus((1 - 2 * targets) * outputs)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """As `Classification.log_probabilities`."""
        signed = outputs.unsqueeze(-1) * outputs.new_tensor([1.0, -1.0])
        return -_softplus(signed)

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `Classification.right`."""
        return (outputs > 0) == (targets > 0.5)

    def predictions(self, outputs: Tensor) -> Tensor:
        """The probability of each of several labels; of a single one, those of both classes."""
        if outputs.shape[-1] > 1:
            return outputs.sigmoid()
        return (outputs * outputs.new_tensor([-1.0, 1.0])).sigmoid()

    def moments(self, outputs: Tensor) -> Tensor:
        """As `Loss.moments`."""
        return outputs.sigmoid()

    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        """As `Loss.expected`."""
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
        return _diagonal((outputs.sigmoid() * (-outputs).sigmoid() / outputs.shape[-1]).sqrt())

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """The mean entropy of the labels."""
        share = weights / weights.sum() @ targets
        return float((_entropy(share) + _entropy(1 - share)).mean())


class Plain(Loss):
    """A loss whose outputs are the predictions, with the geometry of squared errors."""

    def predictions(self, outputs: Tensor) -> Tensor:
        """As `Loss.predictions`."""
        return outputs

    def moments(self, outputs: Tensor) -> Tensor:
        """As `Loss.moments`."""
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


class SquaredError(Plain):
    """(z - y)^2 of each target."""

    kinds = ("regression",)
    targets = "numbers"
    description = "numbers; the outputs are their predictions"

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `Loss.examples`."""
        return (outputs - targets).square()

    def curvature_root(self, outputs: Tensor) -> list[Tensor]:
        """The Hessian is 2/m."""
        return _diagonal((2 / outputs.shape[-1]) ** 0.5 + 0 * outputs)

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
        """As `Loss.examples`."""
        mean, s = outputs.chunk(2, -1)
        return 0.5 * (log(2 * pi) + s + (targets - mean).square() * (-s).exp())

    def predictions(self, outputs: Tensor) -> Tensor:
        """The means."""
        return outputs.chunk(2, -1)[0]

    def second_moments(self, outputs: Tensor) -> Tensor:
        """As `Loss.second_moments`."""
        mean, s = outputs.chunk(2, -1)
        return mean.square() + s.exp()

    def moments(self, outputs: Tensor) -> Tensor:
        """E[y] of all targets, then E[y^2]."""
        mean, s = outputs.chunk(2, -1)
        return _joined(mean, mean.square() + s.exp())

    def expected(self, outputs: Tensor, moments: Tensor) -> Tensor:
        """As `Loss.expected`."""
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
        return _diagonal(root / s.shape[-1] ** 0.5)

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """What errors of one standard deviation add: the loss of a constant prediction may be negative."""
        return 0.5


class PoissonNLL(Loss):
    """exp(z) - y z + log y! of each target, the outputs z being the logarithms of rates."""

    kinds = ("regression", "likelihood")
    targets = "counts"
    description = "counts, or other numbers that are not negative; the outputs are the logarithms of their rates"

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `Loss.examples`."""
        return outputs.exp() - targets * outputs + (targets + 1).lgamma()

    def predictions(self, outputs: Tensor) -> Tensor:
        """The rates."""
        return outputs.exp()

    def second_moments(self, outputs: Tensor) -> Tensor:
        """As `Loss.second_moments`."""
        rate = outputs.exp()
        return rate + rate.square()

    def moments(self, outputs: Tensor) -> Tensor:
        """As `Loss.moments`."""
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
        return _diagonal((outputs / 2).exp() / outputs.shape[-1] ** 0.5)

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """The loss of the mean rates."""
        share = weights / weights.sum()
        rate = share @ targets
        return float((rate - rate.xlogy(rate) + share @ (targets + 1).lgamma()).mean())


@dataclass(frozen=True)
class CustomLoss(Plain):
    """A function of one's own, of outputs (1, k) and targets (1, m) or (1,) of one example at a time."""

    function: Callable[[Any, Any], Any]

    kinds = ("custom",)
    targets = "any"
    description = "any targets, for a function of one's own; the outputs are as many as the targets"

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As `Loss.examples`, by two nested maps."""
        import torch

        def one(output: Tensor, target: Tensor) -> Tensor:
            result: Tensor = self.function(output.unsqueeze(0), target.unsqueeze(0))
            return result.mean()

        # classes of an example are a number, other targets a vector
        shared = targets.dim() == (2 if targets.is_floating_point() else 1)
        try:
            return torch.vmap(torch.vmap(one), (0, None if shared else 0))(outputs, targets)
        except Exception as error:
            raise ValueError(
                f"The loss {loss_name(self.function)!r} fails on one example, outputs of shape "
                f"(1, {outputs.shape[-1]}) and its targets, as torch.vmap maps it over all: {error}. Write it with "
                "operations of torch alone, without .item() and conditions on values."
            ) from error

    def curvature_root(self, outputs: Tensor) -> list[Tensor]:
        """None is known."""
        raise ValueError(
            f"Natural gradients need the curvature of the loss, and that of {loss_name(self.function)!r} is not known. "
            f"Use natural=False, or one of {', '.join(LOSSES)}."
        )

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """1, as its units are not known."""
        return 1.0


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


def loss_name(loss: Any) -> str:
    """Return the name of a loss, or of a function."""
    return loss if isinstance(loss, str) else str(getattr(loss, "__qualname__", type(loss).__qualname__))


def _softplus(z: Tensor) -> Tensor:
    return z.logaddexp(z.new_zeros(()))


def _entropy(p: Tensor) -> Tensor:
    return -p.xlogy(p)


def _joined(first: Tensor, second: Tensor) -> Tensor:
    import torch

    return torch.cat([first, second], -1)


def _diagonal(root: Tensor) -> list[Tensor]:
    """Return the columns of a diagonal matrix for each example (n, b, k)."""
    return list(root.diag_embed().unbind(-1))
