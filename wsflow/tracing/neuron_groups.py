"""From constraints on atoms to neuron groups: which neurons can change places, and within which parents.

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
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from wsflow.architecture import NeuronGroup
from wsflow.tracing.abstract_tensor import Array
from wsflow.tracing.constraints import Constraints

# where a neuron lies: groups with its index there, parents first
Coordinates = tuple[tuple["DraftGroup", int], ...]


@dataclass(eq=False)
class DraftGroup:
    """A neuron group that gets its name later."""

    size: int
    parent: DraftGroup | None = None
    name: str = ""

    @property
    def depth(self) -> int:
        """The number of groups that it lies in."""
        return 1 + self.parent.depth if self.parent else 0

    @property
    def named(self) -> NeuronGroup:
        """The group, once it has its name."""
        return NeuronGroup(self.name, self.size, self.parent.named if self.parent else None)


@dataclass(frozen=True)
class Neurons:
    """The neurons of a network: that of each atom; their colours; where they lie in groups (nowhere if fixed).

    `own` says whether a neuron is a member of its last group, and does not only move along with one.
    """

    of_atom: Array
    colours: Array
    coordinates: list[Coordinates]
    own: Array


def find_neurons(constraints: Constraints) -> Neurons:
    """Return the neurons of a network, and the groups in which they can change places."""
    equal = list(constraints.equal)
    nested = [(children, parents) for children, parents, _ in constraints.nested]
    while True:
        of_atom, relations = _related(constraints.n_atoms, equal, nested)
        count = int(of_atom.max()) + 1 if len(of_atom) else 0
        pairs = np.unique(
            np.concatenate([np.empty((0, 2), dtype=np.int64), *(np.stack(r, 1) for r in relations)]), axis=0
        )
        colours = _refined(constraints, of_atom, pairs, _cells(relations, count))
        if not _reconciled(of_atom, relations, equal, nested, colours):
            break
    coordinates, own = _coordinates(pairs, colours, count, _first(of_atom))
    return Neurons(of_atom, colours, coordinates, own)


def _related(
    n_atoms: int, equal: list[tuple[Array, Array]], nested: list[tuple[Array, Array]]
) -> tuple[Array, list[tuple[Array, Array]]]:
    """Return the neuron of each atom, and each relation as a function from neurons to parents."""
    while True:
        of_atom = _components(n_atoms, equal)
        relations = _functions(of_atom, nested, equal)
        if relations is not None and not _reconciled(of_atom, relations, equal, nested):
            return of_atom, relations


def _components(n: int, equal: list[tuple[Array, Array]]) -> Array:
    a, b = (np.concatenate([np.empty(0, dtype=np.int64), *(pair[i] for pair in equal)]) for i in (0, 1))
    graph = coo_matrix((np.ones(len(a), dtype=bool), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _functions(
    of_atom: Array, nested: list[tuple[Array, Array]], equal: list[tuple[Array, Array]]
) -> list[tuple[Array, Array]] | None:
    """Return each relation as a function from neurons to parents, or None where that made neurons equal."""
    relations, keys, changed = [], set(), False
    first_atom = _first(of_atom)
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
        relations.append((pairs[:, 0], pairs[:, 1]))
    return None if changed else relations


def _reconciled(
    of_atom: Array,
    relations: list[tuple[Array, Array]],
    equal: list[tuple[Array, Array]],
    nested: list[tuple[Array, Array]],
    colours: Array | None = None,
) -> bool:
    """Unite or nest the parents of two relations on the same neurons, and return whether anything changed.

    With colours, parents that cross are compared on the neurons of each colour, which only change places among
    themselves: groups of a convolution and of a norm that share no divisor may still move together.
    """
    first_atom = _first(of_atom)
    known = {(int(c), int(p)) for children, parents in relations for c, p in zip(children, parents, strict=True)}
    for i, (children, parents) in enumerate(relations):
        changed = False
        for others, second in relations[:i]:
            common, a, b = np.intersect1d(children, others, return_indices=True)
            for pairs in _compared(np.stack([parents[a], second[b]], 1), None if colours is None else colours[common]):
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
    return False


def _compared(parents: Array, colours: Array | None) -> list[Array]:
    """Return the different pairs of two parents; with colours, those that cross, for the neurons of each colour."""
    pairs = _different(parents)
    if colours is None:
        return [pairs] if len(pairs) else []
    if len(pairs) in {len(np.unique(pairs[:, k])) for k in (0, 1)}:
        return []
    classes = [_different(parents[colours == colour]) for colour in np.unique(colours)]
    return [pairs for pairs in classes if len(pairs) > 1]


def _different(pairs: Array) -> Array:
    pairs = np.unique(pairs, axis=0)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _first(of_atom: Array) -> Array:
    """Return the first atom of each neuron."""
    return np.unique(of_atom, return_index=True)[1]


def mixed(values: Array) -> Array:
    """Return hashes of 64 bits (splitmix64), so that sums of hashes stand for multisets."""
    x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _cells(relations: list[tuple[Array, Array]], count: int) -> Array:
    """Return marks of neurons by how many share both parents in two relations, which tells apart where these cross."""
    marks = np.zeros(count, dtype=np.uint64)
    for i, (children, parents) in enumerate(relations):
        for others, second in relations[:i]:
            common, a, b = np.intersect1d(children, others, return_indices=True)
            cells = np.stack([parents[a], second[b]], 1)
            _, inverse, sizes = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
            marks[common] += mixed(sizes[inverse.reshape(-1)])
    return marks


def _refined(constraints: Constraints, of_atom: Array, pairs: Array, marks: Array) -> Array:
    """Return colours of neurons: the same only if they occur alike, in like parents and with like children."""
    for event, (atoms, own) in enumerate(constraints.marks):
        names = mixed(mixed(np.full(len(atoms), event)) + own.reshape(-1).astype(np.uint64))
        np.add.at(marks, of_atom[atoms.reshape(-1)], names)
    for event, (children, parents, positions) in enumerate(constraints.nested):
        # where a parent occurs more than once, its neurons at one place and another are not alike
        times = _occurrences(of_atom[parents], positions)
        names = mixed(mixed(np.full(len(children), -1 - event)) + times.astype(np.uint64))
        np.add.at(marks, of_atom[children], names)
    colours = np.unique(marks, return_inverse=True)[1]
    child, parent = pairs[:, 0], pairs[:, 1]
    while True:
        marks = mixed(colours)
        np.add.at(marks, child, mixed(mixed(colours[parent]) + np.uint64(1)))
        np.add.at(marks, parent, mixed(mixed(colours[child]) + np.uint64(2)))
        refined = np.unique(marks, return_inverse=True)[1]
        if refined.max(initial=0) == colours.max(initial=0):
            return refined
        colours = refined


def _occurrences(neurons: Array, positions: Array) -> Array:
    """Return, for each entry, how many positions its neuron has before this one."""
    pairs, inverse = np.unique(np.stack([neurons, positions], 1), axis=0, return_inverse=True)
    first = np.searchsorted(pairs[:, 0], pairs[:, 0])
    return (np.arange(len(pairs)) - first)[inverse.reshape(-1)]


def _coordinates(pairs: Array, colours: Array, count: int, order: Array) -> tuple[list[Coordinates], Array]:
    parents: list[set[int]] = [set() for _ in range(count)]
    for child, parent in pairs.tolist():
        parents[child].add(parent)
    depths, above = [0] * count, [set[int]()] * count
    for neuron in TopologicalSorter(dict(enumerate(parents))).static_order():
        depths[neuron] = max((1 + depths[parent] for parent in parents[neuron]), default=0)
        above[neuron] = set().union(*(parents[parent] | above[parent] for parent in parents[neuron]))
    coordinates: list[Coordinates] = [()] * count
    own = np.zeros(count, dtype=bool)
    for level in range(max(depths, default=0) + 1):
        buckets: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
        at_level = [neuron for neuron in range(count) if depths[neuron] == level]
        for neuron in sorted(at_level, key=order.__getitem__):
            # a parent of a parent is among the coordinates of that
            direct = sorted(parents[neuron] - above[neuron], key=order.__getitem__)
            buckets[int(colours[neuron]), tuple(direct)].append(neuron)
        _fill(buckets, coordinates, own)
    return coordinates, own


def _fill(buckets: dict[tuple[int, tuple[int, ...]], list[int]], coordinates: list[Coordinates], own: Array) -> None:
    """Set the coordinates of neurons, by colour and parents, whose parents have theirs."""
    groups: dict[tuple[int, tuple[Any, ...]], DraftGroup] = {}
    for (colour, parents), members in buckets.items():
        chain = tuple({group: index for parent in parents for group, index in coordinates[parent]}.items())
        outer = [group for group, _ in chain]
        crossing = any(inner.parent is not group for group, inner in pairwise(outer))
        if len(members) == 1 or crossing:
            # alone in its parent a neuron moves with that; in two parents that cross, several keep their order
            for neuron in members:
                coordinates[neuron] = chain
            continue
        # without a parent that moves, the neurons of each parent are a group of their own
        key = (colour, tuple(outer) or parents)
        group = groups.setdefault(key, DraftGroup(len(members), outer[-1] if outer else None))
        for index, neuron in enumerate(members):
            coordinates[neuron] = (*chain, (group, index))
            own[neuron] = True
