"""Aligning networks to a reference: in scale-free representatives, and with the groups fixed that weights identify."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.architecture.restriction import restricted
from wsflow.exceptions import NumericalError
from wsflow.mapped import chunks
from wsflow.progress import Progress, stages
from wsflow.running.activation_sizes import runs_in_one_product
from wsflow.symmetry.actions import Action
from wsflow.symmetry.batches import concatenate, extended
from wsflow.symmetry.canonical import Form, canonical_action
from wsflow.symmetry.matching.fixed_groups import restored, rows_by_fixed_groups
from wsflow.symmetry.matching.methods import Context, Method, WeightMatching
from wsflow.symmetry.matching.snapshots import MATCHED_NUMBERS
from wsflow.symmetry.matching.weight import orbit_matching

# of what is compared in single and in double precision: squares are summed
LARGEST = 2.0**40
LARGEST_DOUBLE = 2.0**490
# networks that are aligned together where each is run by itself
PART = 32
# from rows (n, d), an architecture, and what is called on the way, to an action, and the passes (n,) of weight matching
# that it took, if any
Match = Callable[[Tensor, Architecture, Progress | None], tuple[Action, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks (n, d) as they are, and in the precision in which their representatives are compared."""

    raw: Tensor
    compared: Tensor
    scaling: Action

    @cached_property
    def representatives(self) -> Tensor:
        """The networks (n, d) that are compared."""
        moved: Tensor = self.scaling(self.compared)
        return moved

    def rows(self, index: Tensor) -> Networks:
        """Return the indexed networks; the same object where they are all networks in order."""
        if len(index) == len(self.raw):
            return self
        found = Networks(self.raw[index], self.compared[index], self.scaling.rows(index))
        if "representatives" in self.__dict__:
            # known, and not computed again
            found.__dict__["representatives"] = self.representatives[index]
        return found


@dataclass(frozen=True, eq=False)
class Alignment:
    """The representatives in which networks are compared, and the groups that are fixed by their columns.

    Networks that agree with `first` (d,) in the columns of a group keep that group as it is; those that would agree in
    another order of its neurons are put into that order. Networks that are not `scaled` are compared as they are; the
    form then decides on precision alone.
    """

    architecture: Architecture
    form: Form
    scaled: bool
    fixed: Mapping[str, Tensor]
    first: Tensor

    def networks(self, raw: Tensor) -> Networks:
        """Return networks (n, d) to be aligned."""
        # descents, and balancing, need double precision
        compared = raw.double() if self.form == "balanced" else raw
        scaling = Action.identity(self.architecture, len(raw))
        if self.scaled:
            scaling = canonical_action(compared, self.architecture, form=self.form)
        if scaling.is_extreme or raw.abs().amax() > LARGEST:
            compared = _squarable(compared.double(), scaling)
        return Networks(raw, compared, scaling)

    def align(self, networks: Networks, reference: Tensor, method: Method, context: Context) -> tuple[Action, Tensor]:
        """Return the action of a method towards a reference (d,), and the passes (n,) of weight matching."""
        if isinstance(method, WeightMatching) and not self.fixed:
            # representatives need not be written
            found = method.match(networks.compared, reference, self.architecture, context, networks.scaling)
            if context.progress is not None:
                context.progress(len(networks.raw), len(networks.raw))
            return found
        parts = self._parts(len(networks.raw), context)
        actions, passes = [], []

        def match(rows: Tensor, restricted: Architecture, progress: Progress | None) -> tuple[Action, Tensor | None]:
            return method.match(rows, reference, restricted, replace(context, progress=progress))

        for part, progress in zip(parts, stages(context.progress, *map(len, parts)), strict=True):
            action, taken = self._match(networks.rows(part), match, progress)
            actions.append(action)
            passes.append(taken)
        return concatenate(self.architecture, actions), torch.cat(passes)

    def _parts(self, n: int, context: Context) -> tuple[Tensor, ...]:
        """Return which of n networks are aligned together: all that run in one tensor operation, few that do not."""
        one_by_one = not runs_in_one_product(self.architecture) and context.task is not None
        return torch.arange(n).split(PART if one_by_one else max(n, 1))

    def by_weights(self, networks: Networks, reference: Tensor) -> Tensor:
        """Return representatives (n, d) aligned by weight matching, by which references are found."""
        aligned = torch.empty_like(networks.representatives)
        for part in chunks(len(aligned), aligned.shape[1], MATCHED_NUMBERS):
            few = networks.rows(torch.arange(part.start, part.stop))
            action, _ = self._match(few, lambda rows, kept, _: (orbit_matching(rows, reference, kept), None))
            aligned[part] = action(few.representatives)
        return aligned

    def _match(self, networks: Networks, match: Match, progress: Progress | None = None) -> tuple[Action, Tensor]:
        """Match the rows that agree in the same groups together, with these groups fixed."""
        rows, raw = networks.representatives, networks.raw
        restoring = restored(raw, self.first, self.fixed, self.architecture)
        if self.fixed:
            rows, raw = restoring(rows), restoring(raw)
        passes = torch.zeros(len(raw), dtype=torch.long)
        actions, order = [], []
        parts = list(rows_by_fixed_groups(raw, self.first, dict(self.fixed)))
        for (index, names), stage in zip(parts, stages(progress, *(len(index) for index, _ in parts)), strict=True):
            # all of them need not be copied
            own = rows if len(index) == len(rows) else rows[index]
            action, taken = match(own, restricted(self.architecture, names), stage)
            passes[index] = 0 if taken is None else taken
            actions.append(extended(action, self.architecture, len(index)))
            order.append(index)
            if stage is not None:
                stage(1, 1)
        return concatenate(self.architecture, actions).rows(torch.cat(order).argsort()) @ restoring, passes


def _squarable(weights: Tensor, scaling: Action) -> Tensor:
    """Weights (n, d) in a unit in which the squares of their representatives are in the range of numbers.

    A NumericalError says that these are beyond it themselves.
    """
    largest = scaling(weights).abs().amax()
    if not largest.isfinite():
        raise NumericalError(
            "Networks have weights so large that their scale-free representatives are beyond the range of float64. "
            "Align them with form='raw', or without the largest ones."
        )
    return weights * 2.0 ** -max(0, math.frexp(float(largest) / LARGEST_DOUBLE)[1])
