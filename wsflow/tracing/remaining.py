"""Which symmetries constants leave: those of the network without them that keep every constant where it is.

The network is traced as if its constants (buffers at axes of neurons) were weights. Its neurons are then the vertices
of a labelled structure, whose edges are the constants; an automorphism is a permutation that is left. Logarithms of
scales that keep constants solve a linear system, and so do signs, modulo 2.

References
----------
Lim et al. 2024, arXiv:2405.20231, section 4 (automorphisms of the computation graph with fixed edges).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from wsflow.activations import FLIP, PHASE, POSITIVE, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, NeuronGroup
from wsflow.architecture.spaces import Space
from wsflow.representation import in_a_line
from wsflow.symmetry.actions import nested_axes
from wsflow.tracing.abstract_tensor import Array
from wsflow.tracing.automorphisms import Relation, Structure, Undecided
from wsflow.tracing.neuron_groups import mixed
from wsflow.tracing.scalings import LinearSystem


@in_a_line
@dataclass(frozen=True)
class RemainingSymmetries:
    """Hold what constants leave of the symmetries of a network.

    Parameters
    ----------
    groups : tuple of str
        The neuron groups of the network without its constants.
    permutation : dict from str to tuple of int, or None
        By group, the new order of its neurons under one permutation that is left; empty if there is none, which is then
        proven; None if the search became too long.
    scalings : dict from str to tuple of int
        By wire, the neurons that can be scaled by positive numbers, each by itself.
    signs : dict from str to tuple of int
        The same for signs.
    shifts : tuple of str
        Wires whose biases can be shifted by whole periods, as those of sines.
    joint : int
        Number of further scales and signs that act on several neurons at once.
    """

    groups: tuple[str, ...]
    permutation: dict[str, tuple[int, ...]] | None
    scalings: dict[str, tuple[int, ...]] = field(default_factory=dict)
    signs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    shifts: tuple[str, ...] = ()
    joint: int = 0

    @property
    def is_proven_trivial(self) -> bool:
        """Whether there is no symmetry left, of those that the network without its constants has."""
        return self.permutation == {} and not (self.scalings or self.signs or self.shifts or self.joint)

    def __str__(self) -> str:
        if self.is_proven_trivial:
            return "no symmetries: proven"
        found = []
        if self.permutation is None:
            found.append("whether permutations are left could not be decided")
        elif self.permutation:
            found.append(f"permutations of {', '.join(self.permutation)}")
        for what, own in (("positive scalings", self.scalings), ("signs", self.signs)):
            found += [f"{what} of {', '.join(f'{len(n)} neurons of {w}' for w, n in own.items())}"] if own else []
        found += [f"shifts by whole periods of {', '.join(self.shifts)}"] if self.shifts else []
        found += [f"{self.joint} scales or signs of several neurons at once"] if self.joint else []
        return f"symmetries that remain: {'; '.join(found)}"


def remaining_symmetries(architecture: Architecture, constants: Mapping[str, Any]) -> RemainingSymmetries:
    """Return the symmetries of an architecture that keep the values of some of its parameters.

    Parameters
    ----------
    architecture : Architecture
        Of the network as if its constants were weights.
    constants : mapping of str to array
        Their values, by the names of parameters.

    Examples
    --------
    Three neurons, of which two have the same constants, and are scaled alike:

    >>> import numpy as np
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.tracing.remaining import remaining_symmetries
    >>> architecture = Architecture.mlp([2, 3, 2])
    >>> str(remaining_symmetries(architecture, {"0.weight": np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])}))
    'symmetries that remain: permutations of hidden1'
    >>> str(remaining_symmetries(architecture, {"0.weight": np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])}))
    'no symmetries: proven'
    """
    vertices = _Vertices(architecture)
    relations = [r for block, values in _blocks(architecture, constants) for r in vertices.relation(block, values)]
    structure = Structure(vertices.colours, [*vertices.parents(), *relations])
    try:
        image = structure.automorphism()
        moved = {} if image is None else vertices.moved(image)
    except Undecided:
        moved = None
    scales, joint_scales = _free(architecture, constants, {POSITIVE}, 0)
    signs, joint_signs = _free(architecture, constants, {SIGN, FLIP}, 2)
    shifts = tuple(wire.name for wire in architecture.wires if PHASE in wire.scalings)
    groups = tuple(group.name for group in architecture.groups)
    return RemainingSymmetries(groups, moved, scales, signs, shifts, joint_scales + joint_signs)


def _blocks(architecture: Architecture, constants: Mapping[str, Any]) -> Iterator[tuple[Block, Array]]:
    """Yield the blocks of constants with their numbers, shaped as the block."""
    for parameter in architecture.parameters:
        if parameter.name in constants:
            values = np.asarray(constants[parameter.name]).reshape(-1)
            for block in parameter.blocks:
                yield block, values[block.positions(parameter.shape)]


class _Vertices:
    """The neurons of all groups as vertices, and a vertex for each fixed coordinate beside neurons on one axis."""

    def __init__(self, architecture: Architecture) -> None:
        self.groups = architecture.groups
        self.first: dict[NeuronGroup, int] = {}
        count = 0
        for group in self.groups:
            self.first[group] = count
            count += group.total
        spaces = {space for _, block, _ in architecture.blocks for space in block.axes if isinstance(space, DirectSum)}
        self.fixed: dict[DirectSum, int] = {}
        named = [np.full(group.total, i) for i, group in enumerate(self.groups)]
        for space in sorted(spaces, key=repr):
            self.fixed[space] = count
            # unique names for coordinates that stay
            named.append(np.arange(count, count + space.total) + len(self.groups))
            count += space.total
        self.colours = mixed(np.concatenate([*named, np.empty(0, dtype=np.int64)]))

    def of_space(self, space: Space) -> Array:
        """Return the vertices (total,) of the coordinates of a space."""
        if isinstance(space, NeuronGroup):
            return self.first[space] + np.arange(space.total)
        if not isinstance(space, DirectSum):
            return np.full(space.total, -1)
        parts = [self.of_space(part) for part in space.parts]
        own = self.fixed[space] + np.arange(space.total)
        found = np.concatenate(parts)
        return np.where(found < 0, own, found)

    def relation(self, block: Block, values: Array) -> Iterator[Relation]:
        """Yield the relation that the numbers of a block (*extents) are, if neurons range over one of its axes."""
        # without those in whose neurons the neurons of other axes lie, which stand for them
        parents = {block.parent_axis(axis) for axis in range(len(block.axes))}
        axes = [axis for axis in block.neuron_axes() if axis not in parents]
        if not axes:
            return
        vertices = [_along(self.of_space(block.axes[axis]), block, axis).reshape(-1) for axis in axes]
        labels = np.unique(values, return_inverse=True)[1].reshape(values.shape)
        fixed = [i for i in range(values.ndim) if not any(i in nested_axes(block, axis) for axis in axes)]
        for axis in fixed:
            place = np.arange(values.shape[axis]).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
            labels = labels * values.shape[axis] + place
        yield Relation(np.stack(vertices), labels.reshape(-1))

    def parents(self) -> Iterator[Relation]:
        """Yield, for each group that is nested in another, which neuron lies in which."""
        for group in self.groups:
            if isinstance(group.parent, NeuronGroup):
                above = self.first[group.parent] + np.arange(group.total) // group.size
                own = self.first[group] + np.arange(group.total)
                yield Relation(np.stack([own, above]), np.zeros(group.total, dtype=np.int64))
            elif group.parent is not None:
                # in coordinates that stay
                place = np.arange(group.total) // group.size
                yield Relation((self.first[group] + np.arange(group.total))[None], place)

    def moved(self, image: Array) -> dict[str, tuple[int, ...]]:
        """Return a permutation of the vertices by group, without groups that stay."""
        found = {}
        for group, first in self.first.items():
            own = image[first : first + group.total] - first
            if (own != np.arange(group.total)).any():
                found[group.name] = tuple(own.tolist())
        return found


def _along(values: Array, block: Block, axis: int) -> Array:
    """Return values (total,) on the space of an axis, spread over the block (*extents)."""
    axes = nested_axes(block, axis)
    shaped = values.reshape([block.extents[i] for i in axes])
    order = sorted(range(len(axes)), key=axes.__getitem__)
    shape = [size if i in axes else 1 for i, size in enumerate(block.extents)]
    return np.broadcast_to(shaped.transpose(order).reshape(shape), block.extents)


def _free(
    architecture: Architecture, constants: Mapping[str, Any], kinds: set[str], modulo: int
) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the neurons of each wire whose scales (or signs, modulo 2) are free, and how many more act jointly."""
    # of all wires those that act on weights
    blocks = (block for parameter, block, _ in architecture.blocks if parameter.name not in constants)
    acting = {name for block in blocks for name, _, _ in block.wires}
    wires = [wire for wire in architecture.wires if wire.scalings & kinds and wire.name in acting]
    first = dict(zip([w.name for w in wires], np.cumsum([0, *(w.space.total for w in wires)]).tolist(), strict=False))
    n = sum(wire.space.total for wire in wires)
    system = LinearSystem([0] * n, modulo)
    rows = [row for block, values in _blocks(architecture, constants) for row in _equations(block, values, first)]
    for row in sorted({tuple(sorted(row.items())) for row in rows}, key=len):
        system.add({unknown: Fraction(exponent) for unknown, exponent in row})
    tied = {unknown for solution in system.solved.values() for unknown in solution}
    bound = tied | system.solved.keys()
    free = {w.name: tuple(i for i in range(w.space.total) if first[w.name] + i not in bound) for w in wires}
    return {name: own for name, own in free.items() if own}, len(tied - system.solved.keys())


def _equations(block: Block, values: Array, first: Mapping[str, int]) -> Iterator[dict[int, int]]:
    """Yield the sums of logarithms of scales that a block of constants keeps at zero: where they are not zero."""
    scaled = [(name, axis, exponent) for name, axis, exponent in block.wires if name in first]
    if not scaled or values.dtype.kind != "f":
        return
    unknowns = []
    for name, axis, _ in scaled:
        total = math.prod(block.extents[i] for i in nested_axes(block, axis))
        unknowns.append(_along(first[name] + np.arange(total), block, axis)[values != 0])
    for row in np.unique(np.stack(unknowns, 1), axis=0).tolist():
        found: dict[int, int] = {}
        for unknown, (_, _, exponent) in zip(row, scaled, strict=True):
            found[unknown] = found.get(unknown, 0) + exponent
        yield {unknown: exponent for unknown, exponent in found.items() if exponent}
