"""Subblocks: blocks, cut until each axis ranges over one neuron group or over fixed coordinates.

Direct sums are cut into their summands, and an axis of nested neurons into one for their parents and one for
themselves. An unfolding of a subblock along a neuron group is the matrix of its rows, one for each neuron (Kolda and
Bader 2009, "Tensor decompositions and applications", SIAM Review 51(3)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import product
from math import prod

import numpy as np
import torch
from torch import Tensor

from wsflow.activations import FLIP, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, NeuronGroup, Space
from wsflow.architecture.spaces import lineage
from wsflow.symmetry.actions import block_factors
from wsflow.symmetry.views import as_index, broadcastable

# a wire, and the coordinate at which a summand of its space begins
WireSegment = tuple[str, int]


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
        return rows.index_select(1, self._index.to(rows.device)).reshape(len(rows), *self.columns.shape)

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


def subblocks_of(architecture: Architecture) -> Iterator[Subblock]:
    """Yield the subblocks of an architecture that have a neuron group; statistics are not compared."""
    signed = {wire.name for wire in architecture.wires if wire.scalings & {SIGN, FLIP}}
    for parameter, block, columns in architecture.blocks:
        if parameter.role == "statistic":
            continue
        for summands in product(*(_summands(space) for space in block.axes)):
            groups = tuple(space if isinstance(space, NeuronGroup) else None for space, _ in summands)
            if any(groups):
                cut = tuple(
                    slice(offset, offset + size)
                    for (_, offset), size in zip(summands, _sizes(block, summands), strict=True)
                )
                odd = tuple(_odd(block, axis, offset, signed) for axis, (_, offset) in enumerate(summands))
                parents = tuple(block.parent_axis(axis) for axis in range(len(summands)))
                subblock = _with_axes_of_parents(columns[cut], groups, parents, odd)
                yield replace(subblock, block=block) if subblock.columns.shape == columns.shape else subblock


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


def _odd(block: Block, axis: int, offset: int, signed: set[str]) -> frozenset[WireSegment]:
    powers = {name: sum(e for n, on, e in block.wires if (n, on) == (name, axis)) for name, _, _ in block.wires}
    return frozenset((name, offset) for name, power in powers.items() if name in signed and power % 2)


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
