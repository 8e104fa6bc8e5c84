"""From what a ledger says of atoms to neuron groups: which neurons can change places, and within what.

Atoms that are one neuron are united. Neurons are told apart by where they occur (colours, refined until nothing
changes, as in the Weisfeiler-Leman test), and those of one colour within one parent form a group. Two parents that
divide neurons alike are one; if one divides them finer, it lies in the other; if they cross, neurons have two
coordinates, as channels in heads whose norm all heads share.

References
----------
Weisfeiler and Leman 1968, for the refinement of colours.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from wsflow.architecture import NeuronGroup
from wsflow.tracing.labels import Array, Ledger

# where a neuron lies: groups with its index there, parents first
Place = tuple[tuple["Family", int], ...]


@dataclass(eq=False)
class Family:
    """A neuron group that has no name yet."""

    size: int
    parent: Family | None = None
    name: str = ""

    @property
    def depth(self) -> int:
        """How many groups it lies in."""
        return 1 + self.parent.depth if self.parent else 0

    @property
    def group(self) -> NeuronGroup:
        """The group, once it is named."""
        return NeuronGroup(self.name, self.size, self.parent.group if self.parent else None)


@dataclass(frozen=True)
class Neurons:
    """The neurons of a network.

    Parameters
    ----------
    of_atom : ndarray of int
        The neuron to which each atom belongs.
    colours : ndarray of int
        Of each neuron.
    places : list of Place
        Of each neuron; empty for those that stay where they are.
    own : ndarray of bool
        Whether a neuron is a member of its last group, and does not only move along with one.
    """

    of_atom: Array
    colours: Array
    places: list[Place]
    own: Array


def find(ledger: Ledger) -> Neurons:
    """The neurons of a network, and the groups in which they can change places."""
    of_atom, pairs = _related(ledger)
    count = int(of_atom.max()) + 1 if len(of_atom) else 0
    colours = _refined(ledger, of_atom, pairs, count)
    places, own = _places(pairs, colours, count, _first(of_atom, count))
    return Neurons(of_atom, colours, places, own)


def _related(ledger: Ledger) -> tuple[Array, Array]:
    """Neurons of atoms, and all pairs of a neuron and a parent."""
    equal = list(ledger.equal)
    nested = [(children, parents) for children, parents, _ in ledger.nested]
    while True:
        of_atom = _components(ledger.n_atoms, equal)
        events = _functions(of_atom, nested, equal)
        if events is None:
            continue
        if not _reconciled(of_atom, events, equal, nested):
            break
    pairs = [np.stack([event[0], event[1]], 1) for event in events]
    every = np.unique(np.concatenate([*pairs, np.empty((0, 2), dtype=np.int64)]), axis=0)
    return of_atom, every


def _components(n: int, equal: list[tuple[Array, Array]]) -> Array:
    a, b = (np.concatenate([np.empty(0, dtype=np.int64), *(pair[i] for pair in equal)]) for i in (0, 1))
    graph = coo_matrix((np.ones(len(a), dtype=bool), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _functions(
    of_atom: Array, nested: list[tuple[Array, Array]], equal: list[tuple[Array, Array]]
) -> list[tuple[Array, Array]] | None:
    """Each relation as a function from neurons to parents; None where that made neurons equal."""
    events, keys, changed = [], set(), False
    first_atom = _first(of_atom, int(of_atom.max()) + 1)
    for children, parents in nested:
        pairs = np.unique(np.stack([of_atom[children], of_atom[parents]], 1), axis=0)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if not len(pairs) or pairs.tobytes() in keys:
            continue
        keys.add(pairs.tobytes())
        same = pairs[1:, 0] == pairs[:-1, 0]
        # a neuron in two parents of one kind: they are one; a parent with one neuron is that neuron
        alone = len(np.unique(pairs[:, 1])) == len(pairs)
        if same.any() or alone:
            changed = True
            left, right = (pairs[:-1, 1][same], pairs[1:, 1][same]) if same.any() else (pairs[:, 0], pairs[:, 1])
            equal.append((first_atom[left], first_atom[right]))
        events.append((pairs[:, 0], pairs[:, 1]))
    return None if changed else events


def _reconciled(
    of_atom: Array,
    events: list[tuple[Array, Array]],
    equal: list[tuple[Array, Array]],
    nested: list[tuple[Array, Array]],
) -> bool:
    """Unite or nest the parents of two relations on the same neurons; whether anything changed."""
    first_atom = _first(of_atom, int(of_atom.max()) + 1)
    known = {(int(c), int(p)) for children, parents in events for c, p in zip(children, parents, strict=True)}
    changed = False
    for i, (children, parents) in enumerate(events):
        for others, second in events[:i]:
            _, a, b = np.intersect1d(children, others, return_indices=True)
            pairs = np.unique(np.stack([parents[a], second[b]], 1), axis=0)
            pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            if not len(pairs):
                continue
            left, right = (len(np.unique(pairs[:, k])) for k in (0, 1))
            if len(pairs) == left == right:
                equal.append((first_atom[pairs[:, 0]], first_atom[pairs[:, 1]]))
                changed = True
            elif len(pairs) in (left, right):
                finer, coarser = (0, 1) if len(pairs) == left else (1, 0)
                if not all((int(pair[finer]), int(pair[coarser])) in known for pair in pairs):
                    nested.append((first_atom[pairs[:, finer]], first_atom[pairs[:, coarser]]))
                    changed = True
        if changed:
            return True
    return changed


def _first(of_atom: Array, count: int) -> Array:
    """The first atom of each neuron."""
    first = np.full(count, len(of_atom), dtype=np.int64)
    np.minimum.at(first, of_atom, np.arange(len(of_atom)))
    return first


def _mix(values: Array) -> Array:
    """A hash of 64 bits (splitmix64), so that sums of hashes stand for multisets."""
    x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _refined(ledger: Ledger, of_atom: Array, pairs: Array, count: int) -> Array:
    """Colours of neurons: the same only if they occur alike, in like parents and with like children."""
    marks = np.zeros(count, dtype=np.uint64)
    for event, (atoms, tokens) in enumerate(ledger.seen):
        names = _mix(_mix(np.full(len(atoms), event)) + tokens.reshape(-1).astype(np.uint64))
        np.add.at(marks, of_atom[atoms.reshape(-1)], names)
    for event, (children, parents, positions) in enumerate(ledger.nested):
        # where a parent occurs more than once, its neurons there and there are not alike
        times = _occurrences(of_atom[parents], positions)
        names = _mix(_mix(np.full(len(children), -1 - event)) + times.astype(np.uint64))
        np.add.at(marks, of_atom[children], names)
    colours = np.unique(marks, return_inverse=True)[1]
    child, parent = pairs[:, 0], pairs[:, 1]
    while True:
        marks = _mix(colours)
        np.add.at(marks, child, _mix(_mix(colours[parent]) + np.uint64(1)))
        np.add.at(marks, parent, _mix(_mix(colours[child]) + np.uint64(2)))
        refined = np.unique(marks, return_inverse=True)[1]
        if refined.max(initial=0) == colours.max(initial=0):
            return refined
        colours = refined


def _occurrences(neurons: Array, positions: Array) -> Array:
    """For each entry, how many places its neuron has before this one."""
    pairs, inverse = np.unique(np.stack([neurons, positions], 1), axis=0, return_inverse=True)
    first = np.searchsorted(pairs[:, 0], pairs[:, 0])
    return (np.arange(len(pairs)) - first)[inverse.reshape(-1)]


def _places(pairs: Array, colours: Array, count: int, order: Array) -> tuple[list[Place], Array]:
    parents: list[set[int]] = [set() for _ in range(count)]
    for child, parent in pairs.tolist():
        parents[child].add(parent)
    depth = _depths(parents)
    places: list[Place] = [()] * count
    own = np.zeros(count, dtype=bool)
    for level in range(max(depth, default=0) + 1):
        buckets: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
        at_level = [neuron for neuron in range(count) if depth[neuron] == level]
        for neuron in sorted(at_level, key=order.__getitem__):
            direct = _direct(parents[neuron], parents)
            buckets[int(colours[neuron]), tuple(sorted(direct, key=order.__getitem__))].append(neuron)
        _fill(buckets, places, own)
    return places, own


def _fill(buckets: dict[tuple[int, tuple[int, ...]], list[int]], places: list[Place], own: Array) -> None:
    """Places of neurons whose parents have theirs."""
    families: dict[tuple[int, tuple[Family, ...]], Family] = {}
    for (colour, holders), members in buckets.items():
        held: dict[Family, int] = {}
        for holder in holders:
            held.update(dict(places[holder]))
        chain = tuple(held.items())
        parent = chain[-1][0] if chain else None
        if len(members) == 1 or (
            len(chain) > 1 and any(f.parent is not e for (e, _), (f, _) in zip(chain, chain[1:], strict=False))
        ):
            # alone in its parent it moves with that; in two parents that cross, more than one keep their order
            for neuron in members:
                places[neuron] = chain
            continue
        # without a parent that moves, the neurons of each parent are a group of their own
        key = (colour, tuple(family for family, _ in chain)) if chain else (colour, holders)
        family = families.get(key) or families.setdefault(key, Family(len(members), parent))  # type: ignore[arg-type]
        for index, neuron in enumerate(members):
            places[neuron] = (*chain, (family, index))
            own[neuron] = True


def _direct(parents: set[int], every: list[set[int]]) -> set[int]:
    """Parents that are not parents of parents."""
    above: set[int] = set()
    stack = list(parents)
    while stack:
        for parent in every[stack.pop()]:
            if parent not in above:
                above.add(parent)
                stack.append(parent)
    return parents - above


def _depths(parents: list[set[int]]) -> list[int]:
    depth = [0] * len(parents)
    pending = [neuron for neuron, own in enumerate(parents) if own]
    # parents are few levels deep: as many rounds as levels
    for _ in range(len(parents) + 1):
        changed = False
        for neuron in pending:
            new = 1 + max(depth[parent] for parent in parents[neuron])
            changed |= new != depth[neuron]
            depth[neuron] = new
        if not changed:
            return depth
        if max(depth) > 64:
            break
    raise ValueError("Neurons of this network lie within each other in a circle.")
