"""Restriction to a subgroup: an architecture of which some neuron groups and wires are fixed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from wsflow.architecture.architecture import Architecture
from wsflow.architecture.parameters import Block
from wsflow.architecture.spaces import DirectSum, Fixed, NeuronGroup, Space, Wire, groups_of, lineage


def restricted(architecture: Architecture, groups: Collection[str], wires: Collection[str] = ()) -> Architecture:
    """Return an architecture whose neurons in these groups stay in order, and whose wires over them are not scaled.

    Groups that are nested in a fixed group still move within it, unless that is nested itself. The parents of a fixed
    group that has no axis of its own within them are fixed as well: its axis cannot move by its parents alone.
    """
    fixed = _fixed(architecture, set(groups))
    moved = {w.name: {part.name for part in _groups(w.space)} for w in architecture.wires}
    free = [w for w in architecture.wires if w.name not in wires and not fixed.keys() & moved[w.name]]
    if not fixed and len(free) == len(architecture.wires):
        return architecture
    return _with(architecture, fixed, free)


def in_order(architecture: Architecture, scalings: Mapping[str, frozenset[str]]) -> Architecture:
    """Return an architecture whose neurons all stay in order, with these wires, scaled in these ways.

    A wire over a nested group is left out, for its neurons are on two axes of a parameter.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.architecture.restriction import in_order
    >>> in_order(Architecture.mlp([4, 3, 2]), {"hidden1": frozenset({"positive"})}).wires
    (Wire(name='hidden1', space=Fixed(size=3, name=''), scalings=frozenset({'positive'})),)
    """
    fixed = dict.fromkeys((group.name for group in architecture.groups), "")
    nested = {w.name for w in architecture.wires if any(part.parent is not None for part in _groups(w.space))}
    wires = [w for w in architecture.wires if scalings.get(w.name) and w.name not in nested]
    return _with(architecture, fixed, [replace(wire, scalings=scalings[wire.name]) for wire in wires])


def _with(architecture: Architecture, fixed: Mapping[str, str], wires: Sequence[Wire]) -> Architecture:
    """Return an architecture with fixed groups, and of its wires these alone."""
    known = {wire.name for wire in wires}
    return replace(
        architecture,
        parameters=tuple(
            replace(parameter, blocks=tuple(_restricted_block(block, fixed, known) for block in parameter.blocks))
            for parameter in architecture.parameters
        ),
        wires=tuple(replace(wire, space=_restricted_space(wire.space, fixed, wire.space.total)) for wire in wires),
        activation_sites=tuple(site for site in architecture.activation_sites if site.group not in fixed),
    )


def _groups(space: Space) -> tuple[NeuronGroup, ...]:
    """Return the groups whose neurons a space ranges over, without their parents."""
    parts = space.parts if isinstance(space, DirectSum) else (space,)
    return tuple(part for part in parts if isinstance(part, NeuronGroup))


def _fixed(architecture: Architecture, names: set[str]) -> dict[str, str]:
    """Return all groups that are fixed together with those named, with names for those in which others still move."""
    labels = [
        part
        for _, block, _ in architecture.blocks
        for axis, space in enumerate(block.axes)
        if block.parent_axis(axis) is None
        for part in _groups(space)
    ]
    count = -1
    while len(names) != count:
        count = len(names)
        deep = (g for g in architecture.groups if len(lineage(g)) > 2)
        names |= {g.name for g in deep if {above.name for above in lineage(g)[1:-1]} & names}
        names |= {group.name for part in labels if part.name in names for group in groups_of(part)}
    parents = {g.parent.name for g in architecture.groups if g.parent is not None and g.name not in names}
    return {name: name if name in parents else "" for name in names}


def _restricted_block(block: Block, fixed: Mapping[str, str], wires: set[str]) -> Block:
    return replace(
        block,
        axes=tuple(_restricted_space(space, fixed, block.extent(axis)) for axis, space in enumerate(block.axes)),
        wires=tuple(row for row in block.wires if row[0] in wires),
        shifts=tuple(row for row in block.shifts if row[0] in wires),
        shears=tuple(shear for shear in block.shears if shear.wire in wires),
    )


def _restricted_space(space: Space, fixed: Mapping[str, str], size: int) -> Space:
    if isinstance(space, DirectSum):
        parts = (_restricted_space(part, fixed, part.total) for part in space.parts)
        return DirectSum(tuple(parts))  # type: ignore[arg-type]
    if not isinstance(space, NeuronGroup):
        return space
    if space.name in fixed:
        return Fixed(size, fixed[space.name])
    parent = space.parent and _restricted_space(space.parent, fixed, space.parent.total)
    return space if parent == space.parent else replace(space, parent=parent)  # type: ignore[arg-type]
