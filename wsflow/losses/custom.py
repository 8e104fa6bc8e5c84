"""A function of one's own as a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsflow.losses.loss import Plain

if TYPE_CHECKING:
    from torch import Tensor


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
            "Use natural=False, or a loss that has a name."
        )

    def scale(self, targets: Tensor, weights: Tensor) -> float:
        """1, as its units are not known."""
        return 1.0


def loss_name(loss: Any) -> str:
    """Return the name of a loss, or of a function."""
    return loss if isinstance(loss, str) else str(getattr(loss, "__qualname__", type(loss).__qualname__))
