"""Subblocks: blocks, cut until each axis ranges over one neuron group or over fixed coordinates.

Direct sums are cut into their summands, and an axis of nested neurons into one for their parents and one for
themselves. Biases that phases shift are two subblocks, the coordinates of points of circles (see `centring`). An
unfolding of a subblock along a neuron group is the matrix of its rows, one for each neuron (Kolda and Bader 2009,
"Tensor decompositions and applications", SIAM Review 51(3)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wsflow.activations import FLIP, PHASE, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, NeuronGroup, Space
from wsflow.architecture.spaces import lineage
from wsflow.devices import placed
from wsflow.symmetry.actions import block_factors
from wsflow.symmetry.centring import bias_circles
from wsflow.symmetry.views import as_index, broadcastable


class WireSegment(NamedTuple):
    """A wire, the coordinate at which a summand of its space begins, and what turns its signs.

    The kind is "sign" (or a flip), or "phase": an odd number of half periods.
    """

    wire: str
    offset: int
    kind: str = SIGN


@dataclass(frozen=True, eq=False)
class Subblock:
    """Columns (*extents) of a block that have one neuron group, or none, on each axis.

    By axis: the group (a nested one counts within its parent), the axis of its parent, and the segments of wires whose
    sign changes the sign of the weights. `block` is the block of which it is the whole, if it is.
    """

    columns: Tensor
    groups: tuple[NeuronGroup | None, ...]
    parents: tuple[int | None, ...]
    odd: tuple[frozenset[WireSegment], ...]
    block: Block | None = None

    @cached_property
    def _index(self) -> slice | Tensor:
        return as_index(self.columns.numpy())

    def of(self, rows: Tensor) -> Tensor:
        """Return the subblock (n, *extents) of rows (n, d), as a view where that is possible."""
        if isinstance(self._index, slice):
            return rows[:, self._index].reshape(len(rows), *self.columns.shape)
        return rows.index_select(1, placed(self._index, rows.device)).reshape(len(rows), *self.columns.shape)

    def nested_axes(self, axis: int) -> tuple[int, ...]:
        """Return an axis behind those of its parents, the outermost first."""
        parent = self.parents[axis]
        return (axis,) if parent is None else (*self.nested_axes(parent), axis)

    def broadcastable(self, values: Tensor, axis: int) -> Tensor:
        """Return values (n, total) of the neurons on an axis, shaped to broadcast over the subblock."""
        return broadcastable(values, self.nested_axes(axis), self.columns.shape)

    def unfold(self, values: Tensor, unfolding: Unfolding) -> Tensor:
        """Return values (n, *extents) as matrices (n, parents, neurons, rest), one for each parent."""
        sizes = self.columns.shape
        outer = prod(sizes[i] for i in self.nested_axes(unfolding.axis)[:-1])
        neurons = sizes[unfolding.axis] * (1 if unfolding.inner is None else sizes[unfolding.inner])
        rest = self.columns.numel() // (outer * neurons)
        return values.permute(0, *(1 + i for i in unfolding.order)).reshape(len(values), outer, neurons, rest)


@dataclass(frozen=True)
class Unfolding:
    """The number of a subblock, an axis of it with a neuron group, and the axis of a group matched inside, if any.

    `order` has the subblock's axes: those of the group's parents, the group's, the inner one, the others. The rows are
    neurons of the group `target`: the inner one, if there is one; `odd` are the segments of wires over it.
    """

    subblock: int
    axis: int
    inner: int | None
    order: tuple[int, ...]
    target: str
    odd: frozenset[WireSegment]


@dataclass(frozen=True, eq=False)
class ScaledSubblock:
    """Values (n, *extents) of a subblock with the factors that scale it, so that they need not be multiplied out."""

    values: Tensor
    factors: tuple[Tensor, ...]

    @classmethod
    def of(cls, subblock: Subblock, weights: Tensor, scales: Mapping[str, Tensor]) -> ScaledSubblock:
        """Return a subblock of weights (n, d) whose wires are scaled."""
        factors = block_factors(subblock.block, scales, {}) if scales and subblock.block is not None else ()
        return cls(subblock.of(weights), tuple(factor.to(weights) for factor in factors))

    def scaled(self) -> Tensor:
        """Return the product (n, *extents)."""
        return reduce(torch.mul, self.factors, self.values)

    def copied(self) -> Tensor:
        """Return the product, in memory of its own."""
        return self.scaled() if self.factors else self.values.clone()

    def row_factors(self, unfolding: Unfolding) -> Tensor | None:
        """Return the factors (n, 1, 1, neurons) of an unfolding's rows, if there are no others."""
        if len(self.factors) != 1 or unfolding.inner is not None or len(unfolding.order) != self.values.dim() - 1:
            return None
        (factor,) = self.factors
        if factor.shape[unfolding.axis + 1] * len(factor) != factor.numel() or unfolding.order[0] != unfolding.axis:
            return None
        return factor.reshape(len(factor), 1, 1, -1)


def subblocks_of(architecture: Architecture, circles: bool = False) -> Iterator[Subblock]:
    """Yield the subblocks of an architecture that have a neuron group; statistics are not compared.

    With `circles` they are those of rows in which phases are signs, see `centring.compared`.
    """
    signed = {wire.name for wire in architecture.wires if wire.scalings & {SIGN, FLIP}}
    biases = bias_circles(architecture) if circles else {}
    phased = {circle.wire for circle in biases.values()}
    for number, (parameter, block, columns) in enumerate(architecture.blocks):
        if parameter.role == "statistic":
            continue
        kinds = [_turning(block, axis, signed, phased) for axis in range(len(block.axes))]
        if number not in biases:
            for subblock in _cut(block, columns, kinds):
                yield replace(subblock, block=block) if subblock.columns.shape == columns.shape else subblock
            continue
        circle = biases[number]
        shifted = [{(circle.wire, PHASE)} if axis == circle.axis else set() for axis in range(len(kinds))]
        # half a period is the opposite point, and a change of sign that with the opposite sine
        without_signs = ({turn for turn in own if turn[1] == PHASE} for own in kinds)
        yield from _cut(block, columns, [own ^ shift for own, shift in zip(without_signs, shifted, strict=True)])
        yield from _cut(block, circle.sines, [own ^ shift for own, shift in zip(kinds, shifted, strict=True)])


# a wire, and whether its signs or its phases turn the signs of weights
Turn = tuple[str, str]


def _turning(block: Block, axis: int, signed: set[str], phased: set[str]) -> set[Turn]:
    """Return what turns the signs of a block's weights along one of its axes."""
    turns = [(name, SIGN) for name, on, e in block.wires if on == axis and name in signed and e % 2]
    turns += [(name, PHASE) for name, on, e in block.wires if on == axis and name in phased and e < 0 and e % 2]
    return {turn for turn in turns if turns.count(turn) % 2}


def _cut(block: Block, columns: np.ndarray, turns: Sequence[set[Turn]]) -> Iterator[Subblock]:
    """Yield the parts of a block's columns (*extents) that have one neuron group, or none, on each axis."""
    for summands in product(*(_summands(space) for space in block.axes)):
        groups = tuple(space if isinstance(space, NeuronGroup) else None for space, _ in summands)
        if any(groups):
            offsets = [offset for _, offset in summands]
            cut = tuple(slice(o, o + size) for o, size in zip(offsets, _sizes(block, summands), strict=True))
            odd = [
                frozenset(WireSegment(name, offset, kind) for name, kind in own)
                for own, offset in zip(turns, offsets, strict=True)
            ]
            parents = tuple(block.parent_axis(axis) for axis in range(len(summands)))
            yield _with_axes_of_parents(columns[cut], groups, parents, odd)


def _summands(space: Space) -> list[tuple[Space, int]]:
    if not isinstance(space, DirectSum):
        return [(space, 0)]
    offsets = np.cumsum([0, *(part.total for part in space.parts)])
    return [(part, int(offset)) for part, offset in zip(space.parts, offsets, strict=False)]


def _sizes(block: Block, summands: Sequence[tuple[Space, int]]) -> list[int]:
    return [
        summand.total if isinstance(space, DirectSum) else block.extent(axis)
        for axis, (space, (summand, _)) in enumerate(zip(block.axes, summands, strict=True))
    ]


def _with_axes_of_parents(
    columns: np.ndarray,
    groups: Sequence[NeuronGroup | None],
    parents: Sequence[int | None],
    odd: Sequence[frozenset[WireSegment]],
) -> Subblock:
    axes: list[tuple[int, NeuronGroup | None, int | None, frozenset[WireSegment]]] = []
    last: dict[int, int] = {}
    joined: dict[int, int] = {}
    for axis, group in enumerate(groups):
        chain = lineage(group) if group is not None and parents[axis] is None else (group,)
        for depth, member in enumerate(chain):
            if depth == 0 and parents[axis] is not None:
                joined[len(axes)] = parents[axis]  # type: ignore[assignment]
            own = odd[axis] if depth == len(chain) - 1 else frozenset()
            size = columns.shape[axis] if member is None else member.size
            moving = member if isinstance(member, NeuronGroup) else None
            axes.append((size, moving, len(axes) - 1 if depth else None, own))
        last[axis] = len(axes) - 1
    above = tuple(last[joined[i]] if i in joined else parent for i, (_, _, parent, _) in enumerate(axes))
    view = torch.from_numpy(np.ascontiguousarray(columns)).reshape([size for size, *_ in axes])
    return Subblock(view, tuple(group for _, group, _, _ in axes), above, tuple(own for *_, own in axes))
