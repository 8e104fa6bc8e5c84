"""A program at other widths: sizes that it has as constants, rewritten; what cannot be rewritten is refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from wsflow.architecture.program import Operation, Program
from wsflow.running.runner import FAILURES, Run

Shape = tuple[int, ...]
# operations whose constant sizes are those of the result, and of the last dimensions of what comes in
_RESHAPED = ("reshape", "view", "_unsafe_view")
_TRAILING = ("layer_norm", "native_layer_norm", "rms_norm")


def at_widths(
    program: Program, old: Mapping[str, Shape], new: Mapping[str, Shape], sizes: Collection[tuple[int, int]]
) -> Program:
    """Return the program for parameters of other shapes.

    Both are run on shapes alone. Sizes of reshaped values and of norms are rewritten; `sizes` has the old and new sizes
    of the neuron groups, by which a product is split.
    """
    before, after = _Shapes(program, old), _Shapes(program, new)
    operations = []
    for operation in program.operations:
        known = before.computed(operation)
        try:
            operation = _rewritten(operation, before, after, known, sizes)
            found = after.computed(operation)
        except FAILURES as error:
            raise _refusal(operation, str(error).splitlines()[0]) from error
        _check_taken(operation, before, after)
        before.values[operation.name], after.values[operation.name] = known, found
        operations.append(operation)
    ends = before.resolved(program.output), after.resolved(program.output)
    if _shapes(ends[0]) != _shapes(ends[1]):
        raise ValueError(f"At the other width the output would have the shapes {_shapes(ends[1])}. Choose others.")
    return replace(program, operations=tuple(operations))


class _Shapes(Run):
    """A run of one network on tensors without data."""

    def __init__(self, program: Program, shapes: Mapping[str, Shape]) -> None:
        super().__init__(program, {n: torch.empty(shape, device="meta") for n, shape in shapes.items()}, alone=True)
        for x in program.inputs:
            self.values[x.name] = torch.empty(x.shape, device="meta", dtype=self._dtype(x.dtype))

    @torch.no_grad()
    def computed(self, operation: Operation) -> Any:
        return self._computed(operation, self._resolved(operation.arguments))

    def resolved(self, operand: Any) -> Any:
        return self._resolved(operand)


def _rewritten(
    operation: Operation, before: _Shapes, after: _Shapes, known: Any, sizes: Collection[tuple[int, int]]
) -> Operation:
    if not operation.arguments:
        return operation
    old, new = (shapes.resolved(operation.arguments[0]) for shapes in (before, after))
    if not isinstance(old, Tensor) or old.shape == new.shape:
        return operation
    base, first, *rest = operation.base, *operation.arguments
    if base in _RESHAPED:
        target = _regrouped(old.shape, new.shape, known.shape, sizes)
        kept = tuple(
            n if isinstance(given, int) and given != -1 else given for given, n in zip(rest[0], target, strict=True)
        )
        return replace(operation, arguments=(first, kept, *rest[1:]))
    if base in _TRAILING:
        return replace(operation, arguments=(first, tuple(new.shape[-len(rest[0]) :]), *rest[1:]))
    if base == "expand":
        pairs = zip(rest[0][::-1], old.shape[::-1], new.shape[::-1], strict=False)
        own = [n if isinstance(given, int) and given == o else given for given, o, n in pairs][::-1]
        return replace(operation, arguments=(first, (*rest[0][: len(rest[0]) - len(own)], *own), *rest[1:]))
    if base in ("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"):
        axis = rest[1] if len(rest) > 1 else dict(operation.keywords).get("dim", 0)
        return replace(operation, arguments=(first, _scaled(rest[0], old.shape[axis], new.shape[axis]), *rest[1:]))
    if base.startswith("conv") and len(rest) > 5 and rest[5] == old.shape[1] > 1:
        # depthwise: as many groups as channels
        return replace(operation, arguments=(first, *rest[:5], new.shape[1], *rest[6:]))
    if base == "native_group_norm":
        return replace(operation, arguments=(*operation.arguments[:4], new.shape[1], *operation.arguments[5:]))
    return operation


def _regrouped(old: Shape, new: Shape, target: Shape, sizes: Collection[tuple[int, int]]) -> list[int]:
    """Return the shape to which `new` is reshaped as `old` is to `target`: products stay with their dimensions."""
    result: list[int] = []
    i = j = 0
    while i < len(old) or j < len(target):
        a, b = min(i + 1, len(old)), min(j + 1, len(target))
        while prod(old[i:a]) != prod(target[j:b]):
            a, b = (a + 1, b) if prod(old[i:a]) < prod(target[j:b]) else (a, b + 1)
            if a > len(old) or b > len(target):
                raise ValueError(f"a shape {tuple(old)} is not regrouped to {tuple(target)}")
        result += _distributed(target[j:b], prod(old[i:a]), prod(new[i:a]), sizes)
        i, j = a, b
    return result


def _distributed(target: Shape, old: int, new: int, sizes: Collection[tuple[int, int]]) -> list[int]:
    """Return the dimensions whose product was `old`, for a product `new`: one of them is that of a neuron group."""
    if old == new:
        return list(target)
    if len(target) == 1:
        return [new]
    options = [
        [*target[:k], after, *target[k + 1 :]]
        for k, size in enumerate(target)
        for before, after in set(sizes)
        if size == before and old // before * after == new
    ]
    if len(options) != 1:
        raise ValueError(f"the sizes {tuple(target)} may change in {len(options)} ways")
    return options[0]


def _scaled(size: Any, old: int, new: int) -> Any:
    if isinstance(size, tuple):
        return tuple(_scaled(part, old, new) for part in size)
    if not isinstance(size, int):
        return size
    if size * new % old:
        raise ValueError(f"a part of {size} of {old} is none of {new}")
    return size * new // old


def _check_taken(operation: Operation, before: _Shapes, after: _Shapes) -> None:
    """Refuse constant positions on an axis that has another size."""
    if operation.base not in ("slice", "narrow", "select", "index_select") or not operation.arguments:
        return
    old, new = (shapes.resolved(operation.arguments[0]) for shapes in (before, after))
    axis = operation.arguments[1] if len(operation.arguments) > 1 else 0
    if not isinstance(old, Tensor) or old.shape[axis] == new.shape[axis]:
        return
    bounds = operation.arguments[2:4] if operation.base == "slice" else (1,)
    start, stop = (*bounds, None, None)[:2]
    whole = operation.base == "slice" and start in (None, 0) and (stop is None or stop >= max(old.shape[axis], 2**31))
    if not whole:
        raise _refusal(operation, f"it takes a part of an axis of {old.shape[axis]}")


def _refusal(operation: Operation, why: str) -> ValueError:
    where = f" of the layer {operation.layer!r}" if operation.layer else ""
    return ValueError(
        f"The operation {operation.name!r}, {operation.function}{where}, has the old width in it: {why}. Read a module "
        "of the other width with Architecture.from_module, and pass its architecture."
    )


def _shapes(values: Any) -> list[Shape]:
    return [tuple(leaf.shape) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
