"""Restriction to a subgroup: an architecture of which some neuron groups and wires are fixed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from wsflow.architecture.architecture import Architecture
from wsflow.architecture.parameters import Block, Parameter
from wsflow.architecture.spaces import DirectSum, Fixed, NeuronGroup, Space, groups_of


def restricted(architecture: Architecture, groups: Collection[str], wires: Collection[str] = ()) -> Architecture:
    """Return an architecture whose neurons in these groups stay in order, and whose wires over them are not scaled.

    Groups that are nested in a fixed group are fixed as well, and so are the parents of a fixed group that has no axis
    of its own within them: such an axis cannot move by its parents alone.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.architecture.restriction import restricted
    >>> [group.name for group in restricted(Architecture.mlp([4, 3, 5, 2]), ["hidden1"]).groups]
    ['hidden2']
    """
    fixed = _fixed(architecture, set(groups))
    free = [w for w in architecture.wires if w.name not in wires and not fixed & {g.name for g in groups_of(w.space)}]
    if not fixed and len(free) == len(architecture.wires):
        return architecture
    known = {wire.name for wire in free}
    return replace(
        architecture,
        parameters=tuple(_restricted_parameter(parameter, fixed, known) for parameter in architecture.parameters),
        wires=tuple(free),
        activation_sites=tuple(site for site in architecture.activation_sites if site.group not in fixed),
    )


def _fixed(architecture: Architecture, names: set[str]) -> set[str]:
    """Return the names of all groups that are fixed together with those named."""
    labels = [
        part
        for _, block, _ in architecture.blocks
        for axis, space in enumerate(block.axes)
        if block.parent_axis(axis) is None
        for part in (space.parts if isinstance(space, DirectSum) else (space,))
    ]
    count = -1
    while len(names) != count:
        count = len(names)
        names = {g.name for g in architecture.groups if {member.name for member in groups_of(g)} & names}
        names |= {g.name for part in labels if isinstance(part, NeuronGroup) and part.name in names
                  for g in groups_of(part)}  # fmt: skip
    return names


def _restricted_parameter(parameter: Parameter, fixed: set[str], wires: set[str]) -> Parameter:
    return replace(parameter, blocks=tuple(_restricted_block(block, fixed, wires) for block in parameter.blocks))


def _restricted_block(block: Block, fixed: set[str], wires: set[str]) -> Block:
    return replace(
        block,
        axes=tuple(_restricted_space(space, fixed, block.extent(axis)) for axis, space in enumerate(block.axes)),
        wires=tuple(row for row in block.wires if row[0] in wires),
        shifts=tuple(row for row in block.shifts if row[0] in wires),
        shears=tuple(shear for shear in block.shears if shear.wire in wires),
    )


def _restricted_space(space: Space, fixed: set[str], size: int) -> Space:
    if isinstance(space, DirectSum):
        parts = (_restricted_space(part, fixed, part.total) for part in space.parts)
        return DirectSum(tuple(parts))  # type: ignore[arg-type]
    return Fixed(size) if isinstance(space, NeuronGroup) and space.name in fixed else space
