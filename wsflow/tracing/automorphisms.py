"""Automorphisms of a labelled structure: colours are refined, and what these leave open is searched.

Vertices are told apart by colours that are hashes of what surrounds them, refined until nothing changes. If all colours
differ, no permutation but the identity keeps the structure: vertices that one could exchange never differ in colour.
Else a vertex gets a colour of its own, in two copies of the structure, until a permutation is found or none is left.

References
----------
Weisfeiler and Leman 1968 (refinement); McKay and Piperno 2014, "Practical graph isomorphism, II", arXiv:1301.1493
(individualisation and refinement).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wsflow.exceptions import NumericalError
from wsflow.tracing.abstract_tensor import Array
from wsflow.tracing.neuron_groups import mixed

# nodes of the search tree
BUDGET = 2_000


class Undecided(NumericalError):
    """The search for an automorphism became too long."""


@dataclass(frozen=True)
class Relation:
    """Tuples of vertices (arity, m) with labels (m,), all of them different tuples."""

    vertices: Array
    labels: Array


@dataclass
class Structure:
    """Vertices with first colours (n,), and relations between them."""

    colours: Array
    relations: Sequence[Relation]
    searched: int = field(default=0, init=False)

    def refined(self, colours: Array) -> Array:
        """Return the coarsest colours (n,) in which vertices of one colour have alike neighbours."""
        count = len(np.unique(colours))
        while True:
            colours = self._once(colours)
            finer = len(np.unique(colours))
            if finer == count:
                return colours
            count = finer

    def _once(self, colours: Array) -> Array:
        marks = mixed(colours)
        for number, relation in enumerate(self.relations):
            own = colours[relation.vertices]
            for position, vertices in enumerate(relation.vertices):
                hashes = mixed(relation.labels.astype(np.uint64) + mixed(np.array([number])))
                for other, theirs in enumerate(own):
                    if other != position:
                        hashes = mixed(hashes + mixed(theirs + np.uint64(other)))
                np.add.at(marks, vertices, mixed(hashes + np.uint64(position)))
        return marks

    def automorphism(self) -> Array | None:
        """Return a permutation (n,) but the identity that keeps the structure; None without one, or raise Undecided."""
        self.searched = 0
        colours = self.refined(self.colours)
        while (cell := _smallest_cell(colours)) is not None:
            first, *others = cell
            for other in others:
                found = self._extended(_with_own(colours, first), _with_own(colours, other))
                if found is not None:
                    return found
            # every automorphism keeps this vertex
            colours = self.refined(_with_own(colours, first))
        return None

    def _extended(self, left: Array, right: Array) -> Array | None:
        """Return an automorphism that takes the colours of one copy to those of the other."""
        self.searched += 1
        if self.searched > BUDGET:
            raise Undecided("Whether any permutation is left could not be decided: the search became too long.")
        left, right = self._together(left, right)
        if not np.array_equal(np.sort(left), np.sort(right)):
            return None
        cell = _smallest_cell(left)
        if cell is None:
            image = np.empty(len(left), dtype=np.int64)
            image[np.argsort(left)] = np.argsort(right)
            return image if self.keeps(image) else None
        for other in np.flatnonzero(right == left[cell[0]]):
            found = self._extended(_with_own(left, cell[0]), _with_own(right, int(other)))
            if found is not None:
                return found
        return None

    def _together(self, left: Array, right: Array) -> tuple[Array, Array]:
        """Refine two copies by the same number of steps, so that their colours can be compared."""
        counts = (0, 0)
        while (new := (len(np.unique(left)), len(np.unique(right)))) != counts:
            counts = new
            left, right = self._once(left), self._once(right)
        return left, right

    def keeps(self, image: Array) -> bool:
        """Return whether a permutation keeps colours and relations."""
        if not np.array_equal(self.colours[image], self.colours):
            return False
        for relation in self.relations:
            before, after = relation.vertices, image[relation.vertices]
            if not np.array_equal(_sorted(before, relation.labels), _sorted(after, relation.labels)):
                return False
        return True


def _smallest_cell(colours: Array) -> list[int] | None:
    """Return the vertices of the colour that the fewest of at least two have, or None where all colours differ."""
    values, inverse, counts = np.unique(colours, return_inverse=True, return_counts=True)
    if len(values) == len(colours):
        return None
    smallest = int(np.where(counts > 1, counts, len(colours) + 1).argmin())
    return np.flatnonzero(inverse.reshape(-1) == smallest).tolist()


def _with_own(colours: Array, vertex: int) -> Array:
    changed = colours.copy()
    # an array, for NumPy warns where numbers by themselves overflow
    changed[[vertex]] = mixed(changed[[vertex]] + np.uint64(1))
    return changed


def _sorted(vertices: Array, labels: Array) -> Array:
    rows = np.concatenate([vertices, labels[None].astype(np.int64)])
    return rows[:, np.lexsort(rows)]
