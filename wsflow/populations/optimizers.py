"""The optimizer table: one row for each; it imports nothing heavy, because it also feeds the CLI's choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Optimizer:
    """One row of the table.

    Every optimizer here updates each weight by itself, so that all networks of a population can share one.

    Parameters
    ----------
    name : str
        Name of the class in ``torch.optim``.
    momentum : bool
        Whether it takes a momentum.
    """

    name: str
    momentum: bool = False

    def build(
        self, weights: torch.Tensor, learning_rate: float, momentum: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """The optimizer of a tensor of weights.

        Parameters
        ----------
        weights : Tensor
            The leaf that it updates.
        learning_rate, momentum, weight_decay : float

        Returns
        -------
        torch.optim.Optimizer
        """
        import torch

        keywords = {"momentum": momentum} if self.momentum else {}
        build = getattr(torch.optim, self.name)
        optimizer: torch.optim.Optimizer = build(
            [weights], lr=learning_rate, weight_decay=weight_decay, fused=True, **keywords
        )
        return optimizer


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Optimizer("Adam"),
    "sgd": Optimizer("SGD", momentum=True),
}
