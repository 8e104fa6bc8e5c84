"""Other widths: the same table of parameters, blocks and wires with neuron groups of other sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from wsflow.architecture.architecture import Architecture
from wsflow.architecture.parameters import Block, Parameter
from wsflow.architecture.sequential import with_widths
from wsflow.architecture.spaces import DirectSum, NeuronGroup, Space

Bounds = tuple[int, int]


def resized(architecture: Architecture, sizes: Mapping[str, int]) -> Architecture:
    """Return the architecture with other sizes of its neuron groups, by name, and without its program."""
    known = [group.name for group in architecture.groups]
    if unknown := sorted(set(sizes) - set(known)):
        raise ValueError(f"{unknown[0]!r} is no neuron group of this architecture, which has {', '.join(known)}.")
    if wrong := next((name for name, size in sizes.items() if size < 1), None):
        raise ValueError(f"A neuron group has at least one neuron, got {sizes[wrong]} for {wrong!r}.")
    return replace(
        architecture,
        parameters=tuple(_parameter(parameter, sizes) for parameter in architecture.parameters),
        wires=tuple(replace(wire, space=_space(wire.space, sizes)) for wire in architecture.wires),
        layers=with_widths(architecture.layers, sizes),
        program=None,
        module=None,
    )


def _space(space: Space, sizes: Mapping[str, int]) -> Space:
    if isinstance(space, DirectSum):
        return DirectSum(tuple(_space(part, sizes) for part in space.parts))  # type: ignore[misc]
    if not isinstance(space, NeuronGroup):
        return space
    parent = space.parent and _space(space.parent, sizes)
    return replace(space, size=sizes.get(space.name, space.size), parent=parent)  # type: ignore[arg-type]


def _parameter(parameter: Parameter, sizes: Mapping[str, int]) -> Parameter:
    blocks = [replace(b, axes=tuple(_space(axis, sizes) for axis in b.axes)) for b in parameter.blocks]
    if [b.extents for b in blocks] == [b.extents for b in parameter.blocks]:
        return replace(parameter, blocks=tuple(blocks))
    views = {block.view or parameter.shape for block in parameter.blocks}
    if len(views) > 1:
        raise _refusal(parameter)
    (view,) = views
    bounds = [_bounds(old, new, view, parameter) for old, new in zip(parameter.blocks, blocks, strict=True)]
    found = [_dimension([b[axis] for b in bounds], size, parameter) for axis, size in enumerate(view)]
    new_view = tuple(size for size, _ in found)
    placed = [tuple(moved[b] for (b, _), (_, moved) in zip(own, found, strict=True)) for own in bounds]
    return replace(
        parameter,
        shape=_shape(parameter, view, new_view),
        blocks=tuple(
            replace(block, view=block.view and new_view, slices=block.slices and slices)
            for block, slices in zip(blocks, placed, strict=True)
        ),
    )


def _bounds(old: Block, new: Block, view: Sequence[int], parameter: Parameter) -> list[tuple[Bounds, int]]:
    """Return what a block takes of each dimension of the view, and how long that is at the other width."""
    slices = old.slices or ((None,),) * len(view)
    taken = [slice(*s).indices(n)[:2] for s, n in zip(slices, view, strict=True)]
    lengths, rest = [], list(zip(old.extents, new.extents, strict=True))
    for axis, (start, stop) in enumerate(taken):
        index = None if old.index is None else old.index[axis]
        before = after = 1
        while before != (stop - start if index is None else len(index)):
            if not rest:
                raise _refusal(parameter)
            extents = rest.pop(0)
            before, after = before * extents[0], after * extents[1]
        if index is not None and before != after:
            raise _refusal(parameter)
        lengths.append(after if index is None else stop - start)
    if any(after != before for before, after in rest):
        raise _refusal(parameter)
    return list(zip(taken, lengths, strict=True))


def _dimension(
    parts: Sequence[tuple[Bounds, int]], size: int, parameter: Parameter
) -> tuple[int, dict[Bounds, Bounds]]:
    """Return the new size of a dimension, and where its parts lie; parts that change have to cover it."""
    if all(stop - start == length for (start, stop), length in parts):
        return size, {bounds: bounds for bounds, _ in parts}
    moved, covered, end = {}, 0, 0
    for (start, stop), length in sorted(set(parts)):
        if start != covered:
            raise _refusal(parameter)
        moved[start, stop] = (end, end + length)
        covered, end = stop, end + length
    if covered != size:
        raise _refusal(parameter)
    return end, moved


def _shape(parameter: Parameter, view: Sequence[int], new_view: Sequence[int]) -> tuple[int, ...]:
    """Return the shape whose dimensions are products of those of a view, as they were."""
    shape, rest = [], list(zip(view, new_view, strict=True))
    for size in parameter.shape:
        taken: list[tuple[int, int]] = []
        while not taken or prod(n for n, _ in taken) < size:
            if not rest:
                raise _refusal(parameter)
            taken.append(rest.pop(0))
        if prod(n for n, _ in taken) != size:
            raise _refusal(parameter)
        shape.append(prod(n for _, n in taken))
    return tuple(shape)


def _refusal(parameter: Parameter) -> ValueError:
    return ValueError(
        f"The layout of the parameter {parameter.name!r} does not say what it is at another width. Read a module of "
        "that width with Architecture.from_module, and pass its architecture."
    )
