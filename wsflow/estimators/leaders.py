"""Which networks are matched, and which move with them: all snapshots of a run move as its last one does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from wsflow.symmetry.actions import Action
from wsflow.weights import WeightArray


@dataclass(frozen=True, eq=False)
class Leaders:
    """The networks that are matched, and those that move with them.

    Parameters
    ----------
    raw : Tensor of shape (leaders, d)
    precise : Tensor of shape (leaders, d)
        The same, in the precision in which they are compared.
    scaling : Action
        To the representatives that are compared.
    position : LongTensor of shape (n,)
        Which leader each of all networks follows.
    """

    raw: Tensor
    precise: Tensor
    scaling: Action
    position: Tensor

    @cached_property
    def representatives(self) -> Tensor:
        """What is compared, of shape (leaders, d)."""
        moved: Tensor = self.scaling(self.precise)
        return moved

    def for_all(self, action: Action) -> Action:
        """The permutations and signs of the leaders, for all networks.

        Parameters
        ----------
        action : Action
            Of the leaders.

        Returns
        -------
        Action
        """
        # positive scales and phases are not the aligner's business
        signs = {name: scale.sign() for name, scale in action.scales.items() if (scale < 0).any()}
        return Action(action.architecture, action.permutations, signs).rows(self.position)


def owners(X: Any, by: str, n: int) -> np.ndarray:
    """For each row, the row with which it moves.

    Parameters
    ----------
    X : WeightArray or array-like of n rows
    by : {"run", "network"}
    n : int

    Returns
    -------
    ndarray of int, shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, WeightArray
    >>> from wsflow.estimators.leaders import owners
    >>> X = WeightArray(np.zeros((3, 23)), Architecture.mlp([4, 3, 2]), runs=[0, 0, 1], steps=[5, 9, 5])
    >>> owners(X, "run", 3).tolist()
    [1, 1, 2]
    """
    if by == "network" or not isinstance(X, WeightArray):
        return np.arange(n)
    order = np.lexsort((np.arange(n), X.steps, X.runs))
    runs = X.runs[order]
    last = np.append(runs[1:] != runs[:-1], True)
    owner_of = dict(zip(runs[last].tolist(), order[last].tolist(), strict=True))
    return np.array([owner_of[run] for run in X.runs.tolist()], dtype=np.int64)
