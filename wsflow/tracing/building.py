"""From labels of parameters to an architecture: blocks, groups and wires with names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from math import prod
from typing import Any

import numpy as np

from wsflow.activations import FLIP, PHASE, SIGN
from wsflow.architecture import ActivationSite, Architecture, Block, Fixed, Parameter, Shear, Wire
from wsflow.architecture.parameters import fixed_parameter
from wsflow.tracing import neurons as finding
from wsflow.tracing import scalings
from wsflow.tracing.labels import ANY, Array, Label, Leg
from wsflow.tracing.neurons import Family, Neurons
from wsflow.tracing.recording import Piece, Recorder

# exponents of threads: what a coordinate is scaled by
Scale = tuple[tuple[int, int], ...]
Axis = Family | int


@dataclass(frozen=True)
class Segment:
    """Some coordinates of one axis of a parameter: a product of groups and fixed places.

    Parameters
    ----------
    positions : ndarray of int
        In the order of the product.
    axes : tuple of Family or int
    scales : tuple of Scale
    """

    positions: Array
    axes: tuple[Axis, ...]
    scales: tuple[Scale, ...]

    @property
    def contiguous(self) -> bool:
        """Whether a slice says it all."""
        return bool((self.positions == self.positions[0] + np.arange(len(self.positions))).all())


@dataclass(frozen=True)
class Reading:
    """The output of a layer, where activations of neurons can be read.

    Parameters
    ----------
    layer : str
    label : Label
    """

    layer: str
    label: Label


@dataclass
class Builder:
    """Everything that is needed to write down an architecture.

    Parameters
    ----------
    recorder : Recorder
    order : sequence of str
        Names of all tensors of the state dict, in order.
    readings : sequence of Reading
    """

    recorder: Recorder
    order: Sequence[str]
    readings: Sequence[Reading] = ()
    neurons: Neurons = field(init=False)
    threads: list[scalings.Thread] = field(init=False)
    unknowns: scalings.Unknowns = field(init=False)

    def __post_init__(self) -> None:
        ledger = self.recorder.ledger
        for pieces in self.recorder.pieces.values():
            _join(self.recorder, pieces)
        for pieces in self.recorder.pieces.values():
            for piece in pieces:
                for leg in piece.label.legs:
                    ledger.see(leg.atoms)
        self.neurons = finding.find(ledger)
        self.unknowns = scalings.unknowns(ledger, self.neurons)
        turned = [self.unknowns.of_variable[shift.variables.reshape(-1)] for shift in self.recorder.shifts]
        phases = {int(u) for own in turned for u in own if u >= 0}
        moved = {int(self.unknowns.of_variable[v]) for m in self.recorder.moves for v in m.variables.reshape(-1)}
        self.threads = scalings.alone(scalings.threads(ledger, self.unknowns, phases), moved - {-1})
        self._scale_of: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for i, thread in enumerate(self.threads):
            for unknown, exponent in thread.exponents.items():
                self._scale_of[unknown].append((i, exponent))
        self._phases = phases

    def architecture(self, aliases: Mapping[str, tuple[str, ...]], **keywords: Any) -> Architecture:
        """The table of parameters, groups and wires."""
        drafts = {name: self._segments(name) for name in self.order if name in self.recorder.pieces}
        self._name_families(drafts)
        wires = self._wires()
        parameters = []
        for name in self.order:
            shape = self.recorder.parameters[name]
            role = "statistic" if name in self.recorder.statistics or name.endswith("num_batches_tracked") else "weight"
            blocks = tuple(self._block(name, parts, wires) for parts in drafts.get(name, []))
            blocks = blocks or fixed_parameter(name, shape).blocks
            parameters.append(Parameter(name, shape, blocks, role, aliases.get(name, ())))  # type: ignore[arg-type]
        used = {wire for parameter in parameters for block in parameter.blocks for wire, _, _ in block.wires}
        kept = [wire for wire in wires.values() if wire is not None and wire.name in used]
        return Architecture(tuple(parameters), tuple(kept), activation_sites=self._activation_sites(), **keywords)

    # coordinates of one axis

    def _scale(self, variable: int) -> Scale:
        unknown = int(self.unknowns.of_variable[variable]) if variable >= 0 else -1
        return tuple(self._scale_of.get(unknown, ())) if unknown >= 0 else ()

    def _place(self, atom: int) -> finding.Place:
        return self.neurons.places[self.neurons.of_atom[atom]]

    def _segments(self, name: str) -> list[tuple[Segment, ...]]:
        """The blocks of a parameter: one segment for each of its axes."""
        blocks = []
        for piece in self.recorder.pieces[name]:
            shape = self.recorder.parameters[name]
            rows = (piece.stop - piece.start, *shape[1:]) if shape else ()
            if len(piece.label.shape) > len(rows):
                blocks += self._grouped(piece, rows)
                continue
            sides = []
            for dim, size in enumerate(rows):
                legs = [leg for leg in piece.label.legs if leg.dims == (dim,)]
                sides.append(self._divided(size, legs, piece.start if dim == 0 else 0))
            blocks += list(product(*sides))
        return blocks

    def _grouped(self, piece: Piece, rows: tuple[int, ...]) -> list[tuple[Segment, ...]]:
        """The blocks of a grouped kernel: its inputs depend on the group of its outputs."""
        groups, size = piece.label.shape[0], piece.label.shape[1]
        outer, inner, rest = [], [], []
        for leg in piece.label.legs:
            if leg.dims in ((0,), (0, 1)):
                wide = leg.spread((0, 1), (groups, size))
                outer.append(wide.map((0,), lambda values: np.ascontiguousarray(values).reshape(-1)))
            elif leg.dims == (0, 2):
                inner.append(leg)
            else:
                rest.append(leg)
        held = {family for leg in inner for atom in leg.atoms.reshape(-1) for family, _ in self._place(int(atom))}
        together = any(family in held for leg in outer for a in leg.atoms for family, _ in self._place(int(a)))
        labels = None if together or not inner else np.repeat(np.arange(groups), size)
        blocks = []
        for first in self._divided(rows[0], outer, 0, labels):
            group = int(first.positions[0]) // size
            taken = {axis for axis in first.axes if isinstance(axis, Family)}
            row = [replace(leg.at(0, np.array([group])).without(0), dims=(1,)) for leg in inner]
            sides = [[first], self._divided(rows[1], row, 0, known=taken)]
            for dim, length in enumerate(rows[2:], 2):
                legs = [leg for leg in rest if leg.dims == (dim + 1,)]
                sides.append(self._divided(length, legs, 0))
            blocks += list(product(*sides))
        return blocks

    def _divided(
        self,
        size: int,
        legs: Sequence[Leg],
        offset: int,
        labels: Array | None = None,
        known: set[Family] | frozenset[Family] = frozenset(),
    ) -> list[Segment]:
        """Coordinates of an axis by the groups and scales that act on them."""
        places = [self._finest(legs, i) for i in range(size)]
        buckets: dict[Any, list[int]] = defaultdict(list)
        for i, place in enumerate(places):
            families = tuple(family for family, _ in place if family not in known)
            scales = self._scales(legs, i, known)
            buckets[families, scales, None if labels is None else int(labels[i])].append(i)
        segments = []
        for (families, scales, _), members in buckets.items():
            index = [[i for family, i in places[m] if family not in known] for m in members]
            segments.append(_arranged(np.array(members) + offset, families, index, scales))
        return sorted(segments, key=lambda segment: int(segment.positions[0]))

    def _finest(self, legs: Sequence[Leg], i: int) -> finding.Place:
        return max((self._place(int(leg.atoms[i])) for leg in legs), key=len, default=())

    def _scales(self, legs: Sequence[Leg], i: int, known: set[Family] | frozenset[Family]) -> tuple[Scale, ...]:
        result = []
        for leg in legs:
            for _, _, variables in leg.terms:
                if (scale := self._scale(int(variables[i]))) and leg.atoms[i] != ANY:
                    result.append(scale)
        return tuple(result)

    # names

    def _name_families(self, drafts: dict[str, list[tuple[Segment, ...]]]) -> None:
        taken: set[str] = set()
        parents = {
            a.parent for blocks in drafts.values() for b in blocks for s in b for a in s.axes if isinstance(a, Family)
        }
        for name, blocks in drafts.items():
            new = [a for block in blocks for s in block for a in s.axes if isinstance(a, Family) and not a.name]
            new += [parent for family in new if (parent := family.parent) is not None and not parent.name]
            new = list(dict.fromkeys(new))
            leaves = [family for family in new if family not in parents]
            base = name.rpartition(".")[0] or name
            kind = "groups" if len(self.recorder.parameters[name]) > 2 else "heads"
            for family in new:
                suffix = kind if family in parents else str(leaves.index(family)) if len(leaves) > 1 else ""
                family.name = _unique(f"{base}.{suffix}" if suffix else base, taken)

    def _wires(self) -> dict[int, Wire | None]:
        taken: set[str] = set()
        result: dict[int, Wire | None] = {}
        moved = {int(self.unknowns.of_variable[v]) for m in self.recorder.moves for v in m.variables.reshape(-1)}
        for i, thread in enumerate(self.threads):
            family = self.unknowns.families[thread.unknown]
            kinds = set(thread.kinds)
            if thread.unknown in self._phases:
                kinds = {PHASE}
            elif SIGN in kinds and any(thread.exponents.get(u, 0) % 2 for u in moved if u >= 0):
                kinds = kinds - {SIGN} | {FLIP}
            if not family.name:
                result[i] = None
                continue
            result[i] = Wire(_unique(family.name, taken), family.group, frozenset(kinds))
        return result

    def _block(self, name: str, segments: Sequence[Segment], wires: dict[int, Wire | None]) -> Block:
        axes = [axis for segment in segments for axis in segment.axes]
        spaces = tuple(Fixed(axis) if isinstance(axis, int) else axis.group for axis in axes)
        exponents: dict[tuple[str, int], int] = defaultdict(int)
        first = 0
        for segment in segments:
            own = list(range(first, first + len(segment.axes)))
            for scale in segment.scales:
                for thread, exponent in scale:
                    wire = wires[thread]
                    family = self.unknowns.families[self.threads[thread].unknown]
                    # in a grouped kernel, inputs that are alone in their group scale with its outputs' axis
                    axis = next((i for i in (*own, *range(len(axes))) if axes[i] is family), None)
                    if axis is not None and wire is not None:
                        exponents[wire.name, axis] += exponent
            first += len(segment.axes)
        shape = self.recorder.parameters[name]
        whole = all(s.contiguous and len(s.positions) == n for s, n in zip(segments, shape, strict=True))
        slices = tuple(
            (int(s.positions[0]), int(s.positions[0]) + len(s.positions)) if s.contiguous else (0, n)
            for s, n in zip(segments, shape, strict=True)
        )
        index = tuple(None if s.contiguous else tuple(int(p) for p in s.positions) for s in segments)
        entries = tuple((wire, axis, e) for (wire, axis), e in exponents.items() if e)
        return Block(
            spaces,
            slices=None if whole else slices,
            wires=entries,
            index=index if any(i is not None for i in index) else None,
            shifts=self._shifts(name, axes, wires),
            shears=self._shears(name, entries, wires),
        )

    def _shifts(
        self, name: str, axes: Sequence[Axis], wires: dict[int, Wire | None]
    ) -> tuple[tuple[str, int, float], ...]:
        result = []
        for shift in self.recorder.shifts:
            if shift.parameter != name or self.recorder.uses.get(name) != 1:
                continue
            for i, thread in enumerate(self.threads):
                wire = wires[i]
                own = {int(self.unknowns.of_variable[v]) for v in shift.variables.reshape(-1)}
                if wire is None or thread.unknown not in own or PHASE not in wire.scalings:
                    continue
                axis = next((k for k, a in enumerate(axes) if a is self.unknowns.families[thread.unknown]), None)
                if axis is not None:
                    result.append((wire.name, axis, shift.unit))
        return tuple(result)

    def _shears(
        self, name: str, entries: Sequence[tuple[str, int, int]], wires: dict[int, Wire | None]
    ) -> tuple[Shear, ...]:
        flips = {wire.name for wire in wires.values() if wire is not None and FLIP in wire.scalings}
        found = []
        for move in self.recorder.moves:
            if move.weight == name:
                consumed = {
                    wire.name
                    for v in move.variables.reshape(-1)
                    for thread, _ in self._scale(int(v))
                    if (wire := wires[thread]) is not None
                }
                found += [
                    Shear(wire, axis, move.bias, 0, move.amount)
                    for wire, axis, e in entries
                    if wire in flips and wire in consumed and e < 0
                ]
        return tuple(dict.fromkeys(found))

    def _activation_sites(self) -> tuple[ActivationSite, ...]:
        found = []
        for reading in self.readings:
            for leg in reading.label.legs:
                if len(leg.dims) != 1 or (leg.atoms == ANY).any():
                    continue
                segments = self._divided(len(leg.atoms), [Leg((0,), leg.atoms)], 0)
                family = segments[0].axes[-1]
                if len(segments) != 1 or not isinstance(family, Family) or not segments[0].contiguous:
                    continue
                if family.name and family.group.total == len(leg.atoms):
                    found.append(ActivationSite(family.name, reading.layer, leg.dims[0]))
        return tuple(dict.fromkeys(found))


def _join(recorder: Recorder, pieces: list[Piece]) -> None:
    """Rows that overlap with others, or with the whole, are labelled as the whole is."""
    spans = sorted((piece.start, piece.stop) for piece in pieces)
    if all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False)):
        _fill_gaps(recorder, pieces)
        return
    name = next(name for name, own in recorder.pieces.items() if own is pieces)
    shape = recorder.parameters[name]
    whole = next((piece for piece in pieces if piece.stop - piece.start == shape[0]), None)
    whole = whole or Piece(0, shape[0], recorder.label(shape))
    ledger = recorder.ledger
    for piece in pieces:
        if piece is whole:
            continue
        for leg in piece.label.legs:
            own = next(other for other in whole.label.legs if other.dims == leg.dims)
            part = own.at(0, np.arange(piece.start, piece.stop)) if leg.dims == (0,) else own
            ledger.unify(leg.atoms, part.atoms)
            ledger.vanish([*leg.terms, *((-p, -s, v) for p, s, v in part.terms)], leg.atoms)
    pieces[:] = [whole]


def _fill_gaps(recorder: Recorder, pieces: list[Piece]) -> None:
    """Rows that nothing uses have places of their own."""
    name = next(name for name, own in recorder.pieces.items() if own is pieces)
    shape = recorder.parameters[name]
    covered = np.zeros(shape[0] if shape else 1, dtype=bool)
    for piece in pieces:
        covered[piece.start : piece.stop] = True
    for i in np.flatnonzero(~covered):
        pieces.append(Piece(int(i), int(i) + 1, Label((1, *shape[1:]))))


def _arranged(
    positions: Array, families: tuple[Family, ...], index: list[list[int]], scales: tuple[Scale, ...]
) -> Segment:
    """Coordinates as a product of groups and places: in their own order where that is one, else sorted."""
    if not families:
        return Segment(positions, (len(positions),), scales)
    sizes = [family.size for family in families]
    numbers = np.array(index)
    flat = np.ravel_multi_index(tuple(numbers.T), sizes)
    occurrence = np.zeros(len(flat), dtype=np.int64)
    counts: dict[int, int] = defaultdict(int)
    for i, value in enumerate(flat.tolist()):
        occurrence[i] = counts[value]
        counts[value] += 1
    times = len(positions) // prod(sizes)
    columns = [*numbers.T, occurrence]
    axes: list[Axis] = [*families, times]
    orders = (
        list(permutations(range(len(axes))))
        if times > 1
        else [(*p, len(families)) for p in permutations(range(len(families)))]
    )
    sorted_by = [np.lexsort([columns[i] for i in reversed(order)]) for order in orders]
    best = next((k for k, s in enumerate(sorted_by) if (np.diff(positions[s]) == 1).all()), 0)
    chosen = [axes[i] for i in orders[best] if axes[i] != 1 or isinstance(axes[i], Family)]
    return Segment(positions[sorted_by[best]], tuple(chosen), scales)


def _unique(name: str, taken: set[str]) -> str:
    candidate, k = name, 2
    while candidate in taken:
        candidate, k = f"{name}.{k}", k + 1
    taken.add(candidate)
    return candidate
