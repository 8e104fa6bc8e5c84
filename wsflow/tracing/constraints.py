"""The constraints that the operations of a network put on its symmetries.

They are: atoms that are one neuron, neurons that lie within neurons, neurons that are told apart by where they occur,
and sums of variables that vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from wsflow.tracing.abstract_tensor import ABSENT, AbstractTensor, Array, Labels, NeuronAxis, Term, merged, unsheared


@dataclass
class Constraints:
    """All constraints so far, on `n_atoms` atoms; `owners` has the atoms of the variables that were made together."""

    n_atoms: int = 0
    owners: list[Array] = field(default_factory=list)
    equal: list[tuple[Array, Array]] = field(default_factory=list)
    # children, their parents, and the positions of these in the parents' axis
    nested: list[tuple[Array, Array, Array]] = field(default_factory=list)
    # atoms that occur together, with marks that tell them apart
    marks: list[tuple[Array, Array]] = field(default_factory=list)
    # whether for positive scales and for signs, and the sum
    zero_sums: list[tuple[tuple[int, int], tuple[Term, ...]]] = field(default_factory=list)

    def new_atoms(self, shape: Sequence[int]) -> Array:
        """Return new atoms of this shape."""
        size = prod(shape)
        self.n_atoms += size
        return np.arange(self.n_atoms - size, self.n_atoms).reshape(tuple(shape))

    def new_variables(self, atoms: Array) -> Array:
        """Return new variables, one for each of these atoms."""
        first = sum(owner.size for owner in self.owners)
        self.owners.append(atoms)
        return np.arange(first, first + atoms.size).reshape(atoms.shape)

    def unify(self, a: Array, b: Array) -> None:
        """Make these atoms the same neurons."""
        keep = (a != ABSENT) & (b != ABSENT)
        self.equal.append((a[keep], b[keep]))

    def nest(self, children: NeuronAxis, parents: NeuronAxis, sizes: Sequence[int]) -> None:
        """Put neurons into parents, whose axis covers some of the children's dimensions, of these sizes."""
        positions = NeuronAxis(parents.dims, np.arange(parents.atoms.size).reshape(parents.atoms.shape))
        above, where = (axis.expand(children.dims, sizes).atoms for axis in (parents, positions))
        keep = (children.atoms != ABSENT) & (above != ABSENT)
        self.nested.append((children.atoms[keep], above[keep], where[keep]))

    def mark(self, atoms: Array, marks: Array | None = None) -> None:
        """Tell neurons apart by their marks, or from those that do not occur here."""
        keep = atoms != ABSENT
        marks = np.zeros(atoms.shape, dtype=np.int64) if marks is None else np.broadcast_to(marks, atoms.shape)
        self.marks.append((atoms[keep], marks[keep]))

    def fix(self, atoms: Array) -> None:
        """Keep each of these neurons where it is."""
        self.mark(atoms, np.arange(1, atoms.size + 1).reshape(atoms.shape))

    def require_zero(self, terms: Sequence[Term], atoms: Array, positive: bool = True, sign: bool = True) -> None:
        """Demand that these sums of variables vanish, for positive scales, for signs or for both."""
        keep = atoms != ABSENT
        kept = tuple((p, s, variables[keep]) for p, s, variables in terms)
        if kept:
            self.zero_sums.append(((int(positive), int(sign)), kept))

    def forbid_scaling(self, tensor: AbstractTensor, positive: bool = True, sign: bool = True) -> None:
        """Demand that a tensor is not scaled: neither by positive numbers nor by signs, or by one of them."""
        for axis in tensor.axes:
            self.require_zero(axis.terms, axis.atoms, positive, sign)

    def without_flips(self, tensor: AbstractTensor) -> AbstractTensor:
        """Return the tensor in front of an operation that cannot take care of flips, which are forbidden."""
        for axis in tensor.axes:
            if axis.shear is not None:
                self.require_zero(axis.terms, axis.atoms, positive=False)
        return unsheared(tensor)

    def freeze(self, tensor: AbstractTensor) -> None:
        """Let no symmetry act on a tensor."""
        for axis in tensor.axes:
            self.fix(axis.atoms)
        self.forbid_scaling(tensor)

    def fix_on(self, tensor: AbstractTensor, dims: Sequence[int]) -> AbstractTensor:
        """Return a tensor without the neuron axes that cover any of these dimensions, on which no symmetry acts."""
        chosen = tensor.axes_on(dims)
        self.freeze(replace(tensor, axes=tuple(chosen)))
        labels = [Labels(axis.dims, axis.atoms - ABSENT) for axis in chosen]
        kept = tuple(axis for axis in tensor.axes if not any(axis is other for other in chosen))
        return replace(tensor, axes=kept, labels=merged([*tensor.labels, *labels]))

    def squeeze(self, tensor: AbstractTensor) -> AbstractTensor:
        """Return the tensor with neuron axes and labels only on dimensions along which they differ."""
        axes = tuple(kept for axis in tensor.axes if (kept := self._squeezed(axis, tensor.shape)) is not None)
        return replace(tensor, axes=axes, labels=merged(tensor.labels))

    def _squeezed(self, axis: NeuronAxis, shape: tuple[int, ...]) -> NeuronAxis | None:
        for position, dim in reversed(list(enumerate(axis.dims))):
            arrays = [axis.atoms, *(variables for _, _, variables in axis.terms)]
            if shape[dim] == 1 or all((a == a.take([0], position)).all() for a in arrays):
                axis = axis.drop(dim)
        if axis.dims:
            return axis
        # a single neuron that is left has no other to change places with
        self.freeze(AbstractTensor((), (axis,)))
        return None

    def fill_padding(self, tensor: AbstractTensor) -> AbstractTensor:
        """Return the tensor with a fixed atom for each padded coordinate, which is no longer zero."""
        axes = []
        for axis in tensor.axes:
            empty = axis.atoms == ABSENT
            if empty.any():
                atoms = axis.atoms.copy()
                atoms[empty] = self.new_atoms([int(empty.sum())])
                self.fix(atoms[empty])
                axis = replace(axis, atoms=atoms)
            axes.append(axis)
        return replace(tensor, axes=tuple(axes))
