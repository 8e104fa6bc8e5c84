"""Dividing the axes of a parameter into segments, on each of which a product of neuron groups acts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from math import prod
from typing import Any

import numpy as np

from wsflow.tracing.abstract_tensor import ABSENT, Array, NeuronAxis
from wsflow.tracing.neuron_groups import Coordinates, DraftGroup
from wsflow.tracing.solution import Scale, Solution
from wsflow.tracing.trace import ParameterSlice


@dataclass(frozen=True)
class Segment:
    """Coordinates of one axis of a parameter, in the order of a product of groups and fixed sizes; and their scales."""

    positions: Array
    axes: tuple[DraftGroup | int, ...]
    scales: tuple[Scale, ...]

    @property
    def contiguous(self) -> bool:
        """Whether the positions are a slice."""
        return bool((self.positions == self.positions[0] + np.arange(len(self.positions))).all())

    @property
    def groups(self) -> tuple[DraftGroup, ...]:
        """The groups among the axes."""
        return tuple(axis for axis in self.axes if isinstance(axis, DraftGroup))


# one segment for each axis of the parameter
Segments = tuple[Segment, ...]


def segments_of(solution: Solution, part: ParameterSlice, shape: tuple[int, ...]) -> Iterator[Segments]:
    """Yield the segments of the blocks of a parameter's slice, for a parameter of this shape."""
    rows = (part.stop - part.start, *shape[1:]) if shape else ()
    if len(part.tensor.shape) > len(rows):
        yield from _grouped(solution, part, rows)
        return
    if part.joint:
        order = sorted(range(len(rows)), key=lambda dim: -sum(dim in axis.dims for axis in part.tensor.axes))
        yield from _stacked(solution, part.tensor.axes, rows, order, {}, part.start)
        return
    sides = []
    for dim, size in enumerate(rows):
        axes = [axis for axis in part.tensor.axes if axis.dims == (dim,)]
        sides.append(divided(solution, size, axes, part.start if dim == 0 else 0))
    yield from product(*sides)


def _grouped(solution: Solution, part: ParameterSlice, rows: tuple[int, ...]) -> Iterator[Segments]:
    """Yield the segments of a grouped kernel, whose inputs depend on the group of its outputs."""
    groups, size = part.tensor.shape[:2]
    inner = [axis for axis in part.tensor.axes if axis.dims == (0, 2)]
    outer = [
        axis.expand((0, 1), (groups, size)).view((0,), [groups * size])
        for axis in part.tensor.axes
        if axis.dims in ((0,), (0, 1))
    ]
    inputs = {group for axis in inner for atom in axis.atoms.flat for group, _ in solution.coordinates(int(atom))}
    outputs = {group for axis in outer for atom in axis.atoms for group, _ in solution.coordinates(int(atom))}
    # where no group acts on both, each group of the convolution has blocks of its own
    kinds = None if inputs & outputs or not inner else np.repeat(np.arange(groups), size)
    for first in divided(solution, rows[0], outer, 0, kinds):
        group = np.array([int(first.positions[0]) // size])
        row = [replace(axis.take(0, group).drop(0), dims=(1,)) for axis in inner]
        sides = [[first], divided(solution, rows[1], row, 0, known=first.groups)]
        for dim, length in enumerate(rows[2:], 3):
            sides.append(divided(solution, length, [axis for axis in part.tensor.axes if axis.dims == (dim,)], 0))
        yield from product(*sides)


def _stacked(
    solution: Solution,
    axes: Sequence[NeuronAxis],
    rows: tuple[int, ...],
    order: Sequence[int],
    found: dict[int, Segment],
    start: int,
) -> Iterator[Segments]:
    """Yield the segments of a parameter with joint axes: in this order, each dimension within a segment of the last."""
    if not order:
        yield tuple(found[dim] for dim in range(len(rows)))
        return
    dim, *rest = order
    own = [axis for axis in axes if dim in axis.dims]
    slices = [[axis.take(dim, np.array([i])).drop(dim) for axis in own if len(axis.dims) > 1] for i in range(rows[dim])]
    known = [group for segment in found.values() for group in segment.groups]
    single = [axis for axis in own if len(axis.dims) == 1]
    above = [_common(solution, each) for each in slices]
    kinds = [_kind(solution, each, place) for each, place in zip(slices, above, strict=True)]
    numbers = np.array([kinds.index(kind) for kind in kinds])
    for segment in divided(solution, rows[dim], single, 0, numbers, known, above):
        first = np.array([segment.positions[0]])
        inner = [axis.take(dim, first).drop(dim) if dim in axis.dims else axis for axis in axes if axis.dims != (dim,)]
        segment = replace(segment, positions=segment.positions + (start if dim == 0 else 0))
        yield from _stacked(solution, inner, rows, rest, {**found, dim: segment}, start)


def _common(solution: Solution, axes: Sequence[NeuronAxis]) -> Coordinates:
    """Return the coordinates that all neurons of some axes have."""
    every = [solution.coordinates(atom) for axis in axes for atom in axis.atoms.flat]
    return tuple(entry for entry in every[0] if all(entry in own for own in every[1:])) if every else ()


def _kind(solution: Solution, axes: Sequence[NeuronAxis], place: Coordinates) -> Any:
    """Return the groups and scales of the neurons of some axes, other than those that move as a whole."""
    whole = {group for group, _ in place}
    groups = {g for axis in axes for atom in axis.atoms.flat for g, _ in solution.coordinates(atom)} - whole
    scales = {solution.scale(int(v)) for axis in axes for _, _, variables in axis.terms for v in variables.flat}
    return groups, scales


def divided(
    solution: Solution,
    size: int,
    axes: Sequence[NeuronAxis],
    offset: int,
    kinds: Array | None = None,
    known: Collection[DraftGroup] = (),
    above: Sequence[Coordinates] = (),
) -> list[Segment]:
    """Return the coordinates of an axis by the groups and scales that act on them, and by their kinds.

    Groups that are known act on another axis of the block; coordinates above are those of axes on further dimensions.
    """
    places: list[Coordinates] = [
        max((*(solution.coordinates(int(axis.atoms[i])) for axis in axes), *above[i : i + 1]), key=len, default=())
        for i in range(size)
    ]
    buckets: dict[Any, list[int]] = defaultdict(list)
    for i, place in enumerate(places):
        groups = tuple(group for group, _ in place if group not in known)
        buckets[groups, _scales(solution, axes, i), None if kinds is None else int(kinds[i])].append(i)
    segments = []
    for (groups, scales, _), members in buckets.items():
        index = [[i for group, i in places[member] if group not in known] for member in members]
        segments.append(_arranged(np.array(members) + offset, groups, index, scales))
    return sorted(segments, key=lambda segment: int(segment.positions[0]))


def _scales(solution: Solution, axes: Sequence[NeuronAxis], i: int) -> tuple[Scale, ...]:
    scales = [
        solution.scale(int(variables[i])) for axis in axes if axis.atoms[i] != ABSENT for _, _, variables in axis.terms
    ]
    return tuple(scale for scale in scales if scale)


def _arranged(
    positions: Array, groups: tuple[DraftGroup, ...], index: list[list[int]], scales: tuple[Scale, ...]
) -> Segment:
    """Return coordinates as a product of groups and a fixed size: in their own order where that is one, else sorted."""
    if not groups:
        return Segment(positions, (len(positions),), scales)
    sizes = [group.size for group in groups]
    numbers = np.array(index)
    occurrence = np.zeros(len(positions), dtype=np.int64)
    counts: dict[int, int] = defaultdict(int)
    for i, value in enumerate(np.ravel_multi_index(tuple(numbers.T), sizes).tolist()):
        occurrence[i] = counts[value]
        counts[value] += 1
    times = len(positions) // prod(sizes)
    columns = [*numbers.T, occurrence]
    axes: list[DraftGroup | int] = [*groups, times]
    last = len(groups)
    orders = [*permutations(range(last + 1))] if times > 1 else [(*p, last) for p in permutations(range(last))]
    sorted_by = [np.lexsort([columns[i] for i in reversed(order)]) for order in orders]
    best = next((k for k, s in enumerate(sorted_by) if (np.diff(positions[s]) == 1).all()), 0)
    chosen = tuple(axes[i] for i in orders[best] if axes[i] != 1)
    return Segment(positions[sorted_by[best]], chosen, scales)
