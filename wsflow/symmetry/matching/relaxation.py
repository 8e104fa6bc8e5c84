"""Permutations and their convex hull, applied to weights: a doubly stochastic matrix for each neuron group.

A permutation of a group acts on every axis that the group labels; so does a doubly stochastic matrix P, by
(P x)_i = sum_j P_ij x_j, and between the vertices of that polytope the weights can be differentiated with respect to P.
Of nested neurons there is one matrix for each pair of a new and an old parent: T_(hi)(gj) = P_hg Q_hg,ij.

References
----------
Pena, Medeiros, Dubail, Aminbeidokhti, Granger and Pedersoli 2023, "Re-basin via implicit Sinkhorn
differentiation", arXiv:2212.12042.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from wsflow.activations import SIGN
from wsflow.architecture import Architecture, NeuronGroup
from wsflow.architecture.spaces import lineage
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching.assignment import assignment, picked
from wsflow.symmetry.matching.solution import signs_and_phases
from wsflow.symmetry.matching.subblocks import Subblock, WireSegment
from wsflow.symmetry.matching.subproblems import MatchingProblem


@dataclass(frozen=True, eq=False)
class Similarities:
    """By neuron group, similarities (n, total, total) of the reference's neurons (rows) with the network's (columns).

    `signs` have the better sign of each pair, where the group's neurons may change theirs.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    signs: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, index: Tensor | slice) -> Similarities:
        """Return the similarities of the indexed networks."""
        values = {name: value[index] for name, value in self.values.items()}
        return Similarities(values, {name: sign[index] for name, sign in self.signs.items()})


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The neuron groups of an architecture, to be moved by permutations or by doubly stochastic matrices.

    Matrices are (n, size, size) by name of the group, and (n, parents, parents, size, size) for nested groups. Groups
    that are nested more than once keep their order within their parents. Signs change where one segment of a wire alone
    decides those of a group.
    """

    problem: MatchingProblem

    @classmethod
    def of(cls, architecture: Architecture) -> Relaxation:
        """Return the relaxation of an architecture's permutations."""
        # a sum of points of a circle is no point of it
        return cls(MatchingProblem.of(architecture, circles=False))

    @cached_property
    def groups(self) -> dict[str, NeuronGroup]:
        """By name, the groups that are moved: not nested, or nested once."""
        architecture = self.problem.architecture
        return {g.name: g for g in architecture.groups if len(lineage(g)) <= 2}

    @cached_property
    def sign_segments(self) -> dict[str, frozenset[WireSegment]]:
        """By name of the group, the segments of wires that may change signs of its neurons, if there are any."""
        found: dict[str, set[WireSegment]] = {}
        for subblock in self.problem.subblocks:
            for group, odd in zip(subblock.groups, subblock.odd, strict=True):
                if group is not None and odd and group.name in self.groups:
                    found.setdefault(group.name, set()).update(odd)
        return {name: frozenset(segments) for name, segments in found.items()}

    @cached_property
    def signed(self) -> dict[str, WireSegment]:
        """By name of the group, the segment of a wire that alone decides its neurons' signs."""
        single = {name: next(iter(found)) for name, found in self.sign_segments.items() if len(found) == 1}
        return {name: s for name, s in single.items() if SIGN in self.problem.architecture.wire(s.wire).scalings}

    def by_parents(self, name: str, matrix: Tensor) -> Tensor:
        """Return a matrix (n, total, total) over all neurons of a group cut into one for each pair of parents."""
        group = self.groups[name]
        if group.parent is None:
            return matrix
        parents = group.parent.total
        return matrix.reshape(len(matrix), parents, group.size, parents, group.size).transpose(2, 3)

    def assign(self, similarities: Similarities, fixed: Collection[str] = ()) -> Action:
        """Return the permutations and signs with the largest sum of similarities; of nested groups, within the best.

        Groups without similarities stay as they are, and so do fixed groups, while others that are nested in them move.
        """
        return self.rounded(self.matrices(similarities), similarities.signs, fixed)

    def matrices(self, similarities: Similarities) -> dict[str, Tensor]:
        """Return the similarities by parents; to those of parents come the best sums within."""
        result = {name: self.by_parents(name, value) for name, value in similarities.values.items()}
        for name in similarities.values:
            parent = self.groups[name].parent
            if isinstance(parent, NeuronGroup):
                inner = assignment(result[name].flatten(0, 2)).reshape(result[name].shape[:-1])
                best = picked(result[name], inner).sum(-1)
                result[parent.name] = result[parent.name] + best if parent.name in result else best
        return result

    def rounded(
        self, matrices: Mapping[str, Tensor], signs: Mapping[str, Tensor] | None = None, fixed: Collection[str] = ()
    ) -> Action:
        """Return the permutations nearest to matrices: those of parents, then those within the pairs that these make.

        Signs (n, total, total) are those of pairs of neurons.
        """
        n = next((len(matrix) for matrix in matrices.values()), 0)
        found = {name: assignment(m) for name, m in matrices.items() if m.dim() == 3 and name not in fixed}
        for name, matrix in matrices.items():
            if matrix.dim() == 5:
                parent = self.groups[name].parent.name  # type: ignore[union-attr]
                identity = torch.arange(matrix.shape[1], device=matrix.device).expand(n, -1)
                found[name] = _rounded_within(matrix, found.get(parent, identity))
        if not found:
            return Action.identity(self.problem.architecture, n)
        scales = self._scales(found, signs or {}, n)
        return Action(self.problem.architecture, {name: index.cpu() for name, index in found.items()}, scales)

    def _scales(self, found: Mapping[str, Tensor], signs: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
        own = {self.signed[name]: picked(signs[name], index) for name, index in found.items() if name in signs}
        return signs_and_phases(own, self.problem, n)[0]

    def apply(
        self, weights: Tensor, matrices: Mapping[str, Tensor], signs: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return weights (n, d) after a doubly stochastic matrix for each group; statistics stay as they are.

        Signs of pairs of neurons, shaped as the matrices, count on axes where a sign changes the weights.
        """
        columns, values = [], []
        for subblock in self.problem.subblocks:
            if any(group is not None and group.name in matrices for group in subblock.groups):
                columns.append(subblock.columns.reshape(-1))
                values.append(self._applied(subblock, subblock.of(weights), matrices, signs or {}).flatten(1))
        if not values:
            return weights
        return weights.index_copy(1, torch.cat(columns).to(weights.device), torch.cat(values, 1))

    def _applied(
        self, subblock: Subblock, values: Tensor, matrices: Mapping[str, Tensor], signs: Mapping[str, Tensor]
    ) -> Tensor:
        moving = [group is not None and group.name in matrices for group in subblock.groups]
        for axis in range(len(subblock.groups)):
            if subblock.parents[axis] is not None:
                continue
            nested = [i for i, parent in enumerate(subblock.parents) if parent == axis and moving[i]]
            outer = self._matrix(subblock, axis, matrices, signs) if moving[axis] else None
            if nested:
                values = self._with_nested(subblock, axis, nested, outer, values, matrices, signs)
            elif outer is not None:
                values = _along(outer, values, axis + 1)
        return values

    def _with_nested(
        self,
        subblock: Subblock,
        axis: int,
        nested: list[int],
        outer: Tensor | None,
        values: Tensor,
        matrices: Mapping[str, Tensor],
        signs: Mapping[str, Tensor],
    ) -> Tensor:
        """Move neurons with what is nested in them: for each pair of a new and an old parent, then summed."""
        values = values.movedim(axis + 1, 1).unsqueeze(1)
        for child in nested:
            dim = 3 + (child if child < axis else child - 1)
            values = _along(self._matrix(subblock, child, matrices, signs), values, dim, batch=3)
        if outer is None:
            outer = torch.eye(values.shape[2], dtype=values.dtype, device=values.device).unsqueeze(0)
        weighted = values * outer.reshape(*outer.shape, *(1,) * (values.dim() - 3))
        return weighted.sum(2).movedim(1, axis + 1)

    def _matrix(
        self, subblock: Subblock, axis: int, matrices: Mapping[str, Tensor], signs: Mapping[str, Tensor]
    ) -> Tensor:
        name = subblock.groups[axis].name  # type: ignore[union-attr]
        odd = name in signs and self.signed[name] in subblock.odd[axis]
        return matrices[name] * signs[name] if odd else matrices[name]


def _rounded_within(matrix: Tensor, parents: Tensor) -> Tensor:
    """Return permutations (n, total) of nested neurons, given those of their parents."""
    n, count, _, size, _ = matrix.shape
    chosen = matrix.gather(2, parents.reshape(n, count, 1, 1, 1).expand(-1, -1, 1, size, size)).squeeze(2)
    within = assignment(chosen.flatten(0, 1)).reshape(n, count, size)
    return (within + parents.unsqueeze(-1) * size).flatten(1)


def _along(matrix: Tensor, values: Tensor, dim: int, batch: int = 1) -> Tensor:
    """Multiply a matrix with one dimension of values; the first dimensions are a batch, which may be broadcast."""
    moved = values.movedim(dim, batch)
    product = torch.matmul(matrix, moved.flatten(batch + 1) if moved.dim() > batch + 1 else moved.unsqueeze(-1))
    return product.reshape(*product.shape[:-1], *moved.shape[batch + 1 :]).movedim(batch, dim)
