"""Where neurons occur in a row of weights, and what is matched in one step.

A *piece* is a block, cut until each of its axes ranges over one neuron group or over fixed coordinates: direct sums
are cut into their parts, and an axis of nested neurons into one for their parents and one for themselves. A *unit* is a
group that moves in one assignment problem, together with nested groups that are matched inside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod

import numpy as np
import torch
from torch import Tensor

from wsflow.activations import FLIP, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, NeuronGroup, Space
from wsflow.architecture.spaces import groups_of

# a wire, and where on it the group begins
SignedPart = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Piece:
    """Part of a block with one neuron group, or none, on each axis.

    Parameters
    ----------
    columns : LongTensor of shape `extents`
        Where its elements lie in a row of weights.
    groups : tuple of (NeuronGroup or None)
        By axis; a nested group counts within its parent.
    parents : tuple of (int or None)
        By axis: the axis of the parent, for nested groups.
    odd : tuple of frozenset of (str, int)
        By axis: the parts of wires whose sign changes the piece's sign along it.
    block : Block or None
        The block of which it is the whole, with the same axes.
    """

    columns: Tensor
    groups: tuple[NeuronGroup | None, ...]
    parents: tuple[int | None, ...]
    odd: tuple[frozenset[SignedPart], ...]
    block: Block | None = None

    @cached_property
    def start(self) -> int | None:
        """The first column, where the columns follow each other in order."""
        flat = self.columns.reshape(-1)
        first = int(flat[0])
        return first if bool((flat == torch.arange(first, first + len(flat))).all()) else None

    def of(self, rows: Tensor) -> Tensor:
        """The piece of rows of weights, as a view where that is possible.

        Parameters
        ----------
        rows : Tensor of shape (n, d)

        Returns
        -------
        Tensor of shape (n, *extents)
        """
        if self.start is not None:
            return rows[:, self.start : self.start + self.columns.numel()].reshape(len(rows), *self.columns.shape)
        flat = self.columns.reshape(-1).to(rows.device)
        return rows.index_select(1, flat).reshape(len(rows), *self.columns.shape)

    def chain(self, axis: int) -> tuple[int, ...]:
        """An axis after those of its parents, the outermost first.

        Parameters
        ----------
        axis : int

        Returns
        -------
        tuple of int
        """
        parent = self.parents[axis]
        return (axis,) if parent is None else (*self.chain(parent), axis)

    def spread(self, values: Tensor, axis: int) -> Tensor:
        """One value for each neuron of an axis, shaped to be broadcast over the piece.

        Parameters
        ----------
        values : Tensor of shape (n, total)
        axis : int

        Returns
        -------
        Tensor
        """
        chain = self.chain(axis)
        values = values.reshape(len(values), *(self.columns.shape[i] for i in chain))
        order = sorted(range(len(chain)), key=chain.__getitem__)
        shape = [size if i in chain else 1 for i, size in enumerate(self.columns.shape)]
        return values.permute(0, *(1 + i for i in order)).reshape(len(values), *shape)


@dataclass(frozen=True)
class Term:
    """An axis of a piece on which a unit's group lies, with the nested group that is matched inside it.

    Parameters
    ----------
    piece : int
    axis : int
    inner : int or None
        The axis of the nested group.
    order : tuple of int
        The piece's axes: those of the group's parents, the group's, the inner one, the others.
    target : str
        The group whose scores it adds to: the inner one, if there is one.
    odd : frozenset of (str, int)
        The signed parts of wires over the target that change its sign.
    """

    piece: int
    axis: int
    inner: int | None
    order: tuple[int, ...]
    target: str
    odd: frozenset[SignedPart]


@dataclass(frozen=True)
class Unit:
    """A group that moves in one assignment problem for each of its parents, with groups matched inside it.

    Parameters
    ----------
    group : NeuronGroup
    inner : tuple of NeuronGroup
        Groups nested in it, no two of them in one piece; the others keep their order within their parents.
    terms : tuple of Term
    fixed : frozenset of Term
        Those that no other unit moves: their scores are computed once.
    squares : frozenset of int
        Pieces with the group on two axes: there the objective is quadratic, and scores are its derivative.
    """

    group: NeuronGroup
    inner: tuple[NeuronGroup, ...]
    terms: tuple[Term, ...]
    fixed: frozenset[Term]
    squares: frozenset[int]

    @property
    def names(self) -> frozenset[str]:
        """Names of the groups that it matches."""
        return frozenset({self.group.name, *(group.name for group in self.inner)})


@dataclass(frozen=True, eq=False)
class Plan:
    """All pieces and units of an architecture.

    Parameters
    ----------
    architecture : Architecture
    pieces : tuple of Piece
    units : tuple of Unit
        In the order of the architecture's groups.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.places import Plan
    >>> plan = Plan.of(Architecture.mlp([4, 3, 5, 2]))
    >>> [unit.group.name for unit in plan.units], len(plan.pieces)
    (['hidden1', 'hidden2'], 5)
    """

    architecture: Architecture
    pieces: tuple[Piece, ...]
    units: tuple[Unit, ...]

    @classmethod
    def of(cls, architecture: Architecture) -> Plan:
        """The plan of an architecture; statistics are no part of it, they are moved along.

        Parameters
        ----------
        architecture : Architecture

        Returns
        -------
        Plan
        """
        pieces = tuple(_pieces(architecture))
        drafts = [draft for draft in _drafts(architecture.groups, pieces) if draft[2]]
        return cls(architecture, pieces, tuple(_unit(draft, drafts) for draft in drafts))

    @cached_property
    def scalable(self) -> bool:
        """Whether scaled weights can be compared without scaling them first: nothing is cut, and nothing adds up."""
        blocks = [piece.block for piece in self.pieces]
        return all(block is not None and not (block.shifts or block.shears) for block in blocks)

    @cached_property
    def touched(self) -> tuple[tuple[int, ...], ...]:
        """For each unit, the pieces that it moves."""
        return tuple(tuple(sorted({term.piece for term in unit.terms})) for unit in self.units)

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """For each unit, the units whose scores change when it moves."""
        return tuple(
            tuple(
                j
                for j, other in enumerate(self.units)
                if (set(mine) & set(self.touched[j]) if j != i else other.squares)
            )
            for i, mine in enumerate(self.touched)
        )

    @cached_property
    def start(self) -> tuple[tuple[int, frozenset[Term]], ...]:
        """Units with those of their terms that look at nothing but groups reached before.

        The unit that sees the most weights of each neuron comes first; one that would see none is left out.
        """
        reached: set[str] = set()
        left = dict(enumerate(self.units))
        order = []
        while left:
            seen = {i: self._seen(unit, reached) for i, unit in left.items()}
            weights = {i: self._weights(left[i], terms) for i, terms in seen.items()}
            best = max(weights, key=lambda i: (weights[i], -i))
            if not weights[best]:
                break
            reached |= left.pop(best).names
            order.append((best, seen[best]))
        return tuple(order)

    def _seen(self, unit: Unit, reached: set[str]) -> frozenset[Term]:
        known = reached | unit.names
        return frozenset(
            term
            for term in unit.terms
            if term.piece not in unit.squares
            and all(group is None or group.name in known for group in self.pieces[term.piece].groups)
        )

    def _weights(self, unit: Unit, terms: Iterable[Term]) -> float:
        return sum(self.pieces[term.piece].columns.numel() for term in terms) / unit.group.total


def _pieces(architecture: Architecture) -> Iterator[Piece]:
    signed = {wire.name for wire in architecture.wires if wire.scalings & {SIGN, FLIP}}
    for parameter, block, columns in architecture.blocks:
        if parameter.role == "statistic":
            continue
        for parts in product(*(_parts(space) for space in block.axes)):
            groups = tuple(part if isinstance(part, NeuronGroup) else None for part, _ in parts)
            if any(groups):
                here = tuple(
                    slice(offset, offset + size) for (_, offset), size in zip(parts, _sizes(block, parts), strict=True)
                )
                odd = tuple(_odd(block, axis, offset, signed) for axis, (_, offset) in enumerate(parts))
                parents = tuple(block.parent_axis(axis) for axis in range(len(parts)))
                piece = _split(columns[here], groups, parents, odd)
                yield replace(piece, block=block) if piece.columns.shape == columns.shape else piece


def _parts(space: Space) -> list[tuple[Space, int]]:
    if not isinstance(space, DirectSum):
        return [(space, 0)]
    offsets = np.cumsum([0, *(part.total for part in space.parts)])
    return [(part, int(offset)) for part, offset in zip(space.parts, offsets, strict=False)]


def _sizes(block: Block, parts: Sequence[tuple[Space, int]]) -> list[int]:
    return [
        part.total if isinstance(space, DirectSum) else block.extent(axis)
        for axis, (space, (part, _)) in enumerate(zip(block.axes, parts, strict=True))
    ]


def _odd(block: Block, axis: int, offset: int, signed: set[str]) -> frozenset[SignedPart]:
    powers = {name: sum(e for n, on, e in block.wires if (n, on) == (name, axis)) for name, _, _ in block.wires}
    return frozenset((name, offset) for name, power in powers.items() if name in signed and power % 2)


def _split(
    columns: np.ndarray,
    groups: Sequence[NeuronGroup | None],
    parents: Sequence[int | None],
    odd: Sequence[frozenset[SignedPart]],
) -> Piece:
    """A piece whose nested groups have their parents on axes of their own."""
    axes: list[tuple[int, NeuronGroup | None, int | None, frozenset[SignedPart]]] = []
    last: dict[int, int] = {}
    joined: dict[int, int] = {}
    for axis, group in enumerate(groups):
        chain = groups_of(group) if group is not None and parents[axis] is None else (group,)
        for depth, member in enumerate(chain):
            if depth == 0 and parents[axis] is not None:
                joined[len(axes)] = parents[axis]  # type: ignore[assignment]
            own = odd[axis] if depth == len(chain) - 1 else frozenset()
            size = columns.shape[axis] if member is None else member.size
            axes.append((size, member, len(axes) - 1 if depth else None, own))
        last[axis] = len(axes) - 1
    above = tuple(last[joined[i]] if i in joined else parent for i, (_, _, parent, _) in enumerate(axes))
    view = torch.from_numpy(np.ascontiguousarray(columns)).reshape([size for size, *_ in axes])
    return Piece(view, tuple(group for _, group, _, _ in axes), above, tuple(own for *_, own in axes))


Draft = tuple[NeuronGroup, tuple[NeuronGroup, ...], tuple[Term, ...]]


def _drafts(groups: Sequence[NeuronGroup], pieces: Sequence[Piece]) -> Iterator[Draft]:
    """Units before it is known which of their terms nobody else moves."""
    for group in groups:
        children = [child for child in groups if child.parent == group]
        for inner in _apart(children, pieces):
            yield group, inner, tuple(_terms(group, inner, pieces))
        alone = tuple(_terms(group, (), pieces))
        # a nested group is matched, and gets its signs, in its parent's unit; signs of parents need a step of their own
        if group.parent is None and (not children or any(term.odd for term in alone)):
            yield group, (), alone


def _apart(children: Sequence[NeuronGroup], pieces: Sequence[Piece]) -> list[tuple[NeuronGroup, ...]]:
    """The children in classes, no two of a class in one piece."""
    classes: list[list[NeuronGroup]] = []
    for child in children:
        together = {group for piece in pieces if child in piece.groups for group in piece.groups}
        free = next((members for members in classes if not together.intersection(members)), None)
        if free is None:
            classes.append([child])
        else:
            free.append(child)
    return [tuple(members) for members in classes]


def _terms(group: NeuronGroup, inner: Sequence[NeuronGroup], pieces: Sequence[Piece]) -> Iterator[Term]:
    for number, piece in enumerate(pieces):
        for axis in (i for i, other in enumerate(piece.groups) if other == group):
            inside = [i for i, other in enumerate(piece.groups) if other in inner and piece.parents[i] == axis]
            for within in inside or (None,):
                first = (*piece.chain(axis), *(() if within is None else (within,)))
                order = (*first, *(i for i in range(len(piece.groups)) if i not in first))
                target = first[-1]
                odd = frozenset() if inner and within is None else piece.odd[target]
                yield Term(number, axis, within, order, piece.groups[target].name, odd)


def _unit(draft: Draft, drafts: Sequence[Draft]) -> Unit:
    group, inner, terms = draft
    others = {term.piece for other in drafts if other is not draft for term in other[2]}
    numbers = [term.piece for term in terms]
    squares = frozenset(number for number in numbers if numbers.count(number) > 1)
    # where the objective is quadratic, every piece is at hand to see what a move is worth
    fixed = frozenset(() if squares else (term for term in terms if term.piece not in others))
    return Unit(group, inner, terms, fixed, squares)


def rows_of(term: Term, piece: Piece, values: Tensor) -> Tensor:
    """A piece as one matrix for each parent: a row for each neuron of a term's target.

    Parameters
    ----------
    term : Term
    piece : Piece
    values : Tensor of shape (n, *extents)

    Returns
    -------
    Tensor of shape (n, parents, neurons, rest)
    """
    sizes = piece.columns.shape
    outer = prod(sizes[i] for i in piece.chain(term.axis)[:-1])
    neurons = sizes[term.axis] * (1 if term.inner is None else sizes[term.inner])
    rest = piece.columns.numel() // (outer * neurons)
    return values.permute(0, *(1 + i for i in term.order)).reshape(len(values), outer, neurons, rest)
