"""Operations that move coordinates of abstract tensors: views, permutations, slices, concatenations, padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import TypeVar

import numpy as np

from wsflow.tracing.abstract_tensor import (
    ABSENT,
    AbstractTensor,
    Array,
    Coordinates,
    Labels,
    NeuronAxis,
    merged,
    negated,
)
from wsflow.tracing.constraints import Constraints

C = TypeVar("C", bound=Coordinates)
# dimensions before and after
Runs = list[tuple[tuple[int, ...], tuple[int, ...]]]


def reshape(constraints: Constraints, tensor: AbstractTensor, shape: Sequence[int]) -> AbstractTensor:
    """Return a view of another shape: each product of dimensions on one side is one on the other."""
    runs = _matching_runs(tensor.shape, tuple(shape))
    axes = tuple(_viewed(axis, runs, tensor.shape, shape) for axis in _crossed(constraints, tensor, runs))
    labels = tuple(_viewed(own, runs, tensor.shape, shape) for own in tensor.labels)
    return constraints.squeeze(replace(tensor, shape=tuple(shape), axes=axes, labels=labels))


def _viewed(own: C, runs: Runs, before: Sequence[int], after: Sequence[int]) -> C:
    touched = [run for run in runs if set(run[0]) & set(own.dims)]
    old = tuple(dim for dims, _ in touched for dim in dims)
    new = tuple(dim for _, dims in touched for dim in dims)
    return own.expand(old, [before[dim] for dim in old]).view(new, [after[dim] for dim in new])


def _crossed(constraints: Constraints, tensor: AbstractTensor, runs: Runs) -> list[NeuronAxis]:
    """Return neuron axes of which no two have dimensions in one run: several become one, of neurons that lie in each.

    So are the columns of a kernel as a matrix: each lies in an input channel, and at a position of the kernel.
    """
    axes = list(tensor.axes)
    for run in (set(before) for before, _ in runs):
        own = [axis for axis in axes if run & set(axis.dims)]
        if len(own) < 2:
            continue
        dims = tuple(sorted({dim for axis in own for dim in axis.dims}))
        sizes = [tensor.shape[dim] for dim in dims]
        terms = tuple(term for axis in own for term in axis.expand(dims, sizes).terms)
        crossed = NeuronAxis(dims, constraints.new_atoms(sizes), terms)
        for axis in own:
            constraints.nest(crossed, axis, sizes)
        axes = [axis for axis in axes if not any(axis is other for other in own)] + [crossed]
    return axes


def _matching_runs(before: tuple[int, ...], after: tuple[int, ...]) -> Runs:
    """Return the smallest runs of dimensions with equal products; those of length one go with their neighbours."""
    runs = []
    i = j = 0
    while i < len(before) or j < len(after):
        a, b = [i] if i < len(before) else [], [j] if j < len(after) else []
        i, j = i + len(a), j + len(b)
        left, right = prod(before[k] for k in a), prod(after[k] for k in b)
        while left != right:
            if left < right:
                a.append(i)
                left, i = left * before[i], i + 1
            else:
                b.append(j)
                right, j = right * after[j], j + 1
        runs.append((tuple(a), tuple(b)))
    return runs


def _moved(tensor: AbstractTensor, shape: Sequence[int], place: Mapping[int, int]) -> AbstractTensor:
    """Return the tensor with dimension d at place[d], and constant along new dimensions."""
    axes = tuple(axis.renamed(place) for axis in tensor.axes)
    labels = tuple(own.renamed(place) for own in tensor.labels)
    return replace(tensor, shape=tuple(shape), axes=axes, labels=labels)


def permute(tensor: AbstractTensor, dims: Sequence[int]) -> AbstractTensor:
    """Return the tensor with its dimensions in another order."""
    order = [dim % len(tensor.shape) for dim in dims]
    shape = [tensor.shape[dim] for dim in order]
    return replace(_moved(tensor, shape, {dim: i for i, dim in enumerate(order)}), parameter="")


def transpose(tensor: AbstractTensor, a: int, b: int) -> AbstractTensor:
    """Return the tensor with two dimensions exchanged."""
    order = list(range(len(tensor.shape)))
    order[a], order[b] = order[b], order[a]
    return permute(tensor, order)


def expand(tensor: AbstractTensor, shape: Sequence[int]) -> AbstractTensor:
    """Return the tensor repeated along dimensions of length one, and along new ones in front."""
    new = len(shape) - len(tensor.shape)
    sizes = [tensor.shape[dim - new] if size == -1 else size for dim, size in enumerate(shape)]
    return _moved(tensor.generic(), sizes, {dim: dim + new for dim in range(len(tensor.shape))})


def take(constraints: Constraints, tensor: AbstractTensor, dim: int, index: Array) -> AbstractTensor:
    """Return the tensor at these coordinates of a dimension: slices, selections, splits."""
    dim %= len(tensor.shape)
    axes = tuple(axis.take(dim, index) if dim in axis.dims else axis for axis in tensor.axes)
    labels = tuple(own.take(dim, index) if dim in own.dims else own for own in tensor.labels)
    shape = (*tensor.shape[:dim], len(index), *tensor.shape[dim + 1 :])
    return constraints.squeeze(replace(tensor.generic(), shape=shape, axes=axes, labels=labels))


def drop(tensor: AbstractTensor, dim: int) -> AbstractTensor:
    """Return the tensor without a dimension of length one."""
    dim %= len(tensor.shape)
    place = {d: d - (d > dim) for d in range(len(tensor.shape)) if d != dim}
    return _moved(tensor, tensor.shape[:dim] + tensor.shape[dim + 1 :], place)


def insert(tensor: AbstractTensor, dim: int) -> AbstractTensor:
    """Return the tensor with a new dimension of length one."""
    dim %= len(tensor.shape) + 1
    place = {d: d + (d >= dim) for d in range(len(tensor.shape))}
    return _moved(tensor, (*tensor.shape[:dim], 1, *tensor.shape[dim:]), place)


def repeat(constraints: Constraints, tensor: AbstractTensor, dim: int, times: int, blocks: bool) -> AbstractTensor:
    """Return the tensor repeated along a dimension: all of it at once, or (blocks) each coordinate after the other."""
    shape = tensor.shape
    wide = insert(tensor, dim + blocks)
    wide = expand(wide, [*wide.shape[: dim + blocks], times, *wide.shape[dim + blocks + 1 :]])
    return reshape(constraints, wide, (*shape[:dim], times * shape[dim], *shape[dim + 1 :]))


def cat(constraints: Constraints, tensors: Sequence[AbstractTensor], dim: int) -> AbstractTensor:
    """Return tensors one after the other along a dimension."""
    tensors = [tensor for tensor in tensors if tensor.shape != (0,)]
    dim %= len(tensors[0].shape)
    # flips pass where all tensors have the same, and along this dimension
    shears = {axis.shear if dim in axis.dims else None for tensor in tensors for axis in tensor.axes}
    if not all(tensor.axes for tensor in tensors):
        shears.add(None)
    shear = shears.pop() if len(shears) == 1 else None
    if shear is None:
        tensors = [constraints.without_flips(tensor) for tensor in tensors]
    size = sum(tensor.shape[dim] for tensor in tensors)
    shape = (*tensors[0].shape[:dim], size, *tensors[0].shape[dim + 1 :])
    every = {axis.dims for tensor in tensors for axis in tensor.axes}
    along = tuple(sorted({d for dims in every if dim in dims for d in dims}))
    axes = [replace(_joined(constraints, tensors, along, dim), shear=shear)] if along else []
    axes += [_shared(constraints, tensors, dims) for dims in sorted(every) if dim not in dims]
    labels = [own for tensor in tensors for own in tensor.labels if dim not in own.dims]
    return constraints.squeeze(AbstractTensor(shape, tuple(axes), (*labels, _labelled(tensors, dim))))


def _labelled(tensors: Sequence[AbstractTensor], dim: int) -> Labels:
    """Return the labels along the dimension of a concatenation, which tell tensors apart, too."""
    dims = tuple(
        sorted({dim, *(d for tensor in tensors for own in tensor.labels if dim in own.dims for d in own.dims)})
    )
    parts: list[Array] = []
    first = 0
    for i, tensor in enumerate(tensors):
        same = next((j for j, other in enumerate(tensors[:i]) if other is tensor), None)
        if same is not None:
            parts.append(parts[same])
            continue
        sizes = [tensor.shape[d] for d in dims]
        own = Labels(dims, np.zeros(sizes, dtype=np.int64))
        for labels in tensor.labels:
            own = own & labels.expand(dims, sizes) if dim in labels.dims else own
        parts.append(own.values + first)
        first += int(own.values.max(initial=0)) + 1
    return Labels(dims, np.concatenate(parts, dims.index(dim)))


def _joined(constraints: Constraints, tensors: Sequence[AbstractTensor], dims: tuple[int, ...], dim: int) -> NeuronAxis:
    """Return the neuron axis along which tensors are concatenated: coordinates without neurons are fixed."""
    position = dims.index(dim)
    parts = []
    for tensor in tensors:
        sizes = [tensor.shape[d] for d in dims]
        own = next((axis for axis in tensor.axes if dim in axis.dims), None)
        if own is not None:
            parts.append(own.expand(dims, sizes))
        elif tensor.zero:
            parts.append(NeuronAxis(dims, np.full(sizes, ABSENT)))
        else:
            atoms = constraints.new_atoms([tensor.shape[dim]])
            constraints.fix(atoms)
            parts.append(NeuronAxis((dim,), atoms).expand(dims, sizes))
    terms = []
    for i, part in enumerate(parts):
        for p, s, variables in part.terms:
            blank = [np.full(other.atoms.shape, ABSENT) for other in parts]
            blank[i] = variables
            terms.append((p, s, np.concatenate(blank, position)))
    return NeuronAxis(dims, np.concatenate([part.atoms for part in parts], position), tuple(terms))


def _shared(constraints: Constraints, tensors: Sequence[AbstractTensor], dims: tuple[int, ...]) -> NeuronAxis:
    """Return the neuron axis on other dimensions: all tensors have it in common, or it is fixed."""
    own = [next((axis for axis in tensor.axes if axis.dims == dims), None) for tensor in tensors]
    first = next(axis for axis in own if axis is not None)
    for axis, tensor in zip(own, tensors, strict=True):
        if axis is None and not tensor.zero:
            if not tensor.constant_on(dims):
                constraints.fix(first.atoms)
            constraints.require_zero(first.terms, first.atoms)
        elif axis is not None and axis is not first:
            constraints.unify(first.atoms, axis.atoms)
            constraints.require_zero([*first.terms, *negated(axis.terms)], first.atoms)
    return first


def pad(constraints: Constraints, tensor: AbstractTensor, pads: Sequence[int], value: float = 0.0) -> AbstractTensor:
    """Return the tensor with constants before and behind the coordinates of the last dimensions."""
    for i in range(len(pads) // 2):
        dim = len(tensor.shape) - 1 - i
        before, behind = int(pads[2 * i]), int(pads[2 * i + 1])
        if before or behind:
            tensor = _padded(constraints, tensor, dim, before, behind, value)
    return tensor


def _padded(
    constraints: Constraints, tensor: AbstractTensor, dim: int, before: int, behind: int, value: float
) -> AbstractTensor:
    if before < 0 or behind < 0:
        index = np.arange(max(0, -before), tensor.shape[dim] + min(0, behind))
        tensor, before, behind = take(constraints, tensor, dim, index), max(0, before), max(0, behind)
    axes = []
    for axis in tensor.axes:
        if value and dim not in axis.dims:
            constraints.require_zero(axis.terms, axis.atoms)
        if dim in axis.dims:
            widths = [(before, behind) if d == dim else (0, 0) for d in axis.dims]
            axis = axis.map(axis.dims, partial(np.pad, pad_width=widths, constant_values=ABSENT))
        axes.append(axis)
    size = tensor.shape[dim] + before + behind
    shape = (*tensor.shape[:dim], size, *tensor.shape[dim + 1 :])
    edge = np.pad(np.zeros(tensor.shape[dim], dtype=np.int64), (before, behind), constant_values=1)
    inner = np.clip(np.arange(size) - before, 0, tensor.shape[dim] - 1)
    labels = [own.take(dim, inner) if dim in own.dims else own for own in tensor.labels]
    labels = [*labels, Labels((dim,), edge)]
    padded = replace(tensor.generic(), shape=shape, axes=tuple(axes), labels=merged(labels))
    return constraints.fill_padding(padded) if value else padded


def stack(constraints: Constraints, tensors: Sequence[AbstractTensor], dim: int) -> AbstractTensor:
    """Return tensors one after the other along a new dimension."""
    inserted = {id(tensor): insert(tensor, dim) for tensor in tensors}
    return cat(constraints, [inserted[id(tensor)] for tensor in tensors], dim % (len(tensors[0].shape) + 1))
