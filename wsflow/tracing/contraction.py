"""Sums over dimensions of a product (or sum) of abstract tensors: linear maps, convolutions, attention, means.

As in an einsum, letters (integers) name the dimensions of the operands; those that the output lacks are summed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from wsflow.tracing.abstract_tensor import ABSENT, AbstractTensor, Array, Labels, NeuronAxis, Term, merged, negated
from wsflow.tracing.constraints import Constraints

Operands = Sequence[tuple[AbstractTensor, Sequence[int]]]
Letters = tuple[int, ...]


def contract(
    constraints: Constraints, operands: Operands, out: Sequence[int], signs: Sequence[int] | None
) -> AbstractTensor:
    """Return the sum, over letters that are not in `out`, of a product of tensors (or, without signs, of their sum).

    The sign of a factor is 1, or -1 for a divisor: logarithms of scales add. The summands of a sum scale alike.
    """
    sizes = _sizes(operands)
    if signs is not None and any(tensor.zero for (tensor, _), sign in zip(operands, signs, strict=True) if sign > 0):
        return AbstractTensor(tuple(sizes[letter] for letter in out), (), (), zero=True)
    labels = [own.renamed(letters) for tensor, letters in operands for own in tensor.labels]
    axes = _summed(constraints, _merged(constraints, operands, labels, out, sizes, signs), out, sizes)
    dims = {letter: dim for dim, letter in enumerate(out)}
    named = tuple(axis.renamed(dims) for axis in axes)
    left = merged(kept.renamed(dims) for own in labels if (kept := own.onto(dims)) is not None)
    return AbstractTensor(tuple(sizes[letter] for letter in out), named, left)


def _sizes(operands: Operands) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for tensor, letters in operands:
        for letter, size in zip(letters, tensor.shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    return sizes


def _merged(
    constraints: Constraints,
    operands: Operands,
    labels: Sequence[Labels],
    out: Sequence[int],
    sizes: Mapping[int, int],
    signs: Sequence[int] | None,
) -> list[NeuronAxis]:
    """Return the neuron axes of a product or sum, on letters.

    One that lies within another is left out, unless it has a scale that is kept where the other is summed over.
    """
    axes = [[axis.renamed(letters) for axis in tensor.axes] for tensor, letters in operands]
    found: dict[Letters, Array] = {}
    for axis in (axis for own in axes for axis in own):
        if axis.dims in found:
            constraints.unify(found[axis.dims], axis.atoms)
            found[axis.dims] = np.where(found[axis.dims] == ABSENT, axis.atoms, found[axis.dims])
        else:
            found[axis.dims] = axis.atoms
    _mark_labels(constraints, labels, found, sizes)
    _nest_shared(constraints, found, sizes)
    largest = [dims for dims in found if not any(set(dims) < set(other) for other in found)]
    homes = {axis.dims: _home(axis, largest, out) for own in axes for axis in own}
    merged = []
    for dims in dict.fromkeys([*largest, *homes.values()]):
        shape = [sizes[dim] for dim in dims]
        within = [[axis for axis in own if set(axis.dims) <= set(dims)] for own in axes]
        terms = [
            tuple(t for axis in own if homes[axis.dims] == dims for t in axis.expand(dims, shape).terms)
            for own in within
        ]
        if signs is not None:
            factors = zip(signs, terms, strict=True)
            merged.append(NeuronAxis(dims, found[dims], tuple((p * s, q, v) for s, own in factors for p, q, v in own)))
            continue
        # a tensor without neurons here is not zero anywhere
        atoms = [own[0].expand(dims, shape).atoms if own else np.zeros(shape, dtype=np.int64) for own in within]
        first = next(i for i, own in enumerate(within) if own)
        summands = [i for i, (tensor, _) in enumerate(operands) if i != first and not tensor.zero]
        common = _common_scale(constraints, [(terms[i], atoms[i] != ABSENT) for i in (first, *summands)])
        merged.append(NeuronAxis(dims, found[dims], common))
    return merged


def _home(axis: NeuronAxis, largest: Sequence[Letters], out: Sequence[int]) -> Letters:
    """Return the letters of the axis where a scale is counted: the first of the largest that covers it and is kept."""
    covering = [dims for dims in largest if set(axis.dims) <= set(dims)]
    kept = [dims for dims in covering if set(dims) <= set(out)]
    return kept[0] if kept else axis.dims if set(axis.dims) <= set(out) else covering[0]


def _mark_labels(
    constraints: Constraints, labels: Sequence[Labels], found: Mapping[Letters, Array], sizes: Mapping[int, int]
) -> None:
    """Tell neurons apart that occur with other labels."""
    for dims, atoms in found.items():
        shape = [sizes[dim] for dim in dims]
        own = [kept.expand(dims, shape) for each in labels if (kept := each.onto(dims)) is not None]
        if own:
            constraints.mark(atoms, reduce(Labels.__and__, own).values + 1)


def _nest_shared(constraints: Constraints, found: dict[Letters, Array], sizes: Mapping[int, int]) -> None:
    """Nest neuron axes that share dimensions: one in the other, or both in what they share."""
    for a in list(found):
        for b in list(found):
            shared = tuple(dim for dim in a if dim in b)
            if not shared or a == b or shared == b:
                continue
            if shared != a and shared not in found:
                found[shared] = constraints.new_atoms([sizes[dim] for dim in shared])
            constraints.nest(NeuronAxis(b, found[b]), NeuronAxis(shared, found[shared]), [sizes[dim] for dim in b])


def _common_scale(constraints: Constraints, summands: Sequence[tuple[tuple[Term, ...], Array]]) -> tuple[Term, ...]:
    """Return the scale of a sum, whose summands scale alike: at each coordinate, that of the first nonzero one."""
    (first, mask), *others = summands
    terms = list(first)
    for own, nonzero in others:
        constraints.require_zero([*terms, *negated(own)], np.where(mask & nonzero, 0, ABSENT))
        new = ~mask & nonzero
        if new.any():
            terms = [(p, s, np.where(new, ABSENT, v)) for p, s, v in terms]
            terms += [(p, s, np.where(new, v, ABSENT)) for p, s, v in own]
            mask = mask | new
    return tuple(terms)


def _summed(
    constraints: Constraints, axes: Sequence[NeuronAxis], out: Sequence[int], sizes: Mapping[int, int]
) -> list[NeuronAxis]:
    """Return what a sum over the letters that are not in `out` leaves of neuron axes.

    Where neurons that are summed over lie in parents, the parents remain. All in one parent scale alike, so that the
    sum has that scale; but by no other number than one where a kept axis, whose neurons have scales of their own, lies
    in these parents, too: the same weights would be scaled twice.
    """
    kept = {axis.dims: axis for axis in axes if set(axis.dims) <= set(out)}
    for axis in axes:
        rest = tuple(dim for dim in axis.dims if dim in out)
        if rest == axis.dims:
            continue
        parent = kept.get(rest)
        scale: tuple[Term, ...] = ()
        if rest and parent is None:
            parent = NeuronAxis(rest, constraints.new_atoms([sizes[dim] for dim in rest]))
            child = next((other for other in kept.values() if set(rest) <= set(other.dims)), None)
            if child is not None:
                constraints.nest(child, parent, [sizes[dim] for dim in child.dims])
            else:
                kept[rest] = parent = _scaled(constraints, parent, axis)
                scale = negated(parent.expand(axis.dims, axis.atoms.shape).terms)
        constraints.require_zero([*axis.terms, *scale], axis.atoms)
        if parent is not None:
            constraints.nest(axis, parent, axis.atoms.shape)
    return list(kept.values())


def _scaled(constraints: Constraints, parent: NeuronAxis, axis: NeuronAxis) -> NeuronAxis:
    """Return the parents of the neurons of an axis with scales of their own, if those have any and none is padded."""
    if not axis.terms or (axis.atoms == ABSENT).any():
        return parent
    return replace(parent, terms=((1, 1, constraints.new_variables(parent.atoms)),))
