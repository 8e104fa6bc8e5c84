"""The table of losses by name, and a function of one's own as a loss.

It does not import torch: it feeds the command line's choices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsflow.losses.classification import BinaryCrossEntropy, CrossEntropy
from wsflow.losses.loss import Loss, Plain
from wsflow.losses.regression import GaussianNLL, PoissonNLL, SquaredError

if TYPE_CHECKING:
    from torch import Tensor

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


@dataclass(frozen=True)
class CustomLoss(Plain):
    """A function of one's own, of outputs (1, k) and targets (1, m) or (1,) of one example at a time."""

    function: Callable[[Any, Any], Any]

    kinds = ("custom",)
    targets = "any"
    description = "any targets, for a function of one's own; the outputs are as many as the targets"

    def examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
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
            "Use natural=False, or a loss that has a name."
        )

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """1, as its units are not known."""
        return 1.0


def loss_name(loss: Any) -> str:
    """Return the name of a loss, or of a function."""
    return loss if isinstance(loss, str) else str(getattr(loss, "__qualname__", type(loss).__qualname__))
