"""What aligns networks to a reference part by part, in this process or in others, and measures what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from wsflow.estimators.validation import viewed
from wsflow.evaluation.barrier import midpoint_barrier
from wsflow.progress import Progress, stages
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching import objective
from wsflow.symmetry.matching.alignment import Alignment, Networks
from wsflow.symmetry.matching.methods import Context, Method
from wsflow.symmetry.matching.snapshots import SnapshotPart, without_scales
from wsflow.task import Task
from wsflow.weights import WeightArray


class Aligned(NamedTuple):
    """Networks (n, d) in their new order of neurons, and what is reported of each; barriers are NaN without a task."""

    weights: np.ndarray
    n_passes: np.ndarray
    objective: np.ndarray
    barrier_before: np.ndarray
    barrier_after: np.ndarray


@dataclass(frozen=True, eq=False)
class PartAlignment:
    """How the networks of a part are aligned to a reference (d,); the seed is that of methods that draw."""

    alignment: Alignment
    reference: Tensor
    method: Method
    task: Task | None
    seed: int

    def actions(self, part: SnapshotPart, matched: np.ndarray, progress: Progress | None = None) -> list[Action]:
        """Return the actions of the rows of a part that move, from its matched networks (m, d)."""
        _, action, _ = self._matched(matched, progress)
        return [without_scales(action).rows(which) for _, which in part.moved]

    def align(
        self,
        part: SnapshotPart,
        matched: np.ndarray,
        moved: Sequence[np.ndarray],
        is_everyone: bool,
        progress: Progress | None = None,
    ) -> list[Aligned]:
        """Align the rows (n, d) of a part that move as its matched networks (m, d), and measure what it did."""
        alignment, measurement = stages(progress, *self.lengths(part))
        networks, scaled, passes = self._matched(matched, alignment)
        moving, found = without_scales(scaled), []
        steps = stages(measurement, *part.lengths)
        for before, (_, which), stage in zip(moved, part.moved, steps, strict=True):
            after = moving.rows(which)(before)
            compared = scaled(networks.compared) if is_everyone else self._representatives(after)
            close = objective(compared, self.reference, self.alignment.architecture).numpy()
            found.append(Aligned(after, passes[which].numpy(), close, *self._barriers(before, compared, stage)))
        return found

    def lengths(self, part: SnapshotPart) -> tuple[int, int]:
        """Return the steps of progress that the alignment and the measurement of a part take."""
        return part.n_matched, 0 if self.task is None else part.n_moved

    def _matched(self, matched: np.ndarray, progress: Progress | None) -> tuple[Networks, Action, Tensor]:
        networks = self.alignment.networks(viewed(matched))
        context = Context(self.task, self.seed, progress)
        action, passes = self.alignment.align(networks, self.reference, self.method, context)
        return networks, action @ networks.scaling, passes

    def _representatives(self, values: np.ndarray) -> Tensor:
        return self.alignment.networks(viewed(values)).representatives

    def _barriers(self, before: np.ndarray, after: Tensor, progress: Progress | None) -> list[np.ndarray]:
        """Return the excess of the loss half-way to the reference before and after alignment."""
        n, architecture = len(before), self.alignment.architecture
        if self.task is None or not architecture.is_runnable:
            return [np.full(n, np.nan), np.full(n, np.nan)]
        reference = WeightArray(self.reference.numpy()[None], architecture)
        ends = zip((self._representatives(before), after), stages(progress, n, n), strict=True)
        return [
            midpoint_barrier(WeightArray(networks.numpy(), architecture), reference, self.task, stage)
            for networks, stage in ends
        ]
