"""Stacked parameters: units within each member of an ensemble, channels within each head.

An axis of a parameter has neurons of its own. Where an operation treats the slices along another axis one by one, the
neurons of each slice can be permuted and scaled by themselves: both axes are joined to one axis of the operand, with
an atom for each pair, and the constraints say what these have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wsflow.tracing.abstract_tensor import AbstractTensor, Array, NeuronAxis, Term, negated
from wsflow.tracing.constraints import Constraints
from wsflow.tracing.contraction import Operands
from wsflow.tracing.trace import ParameterSlice, Trace


@dataclass(frozen=True)
class _Own:
    """An axis of an operand that is one of a parameter, rearranged: its dimension there, and where its atoms are."""

    axis: NeuronAxis
    part: ParameterSlice
    dim: int
    index: Array
    term: Term

    @classmethod
    def of(cls, t: Trace, axis: NeuronAxis) -> _Own | None:
        """Return an axis as that of a parameter, or None if it is none."""
        found = t.origin(int(axis.atoms.flat[0])) if len(axis.dims) == 1 else None
        if found is None:
            return None
        part, plain = found
        index, (_, _, variables) = axis.atoms - plain.atoms[0], plain.terms[0]
        if index.min() < 0 or index.max() >= len(plain.atoms):
            return None
        terms = [term for term in axis.terms if np.array_equal(term[2], variables[index])]
        return cls(axis, part, plain.dims[0], index, terms[0]) if len(terms) == 1 else None


# the parameter's axes of an operand, by letter
Axes = Mapping[int, _Own]


def joined(t: Trace, operands: Operands, out: Sequence[int]) -> Operands:
    """Return the operands of a contraction with joint axes of parameters, where it is batched over one of them."""
    own = [_own_axes(t, tensor, letters) for tensor, letters in operands]
    result = []
    for i, (tensor, letters) in enumerate(operands):
        others = [(*operands[j], own[j]) for j in range(len(operands)) if j != i]
        sets = _joint_letters(own[i], others, out) if len(own[i]) > 1 else []
        joint = [_joint_axis(t, [own[i][letter] for letter in chosen]) for chosen in sets]
        gone = [own[i][letter].axis for chosen in sets for letter in chosen]
        kept = [axis for axis in tensor.axes if not any(axis is other for other in gone)]
        result.append((replace(tensor, axes=(*kept, *joint)), letters) if joint else (tensor, letters))
    return result


def _own_axes(t: Trace, tensor: AbstractTensor, letters: Sequence[int]) -> Axes:
    found = {letters[axis.dims[0]]: own for axis in tensor.axes if (own := _Own.of(t, axis)) is not None}
    kinds = [(id(own.part), own.term[:2]) for own in found.values()]
    return {letter: own for (letter, own), kind in zip(found.items(), kinds, strict=True) if kind == kinds[0]}


def _joint_letters(
    own: Axes, others: Sequence[tuple[AbstractTensor, Sequence[int], Axes]], out: Sequence[int]
) -> list[list[int]]:
    """Return the largest sets of letters of a parameter whose neurons depend on each other.

    They are those on which another operand has one axis, or could have one; and those of which the parameter alone
    makes neurons of the output, with those that all of them share.
    """
    shared = {letter for tensor, letters, _ in others for d, letter in enumerate(letters) if tensor.shape[d] > 1}
    batch = {letter for letter in own if letter in out and letter in shared}
    summed = any(letter not in out for letter in own)
    made = {letter for letter in own if letter in out and letter not in shared} if summed else set()
    found = [made | batch] if made else []
    for tensor, letters, theirs in others:
        found += [{letters[dim] for dim in axis.dims} & set(own) for axis in tensor.axes]
        found += [{letter} | (batch & set(theirs)) for letter in own if letter in theirs and letter not in out]
    largest = [
        each for i, each in enumerate(found) if not any(each < other for other in found) and each not in found[:i]
    ]
    return [sorted(each, key=lambda letter: own[letter].dim) for each in largest if len(each) > 1]


def _joint_axis(t: Trace, own: Sequence[_Own]) -> NeuronAxis:
    """Return the joint axis of an operand on these dimensions of a parameter, which increase there."""
    whole = t.joint_axis(own[0].part, tuple(each.dim for each in own))
    grid = np.ix_(*(each.index for each in own))
    axis = whole.map(whole.dims, lambda values: values[grid]).renamed({each.dim: each.axis.dims[0] for each in own})
    sizes = axis.atoms.shape
    further = [
        wide
        for each in own
        for term, wide in zip(each.axis.terms, each.axis.expand(axis.dims, sizes).terms, strict=True)
        if term is not each.term
    ]
    p, s, _ = own[0].term
    return replace(axis, terms=((p, s, axis.terms[0][2]), *further))


def link(constraints: Constraints, part: ParameterSlice, shared: bool = False) -> None:
    """Put joint neurons into those of a parameter's own axes, where these are in use by themselves or shared."""
    for joint in part.joint.values():
        own = [axis for axis in part.tensor.axes if axis.dims[0] in joint.dims]
        if not shared and not any(_in_use(constraints, axis) for axis in own):
            continue
        terms = list(joint.terms)
        for axis in own:
            constraints.nest(joint, axis, joint.atoms.shape)
            terms += negated(axis.expand(joint.dims, joint.atoms.shape).terms)
        constraints.require_zero(terms, joint.atoms)


def _in_use(constraints: Constraints, axis: NeuronAxis) -> bool:
    """Whether a constraint tells neurons of an axis apart, moves them along with others or restricts their scales."""
    atoms, variables = ((int(x[0]), int(x[-1])) for x in (axis.atoms, axis.terms[0][2]))
    related = [x for pair in constraints.equal for x in pair] + [x for nest in constraints.nested for x in nest[:2]]
    if any(_within(x, atoms).any() for x in related):
        return True
    for marked, marks in constraints.marks:
        inside = _within(marked, atoms)
        if inside.any() and (len(np.unique(marks[inside])) > 1 or len(np.unique(marked[inside])) < len(axis.atoms)):
            return True
    return any(_within(term[2], variables).any() for _, terms in constraints.zero_sums for term in terms)


def _within(values: Array, bounds: tuple[int, int]) -> Array:
    return (values >= bounds[0]) & (values <= bounds[1])
