"""Labels: what a symmetry does to each coordinate of a tensor, while a network is traced.

Every coordinate of every axis of a parameter gets an *atom* and a *variable*: the neuron that it belongs to, and the
logarithm of its scale. A tensor's label says which atom, and which sum of variables, each of its coordinates has. A
*leg* covers several axes where neurons lie in neurons (channels in heads). Axes without a leg are fixed: examples,
tokens, pixels. What operations demand is written into a `Ledger`: atoms that are one neuron, neurons within neurons,
neurons that have a place of their own, and sums of variables that vanish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

import numpy as np

# the atom of a padded zero, which every permutation and scaling keeps; and the absence of a variable
ANY = -1
Array = np.ndarray
# the exponent of a variable for positive scalings and for signs, and the variables themselves
Term = tuple[int, int, Array]


@dataclass(frozen=True)
class Leg:
    """Axes of a tensor that range over neurons.

    Parameters
    ----------
    dims : tuple of int
        Increasing.
    atoms : ndarray of int
        Of the sizes of these axes.
    terms : tuple of Term
        What the logarithm of the scale is the sum of.
    shear : float, optional
        A flip takes these values a to shear - a, and not to -a.
    """

    dims: tuple[int, ...]
    atoms: Array
    terms: tuple[Term, ...] = ()
    shear: float | None = None

    def map(self, dims: tuple[int, ...], change: Callable[[Array], Array]) -> Leg:
        """The same rearrangement of atoms and variables."""
        terms = tuple((p, s, change(variables)) for p, s, variables in self.terms)
        return replace(self, dims=dims, atoms=change(self.atoms), terms=terms)

    def on(self, letters: Sequence[int]) -> Leg:
        """With its axes renamed, in increasing order again."""
        named = [letters[dim] for dim in self.dims]
        order = tuple(int(i) for i in np.argsort(named))
        return self.map(tuple(sorted(named)), lambda values: values.transpose(order))

    def at(self, dim: int, index: Array) -> Leg:
        """Some coordinates of one of its axes."""
        return self.map(self.dims, partial(np.take, indices=index, axis=self.dims.index(dim)))

    def without(self, dim: int) -> Leg:
        """At the first place of one of its axes, which goes."""
        axis = self.dims.index(dim)
        return self.map(self.dims[:axis] + self.dims[axis + 1 :], partial(np.take, indices=0, axis=axis))

    def spread(self, dims: tuple[int, ...], sizes: Sequence[int]) -> Leg:
        """Repeated along more axes."""
        shape = [size if dim in self.dims else 1 for dim, size in zip(dims, sizes, strict=True)]
        return self.map(dims, lambda values: np.broadcast_to(values.reshape(shape), tuple(sizes)))


@dataclass(frozen=True)
class Bias:
    """A bias that was added to a tensor last: its name, and what the sum was multiplied with since."""

    parameter: str
    factor: float = 1.0


@dataclass(frozen=True)
class Label:
    """What symmetries do to a tensor.

    Parameters
    ----------
    shape : tuple of int
    legs : tuple of Leg
    constant : frozenset of int
        Axes along which the tensor is constant.
    parameter : str
        The name, where the tensor is a parameter itself.
    bias : Bias, optional
    zero : bool
        Whether all elements are zero.
    """

    shape: tuple[int, ...]
    legs: tuple[Leg, ...] = ()
    constant: frozenset[int] = frozenset()
    parameter: str = ""
    bias: Bias | None = None
    zero: bool = False

    def touching(self, dims: Iterable[int]) -> list[Leg]:
        """The legs that have an axis among some."""
        chosen = set(dims)
        return [leg for leg in self.legs if chosen & set(leg.dims)]

    def plain(self) -> Label:
        """Without what is known of one operation only."""
        return replace(self, parameter="", bias=None, zero=False)


def unsheared(label: Label) -> Label:
    """Where flips have been taken care of."""
    return replace(label, legs=tuple(replace(leg, shear=None) for leg in label.legs))


@dataclass
class Ledger:
    """Everything that the operations of a network demand."""

    n_atoms: int = 0
    owners: list[Array] = field(default_factory=list)
    equal: list[tuple[Array, Array]] = field(default_factory=list)
    nested: list[tuple[Array, Array, Array]] = field(default_factory=list)
    seen: list[tuple[Array, Array]] = field(default_factory=list)
    vanishing: list[tuple[tuple[int, int], tuple[Term, ...]]] = field(default_factory=list)

    def fresh(self, shape: Sequence[int]) -> Array:
        """New atoms."""
        size = prod(shape)
        self.n_atoms += size
        return np.arange(self.n_atoms - size, self.n_atoms).reshape(tuple(shape))

    def variables(self, atoms: Array) -> Array:
        """New variables, one for each of these atoms."""
        first = sum(owner.size for owner in self.owners)
        self.owners.append(atoms.reshape(-1))
        return np.arange(first, first + atoms.size).reshape(atoms.shape)

    def unify(self, a: Array, b: Array) -> None:
        """These are the same neurons."""
        keep = (a != ANY) & (b != ANY)
        self.equal.append((a[keep], b[keep]))

    def nest(self, children: Leg, parents: Leg, sizes: Sequence[int]) -> None:
        """The neurons of one leg lie in those of another, which covers some of its axes, of these sizes."""
        places = Leg(parents.dims, np.arange(parents.atoms.size).reshape(parents.atoms.shape))
        above, where = (leg.spread(children.dims, sizes).atoms for leg in (parents, places))
        keep = (children.atoms != ANY) & (above != ANY)
        self.nested.append((children.atoms[keep], above[keep], where[keep]))

    def see(self, atoms: Array, tokens: Array | None = None) -> None:
        """These neurons occur together, and each at its place, where tokens say so."""
        keep = atoms != ANY
        marks = np.zeros(atoms.shape, dtype=np.int64) if tokens is None else np.broadcast_to(tokens, atoms.shape)
        self.seen.append((atoms[keep], marks[keep]))

    def pin(self, atoms: Array) -> None:
        """Each of these neurons keeps its place."""
        self.see(atoms, np.arange(1, atoms.size + 1).reshape(atoms.shape))

    def vanish(self, terms: Sequence[Term], atoms: Array, positive: bool = True, sign: bool = True) -> None:
        """These sums of variables are zero: no scaling there, or no signs."""
        keep = atoms != ANY
        kept = tuple((p, s, variables[keep]) for p, s, variables in terms)
        if kept:
            self.vanishing.append(((int(positive), int(sign)), kept))

    def still(self, leg: Leg, positive: bool = True, sign: bool = True) -> None:
        """A leg has no scaling, or no signs."""
        self.vanish(leg.terms, leg.atoms, positive, sign)

    def settled(self, label: Label) -> Label:
        """Where flips leave something behind that nothing takes up, there are none."""
        for leg in label.legs:
            if leg.shear is not None:
                self.still(leg, positive=False)
        return unsheared(label)

    def freeze(self, label: Label) -> None:
        """No symmetry acts on a tensor."""
        for leg in label.legs:
            self.pin(leg.atoms)
            self.still(leg)

    def tidy(self, label: Label) -> Label:
        """Without axes of legs that have one place, or along which a leg repeats itself."""
        legs = tuple(kept for leg in label.legs if (kept := self._tidied(leg, label.shape)) is not None)
        return replace(label, legs=legs)

    def _tidied(self, leg: Leg, shape: tuple[int, ...]) -> Leg | None:
        for axis, dim in reversed(list(enumerate(leg.dims))):
            arrays = [leg.atoms, *(variables for _, _, variables in leg.terms)]
            if shape[dim] == 1 or all((a == a.take([0], axis)).all() for a in arrays):
                leg = leg.without(dim)
        if leg.dims:
            return leg
        # a single neuron is left, which is none of many any more
        self.pin(leg.atoms)
        self.still(leg)
        return None


def merge(ledger: Ledger, operands: Sequence[tuple[Label, Sequence[int]]], signs: Sequence[int] | None) -> list[Leg]:
    """The legs of a product or sum of tensors, on letters that name their axes.

    Parameters
    ----------
    ledger : Ledger
    operands : sequence of (Label, letters)
        One letter for each axis of the tensor.
    signs : sequence of int or None
        For a product, 1 or -1 for each factor: logarithms of scales add. None for a sum, whose summands scale alike.

    Returns
    -------
    list of Leg
        None within another.
    """
    sizes = _sizes(operands)
    legs = [[leg.on(letters) for leg in label.legs] for label, letters in operands]
    found: dict[tuple[int, ...], Array] = {}
    for leg in (leg for own in legs for leg in own):
        if leg.dims in found:
            ledger.unify(found[leg.dims], leg.atoms)
            found[leg.dims] = np.where(found[leg.dims] == ANY, leg.atoms, found[leg.dims])
        else:
            found[leg.dims] = leg.atoms
    _give_places(ledger, operands, legs, found, sizes)
    _relate(ledger, found, sizes)
    largest = [dims for dims in found if not any(set(dims) < set(other) for other in found)]
    merged = []
    for dims in largest:
        shape = [sizes[dim] for dim in dims]
        parts = [_terms_on(own, dims, shape, largest) for own in legs]
        covered = [any(set(leg.dims) <= set(dims) for leg in own) for own in legs]
        if signs is not None:
            terms = tuple((p * s, q, v) for s, part in zip(signs, parts, strict=True) for p, q, v in part)
        else:
            atoms = [_atoms_on(own, dims, shape) for own in legs]
            zeros = [label.zero for label, _ in operands]
            terms = _agree(ledger, parts, atoms, covered, zeros)
        merged.append(Leg(dims, found[dims], terms))
    return merged


def _sizes(operands: Sequence[tuple[Label, Sequence[int]]]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for label, letters in operands:
        for letter, size in zip(letters, label.shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    return sizes


def _give_places(
    ledger: Ledger,
    operands: Sequence[tuple[Label, Sequence[int]]],
    legs: Sequence[Sequence[Leg]],
    found: dict[tuple[int, ...], Array],
    sizes: dict[int, int],
) -> None:
    """Where one tensor has neurons and another has fixed places, each neuron has its place."""
    places: set[int] = set()
    for (label, letters), own in zip(operands, legs, strict=True):
        covered = {dim for leg in own for dim in leg.dims}
        for dim, letter in enumerate(letters):
            if label.shape[dim] > 1 and letter not in covered and dim not in label.constant:
                places.add(letter)
    for dims, atoms in found.items():
        shape = [sizes[dim] if dim in places else 1 for dim in dims]
        if prod(shape) > 1:
            tokens = np.broadcast_to(np.arange(1, prod(shape) + 1).reshape(shape), atoms.shape)
            ledger.see(atoms, tokens)


def _relate(ledger: Ledger, found: dict[tuple[int, ...], Array], sizes: dict[int, int]) -> None:
    """Legs that share axes: one lies in the other, or both lie in what they share."""
    for a in list(found):
        for b in list(found):
            shared = tuple(dim for dim in a if dim in b)
            if not shared or a == b or shared == b:
                continue
            if shared != a and shared not in found:
                found[shared] = ledger.fresh([sizes[dim] for dim in shared])
            ledger.nest(Leg(b, found[b]), Leg(shared, found[shared]), [sizes[dim] for dim in b])


def _owner(leg: Leg, largest: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return next(dims for dims in largest if set(leg.dims) <= set(dims))


def _terms_on(
    legs: Sequence[Leg], dims: tuple[int, ...], shape: Sequence[int], largest: Sequence[tuple[int, ...]]
) -> tuple[Term, ...]:
    return tuple(term for leg in legs if _owner(leg, largest) == dims for term in leg.spread(dims, shape).terms)


def _atoms_on(legs: Sequence[Leg], dims: tuple[int, ...], shape: Sequence[int]) -> Array:
    own = [leg.spread(dims, shape).atoms for leg in legs if set(leg.dims) <= set(dims)]
    # a tensor without neurons here is not zero anywhere
    return own[0] if own else np.zeros(shape, dtype=np.int64)


def _agree(
    ledger: Ledger,
    parts: Sequence[tuple[Term, ...]],
    atoms: Sequence[Array],
    covered: Sequence[bool],
    zeros: Sequence[bool],
) -> tuple[Term, ...]:
    """The summands of a sum scale alike, but for padded zeros: the scale of the first that is none."""
    first = covered.index(True)
    terms, mask = list(parts[first]), atoms[first] != ANY
    for i, part in enumerate(parts):
        if i == first or zeros[i]:
            continue
        difference = [*terms, *((-p, s, v) for p, s, v in part)]
        both = mask & (atoms[i] != ANY)
        ledger.vanish(difference, np.where(both, 0, ANY))
        new = ~mask & (atoms[i] != ANY)
        if new.any():
            terms = [(p, s, np.where(new, ANY, v)) for p, s, v in terms]
            terms += [(p, s, np.where(new, v, ANY)) for p, s, v in part]
            mask = mask | new
    return tuple(terms)


def project(ledger: Ledger, legs: Sequence[Leg], out: Sequence[int], sizes: dict[int, int]) -> list[Leg]:
    """What is left of legs after a sum over the letters that are not in `out`.

    Neurons that are summed over have no scale of their own; neurons within others leave those behind.
    """
    kept: dict[tuple[int, ...], Leg] = {leg.dims: leg for leg in legs if set(leg.dims) <= set(out)}
    for leg in legs:
        rest = tuple(dim for dim in leg.dims if dim in out)
        if rest == leg.dims:
            continue
        ledger.still(leg)
        if rest:
            shape = [sizes[dim] for dim in rest]
            holder = next((other for other in kept.values() if set(rest) <= set(other.dims)), None)
            if rest not in kept:
                parent = Leg(rest, ledger.fresh(shape))
                if holder is None:
                    kept[rest] = parent
                else:
                    ledger.nest(holder, parent, [sizes[dim] for dim in holder.dims])
            else:
                parent = kept[rest]
            ledger.nest(leg, parent, [sizes[dim] for dim in leg.dims])
    return list(kept.values())


def contract(
    ledger: Ledger,
    operands: Sequence[tuple[Label, Sequence[int]]],
    out: Sequence[int],
    signs: Sequence[int] | None,
) -> Label:
    """A sum over letters of a product (or of a sum) of tensors: linear maps, convolutions, attention, means.

    Parameters
    ----------
    ledger : Ledger
    operands : sequence of (Label, letters)
    out : sequence of int
        The letters of the result's axes.
    signs
        As in `merge`.

    Returns
    -------
    Label
    """
    sizes = _sizes(operands)
    legs = project(ledger, merge(ledger, operands, signs), out, sizes)
    letters = {letter: dim for dim, letter in enumerate(out)}
    named = tuple(leg.on({d: letters[d] for d in leg.dims}) for leg in legs)  # type: ignore[arg-type]
    varying = {
        letter
        for label, own in operands
        for dim, letter in enumerate(own)
        if label.shape[dim] > 1 and dim not in label.constant
    }
    constant = frozenset(letters[letter] for letter in out if letter not in varying)
    return Label(tuple(sizes[letter] for letter in out), named, constant)
