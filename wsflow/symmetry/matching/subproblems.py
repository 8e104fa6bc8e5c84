"""The subproblems of weight matching: each is a neuron group that one linear assignment problem permutes.

Groups that are nested in it are matched inside it: for every pair of parents by the best matching of their neurons.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from wsflow.architecture import Architecture, NeuronGroup
from wsflow.symmetry.matching.subblocks import Subblock, Unfolding, WireSegment, subblocks_of


@dataclass(frozen=True)
class Subproblem:
    """A neuron group, nested groups no two of which share a subblock, and the unfoldings that are compared.

    Scores of `constant` unfoldings, which no other subproblem permutes, are computed once. In `quadratic` subblocks the
    group has two axes: there scores are the derivative of the objective.
    """

    group: NeuronGroup
    nested: tuple[NeuronGroup, ...]
    unfoldings: tuple[Unfolding, ...]
    constant: frozenset[Unfolding]
    quadratic: frozenset[int]

    @property
    def names(self) -> frozenset[str]:
        """The names of the groups that it matches."""
        return frozenset({self.group.name, *(group.name for group in self.nested)})


@dataclass(frozen=True, eq=False)
class MatchingProblem:
    """All subblocks of an architecture, and the subproblems in the order of its groups."""

    architecture: Architecture
    subblocks: tuple[Subblock, ...]
    subproblems: tuple[Subproblem, ...]

    @classmethod
    def of(cls, architecture: Architecture, circles: bool = True) -> MatchingProblem:
        """Return the matching problem of an architecture; statistics are permuted along, and not compared.

        With `circles` it is that of rows in which phases are signs, see `centring.compared`.
        """
        subblocks = tuple(subblocks_of(architecture, circles))
        drafts = [draft for draft in _drafts(architecture.groups, subblocks) if draft[2]]
        return cls(architecture, subblocks, tuple(_subproblem(draft, drafts) for draft in drafts))

    @cached_property
    def scalable(self) -> bool:
        """Whether scaled weights need not be written: all subblocks are whole blocks that only scale."""
        blocks = [subblock.block for subblock in self.subblocks]
        return all(block is not None and not (block.shifts or block.shears) for block in blocks)

    @cached_property
    def wire_segments(self) -> dict[WireSegment, NeuronGroup]:
        """The group of each segment of a wire with signs or phases."""
        return {
            segment: group
            for subblock in self.subblocks
            for group, odd in zip(subblock.groups, subblock.odd, strict=True)
            for segment in sorted(odd)
            if group is not None
        }

    @cached_property
    def permuted(self) -> tuple[tuple[int, ...], ...]:
        """For each subproblem, the subblocks that it permutes."""
        return tuple(tuple(sorted({u.subblock for u in subproblem.unfoldings})) for subproblem in self.subproblems)

    @cached_property
    def coupled(self) -> tuple[tuple[int, ...], ...]:
        """For each subproblem, the subproblems whose scores change when it is solved."""
        return tuple(
            tuple(
                j
                for j, other in enumerate(self.subproblems)
                if (set(own) & set(self.permuted[j]) if j != i else other.quadratic)
            )
            for i, own in enumerate(self.permuted)
        )

    @cached_property
    def layer_order(self) -> tuple[tuple[int, frozenset[Unfolding]], ...]:
        """The subproblems layer by layer, with the unfoldings that have only groups reached before on their other axes.

        The one that compares the most weights of each neuron comes first. Where all would compare none, as groups that
        meet only each other do, one has no such unfoldings.
        """
        reached: set[str] = set()
        left = dict(enumerate(self.subproblems))
        order = []
        while left:
            known = {i: self._known(subproblem, reached) for i, subproblem in left.items()}
            weights = {i: self._weights(left[i], unfoldings) for i, unfoldings in known.items()}
            best = max(weights, key=lambda i: (weights[i], -i))
            if not weights[best]:
                best = max(left, key=lambda i: (self._weights(left[i], left[i].unfoldings), -i))
            reached |= left.pop(best).names
            order.append((best, known[best]))
        return tuple(order)

    def _known(self, subproblem: Subproblem, reached: set[str]) -> frozenset[Unfolding]:
        names = reached | subproblem.names
        return frozenset(
            unfolding
            for unfolding in subproblem.unfoldings
            if unfolding.subblock not in subproblem.quadratic
            and all(group is None or group.name in names for group in self.subblocks[unfolding.subblock].groups)
        )

    def _weights(self, subproblem: Subproblem, unfoldings: Iterable[Unfolding]) -> float:
        return sum(self.subblocks[u.subblock].columns.numel() for u in unfoldings) / subproblem.group.total


# a group, the nested groups that are matched inside it, and the unfoldings along them
Draft = tuple[NeuronGroup, tuple[NeuronGroup, ...], tuple[Unfolding, ...]]


def _drafts(groups: Sequence[NeuronGroup], subblocks: Sequence[Subblock]) -> Iterator[Draft]:
    for group in groups:
        children = [child for child in groups if child.parent == group]
        for nested in _without_common_subblocks(children, subblocks):
            yield group, nested, tuple(_unfoldings(group, nested, subblocks))
        alone = tuple(_unfoldings(group, (), subblocks))
        # a nested group is matched, and gets its signs, with its parent; signs of parents need a step of their own
        if not isinstance(group.parent, NeuronGroup) and (not children or any(unfolding.odd for unfolding in alone)):
            yield group, (), alone


def _without_common_subblocks(
    children: Sequence[NeuronGroup], subblocks: Sequence[Subblock]
) -> list[tuple[NeuronGroup, ...]]:
    """Return a partition of groups, no two of one class in one subblock."""
    classes: list[list[NeuronGroup]] = []
    for child in children:
        together = {group for subblock in subblocks if child in subblock.groups for group in subblock.groups}
        free = next((members for members in classes if not together.intersection(members)), None)
        if free is None:
            classes.append([child])
        else:
            free.append(child)
    return [tuple(members) for members in classes]


def _unfoldings(
    group: NeuronGroup, nested: Sequence[NeuronGroup], subblocks: Sequence[Subblock]
) -> Iterator[Unfolding]:
    for number, subblock in enumerate(subblocks):
        for axis in (i for i, other in enumerate(subblock.groups) if other == group):
            inside = [i for i, other in enumerate(subblock.groups) if other in nested and subblock.parents[i] == axis]
            for inner in inside or (None,):
                first = (*subblock.nested_axes(axis), *(() if inner is None else (inner,)))
                order = (*first, *(i for i in range(len(subblock.groups)) if i not in first))
                target = first[-1]
                odd = frozenset() if nested and inner is None else subblock.odd[target]
                yield Unfolding(number, axis, inner, order, subblock.groups[target].name, odd)


def _subproblem(draft: Draft, drafts: Sequence[Draft]) -> Subproblem:
    group, nested, unfoldings = draft
    others = {unfolding.subblock for other in drafts if other is not draft for unfolding in other[2]}
    numbers = [unfolding.subblock for unfolding in unfoldings]
    quadratic = frozenset(number for number in numbers if numbers.count(number) > 1)
    # where the objective is quadratic, its change is computed from all current values
    constant = frozenset(() if quadratic else (u for u in unfoldings if u.subblock not in others))
    return Subproblem(group, nested, unfoldings, constant, quadratic)
