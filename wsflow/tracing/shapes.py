"""Rules for operations that move coordinates: views, permutations, slices, concatenations, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from wsflow.tracing.labels import ANY, Array, Label, Ledger, Leg


def reshape(ledger: Ledger, label: Label, shape: Sequence[int]) -> Label:
    """A view of another shape: each product of axes on one side is a product of axes on the other."""
    pieces = _pieces(label.shape, tuple(shape))
    legs = []
    for leg in label.legs:
        touched = [piece for piece in pieces if set(piece[0]) & set(leg.dims)]
        before = tuple(dim for dims, _ in touched for dim in dims)
        after = tuple(dim for _, dims in touched for dim in dims)
        sizes = [shape[dim] for dim in after]
        wide = leg.spread(before, [label.shape[dim] for dim in before])
        legs.append(wide.map(after, partial(_viewed, sizes=sizes)))
    constant = {dim for dims, new in pieces if set(dims) <= label.constant for dim in new}
    constant |= {dim for dim, size in enumerate(shape) if size == 1}
    return ledger.tidy(replace(label, shape=tuple(shape), legs=tuple(legs), constant=frozenset(constant)))


def _viewed(values: Array, sizes: Sequence[int]) -> Array:
    return values.reshape(tuple(sizes))


def _pieces(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The smallest runs of axes with equal products; axes of length one go along with their neighbours."""
    pieces = []
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
        pieces.append((tuple(a), tuple(b)))
    return pieces


def permute(label: Label, dims: Sequence[int]) -> Label:
    """Axes in another order."""
    order = [dim % len(label.shape) for dim in dims]
    place = {dim: i for i, dim in enumerate(order)}
    legs = tuple(leg.on([place[dim] for dim in range(len(order))]) for leg in label.legs)
    constant = frozenset(place[dim] for dim in label.constant)
    shape = tuple(label.shape[dim] for dim in order)
    return replace(label, shape=shape, legs=legs, constant=constant, parameter="")


def transpose(label: Label, a: int, b: int) -> Label:
    """Two axes exchanged."""
    order = list(range(len(label.shape)))
    order[a], order[b] = order[b], order[a]
    return permute(label, order)


def expand(label: Label, shape: Sequence[int]) -> Label:
    """Repeated along axes of length one, and along new ones in front."""
    new = len(shape) - len(label.shape)
    sizes = [label.shape[dim - new] if size == -1 else size for dim, size in enumerate(shape)]
    legs = tuple(leg.on([dim + new for dim in range(len(label.shape))]) for leg in label.legs)
    constant = {dim + new for dim in label.constant}
    constant |= {dim for dim in range(len(sizes)) if dim < new or label.shape[dim - new] == 1}
    return replace(label.plain(), shape=tuple(sizes), legs=legs, constant=frozenset(constant))


def take(ledger: Ledger, label: Label, dim: int, index: Array) -> Label:
    """Some coordinates of an axis: slices, selections, splits."""
    dim %= len(label.shape)
    legs = tuple(leg.at(dim, index) if dim in leg.dims else leg for leg in label.legs)
    shape = (*label.shape[:dim], len(index), *label.shape[dim + 1 :])
    constant = label.constant | ({dim} if len(index) == 1 else set())
    result = replace(label.plain(), shape=shape, legs=legs, constant=frozenset(constant))
    return ledger.tidy(result)


def drop(label: Label, dim: int) -> Label:
    """Without an axis of length one."""
    dim %= len(label.shape)
    place = {d: d - (d > dim) for d in range(len(label.shape)) if d != dim}
    legs = tuple(replace(leg, dims=tuple(place[d] for d in leg.dims)) for leg in label.legs)
    constant = frozenset(place[d] for d in label.constant if d != dim)
    return replace(label, shape=label.shape[:dim] + label.shape[dim + 1 :], legs=legs, constant=constant)


def insert(label: Label, dim: int) -> Label:
    """With a new axis of length one."""
    dim %= len(label.shape) + 1
    place = [d + (d >= dim) for d in range(len(label.shape))]
    legs = tuple(replace(leg, dims=tuple(place[d] for d in leg.dims)) for leg in label.legs)
    constant = frozenset({place[d] for d in label.constant} | {dim})
    return replace(label, shape=(*label.shape[:dim], 1, *label.shape[dim:]), legs=legs, constant=constant)


def cat(ledger: Ledger, labels: Sequence[Label], dim: int) -> Label:
    """Tensors one after the other on an axis."""
    labels = [label for label in labels if label.shape != (0,)]
    dim %= len(labels[0].shape)
    # flips pass where all parts have the same, and on this axis
    shears = {leg.shear if dim in leg.dims else None for label in labels for leg in label.legs}
    if not all(label.legs for label in labels):
        shears.add(None)
    shear = shears.pop() if len(shears) == 1 else None
    if shear is None:
        labels = [ledger.settled(label) for label in labels]
    sizes = [label.shape[dim] for label in labels]
    shape = (*labels[0].shape[:dim], sum(sizes), *labels[0].shape[dim + 1 :])
    along = sorted({leg.dims for label in labels for leg in label.legs if dim in leg.dims}, key=len)
    legs: list[Leg] = []
    if along:
        # parts without neurons on this axis have coordinates with places of their own
        dims = tuple(sorted({d for group in along for d in group}))
        legs.append(replace(_joined(ledger, labels, dims, dim), shear=shear))
    others = sorted({leg.dims for label in labels for leg in label.legs if dim not in leg.dims})
    for dims in others:
        legs.append(_shared(ledger, labels, dims))
    constant = frozenset.intersection(*(label.constant for label in labels)) - {dim}
    return ledger.tidy(Label(shape, tuple(legs), constant))


def _joined(ledger: Ledger, labels: Sequence[Label], dims: tuple[int, ...], dim: int) -> Leg:
    axis = dims.index(dim)
    parts = []
    for label in labels:
        sizes = [label.shape[d] for d in dims]
        own = next((leg for leg in label.legs if dim in leg.dims), None)
        if own is not None:
            parts.append(own.spread(dims, sizes))
        elif label.zero:
            parts.append(Leg(dims, np.full(sizes, ANY)))
        else:
            atoms = ledger.fresh([label.shape[dim]])
            ledger.pin(atoms)
            parts.append(Leg((dim,), atoms).spread(dims, sizes))
    terms = []
    for i, part in enumerate(parts):
        for p, s, variables in part.terms:
            blank = [np.full(other.atoms.shape, ANY) for other in parts]
            blank[i] = variables
            terms.append((p, s, np.concatenate(blank, axis)))
    return Leg(dims, np.concatenate([part.atoms for part in parts], axis), tuple(terms))


def _shared(ledger: Ledger, labels: Sequence[Label], dims: tuple[int, ...]) -> Leg:
    """A leg on other axes: all parts have it in common, or it is fixed."""
    own = [next((leg for leg in label.legs if leg.dims == dims), None) for label in labels]
    first = next(leg for leg in own if leg is not None)
    for leg, label in zip(own, labels, strict=True):
        if leg is None:
            if not label.zero and not set(dims) <= label.constant:
                ledger.pin(first.atoms)
            if not label.zero:
                ledger.still(first)
        elif leg is not first:
            ledger.unify(first.atoms, leg.atoms)
            ledger.vanish([*first.terms, *((-p, s, v) for p, s, v in leg.terms)], first.atoms)
    return first


def pad(ledger: Ledger, label: Label, pads: Sequence[int], value: float = 0.0) -> Label:
    """Constants before and behind the coordinates of the last axes."""
    for i in range(len(pads) // 2):
        dim = len(label.shape) - 1 - i
        before, behind = int(pads[2 * i]), int(pads[2 * i + 1])
        if before or behind:
            label = _padded(ledger, label, dim, before, behind, value)
    return label


def _padded(ledger: Ledger, label: Label, dim: int, before: int, behind: int, value: float) -> Label:
    if before < 0 or behind < 0:
        index = np.arange(max(0, -before), label.shape[dim] + min(0, behind))
        label, before, behind = take(ledger, label, dim, index), max(0, before), max(0, behind)
    legs = []
    for leg in label.legs:
        if value and dim not in leg.dims:
            ledger.still(leg)
        if dim in leg.dims:
            axis = leg.dims.index(dim)
            widths = [(before, behind) if i == axis else (0, 0) for i in range(len(leg.dims))]
            leg = leg.map(leg.dims, partial(np.pad, pad_width=widths, constant_values=ANY))
        legs.append(leg)
    size = label.shape[dim] + before + behind
    shape = (*label.shape[:dim], size, *label.shape[dim + 1 :])
    padded = replace(label.plain(), shape=shape, legs=tuple(legs), constant=label.constant - {dim})
    return solid(ledger, padded) if value else padded


def solid(ledger: Ledger, label: Label) -> Label:
    """Padded coordinates that are zero no more get places of their own."""
    legs = []
    for leg in label.legs:
        empty = leg.atoms == ANY
        if empty.any():
            atoms = leg.atoms.copy()
            new = ledger.fresh([int(empty.sum())])
            ledger.pin(new)
            atoms[empty] = new
            leg = replace(leg, atoms=atoms)
        legs.append(leg)
    return replace(label, legs=tuple(legs))


def stack(ledger: Ledger, labels: Sequence[Label], dim: int) -> Label:
    """Tensors one after the other on a new axis."""
    return cat(ledger, [insert(label, dim) for label in labels], dim % (len(labels[0].shape) + 1))


def indices(size: int, start: Any = None, stop: Any = None, step: Any = 1) -> Array:
    """The coordinates of a slice."""
    return np.arange(size)[slice(start, stop, step)]
