"""Snapshots of runs: all snapshots of a run move as its last one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.mapped import chunks
from wsflow.symmetry.actions import Action
from wsflow.weights import WeightArray

# of networks that are matched at once: matching takes tens of times the memory of its networks
MATCHED_NUMBERS = 2**20


def last_snapshots(X: Any, by: str, n: int) -> tuple[np.ndarray, Tensor]:
    """Return the rows of X that are matched, and for each of its n rows the number of the one with which it moves.

    By "run" these are the last snapshots of the runs of a WeightArray, by "network" all rows.
    """
    if by == "network" or not isinstance(X, WeightArray):
        return np.arange(n), torch.arange(n)
    order = np.lexsort((np.arange(n), X.steps, X.runs))
    runs = X.runs[order]
    last = np.append(runs[1:] != runs[:-1], True)
    row_of = dict(zip(runs[last].tolist(), order[last].tolist(), strict=True))
    own = np.array([row_of[run] for run in X.runs.tolist()], dtype=np.int64)
    rows, position = np.unique(own, return_inverse=True)
    return rows, torch.from_numpy(position)


@dataclass(frozen=True, eq=False)
class SnapshotPart:
    """Networks that are matched at once, and those that move with them, a few at a time.

    Parameters
    ----------
    matched : slice or ndarray
        Rows of X.
    moved : sequence of pairs
        Rows of X, a slice or numbers, and for each its number among the matched ones.
    """

    matched: Any
    moved: Sequence[tuple[Any, Any]]
    n_matched: int
    lengths: Sequence[int]

    @property
    def n_moved(self) -> int:
        """The number of rows that move."""
        return sum(self.lengths)


def snapshot_parts(X: Any, by: str, n: int, width: int) -> tuple[np.ndarray, list[SnapshotPart]]:
    """Return the rows of X (n, width) that are matched, as `last_snapshots` does, and the parts in which they are."""
    rows, position = last_snapshots(X, by, n)
    parts = []
    for part in chunks(len(rows), width, MATCHED_NUMBERS):
        if len(rows) == n:
            parts.append(SnapshotPart(part, [(part, slice(None))], part.stop - part.start, [part.stop - part.start]))
            continue
        own = np.flatnonzero((position.numpy() >= part.start) & (position.numpy() < part.stop))
        moved = [(own[few], position[own[few]] - part.start) for few in chunks(len(own), width, MATCHED_NUMBERS)]
        parts.append(SnapshotPart(rows[part], moved, part.stop - part.start, [len(few) for few, _ in moved]))
    return rows, parts


def without_scales(action: Action) -> Action:
    """Return an action without its positive scales, which alignment leaves to the canonical form."""
    signs = {name: scale.sign() for name, scale in action.scales.items() if (scale < 0).any()}
    return Action(action.architecture, action.permutations, signs, action.phases)
