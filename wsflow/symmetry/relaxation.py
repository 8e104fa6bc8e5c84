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
from wsflow.symmetry.actions import Action
from wsflow.symmetry.assignment import assignment, picked
from wsflow.symmetry.places import Piece, Plan, SignedPart


@dataclass(frozen=True, eq=False)
class Scores:
    """How well pairs of neurons go together, by neuron group.

    Parameters
    ----------
    values : dict from str to Tensor of shape (n, total, total)
        Of the reference's neuron (rows) and the network's (columns): the more the better.
    signs : dict from str to Tensor of shape (n, total, total)
        1 or -1: the better sign of a pair, where the group's neurons may change theirs.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    signs: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, index: Tensor | slice) -> Scores:
        """The scores of some of the networks.

        Parameters
        ----------
        index : LongTensor, BoolTensor or slice

        Returns
        -------
        Scores
        """
        values = {name: value[index] for name, value in self.values.items()}
        return Scores(values, {name: sign[index] for name, sign in self.signs.items()})


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The neuron groups of an architecture, to be moved by permutations or by doubly stochastic matrices.

    Groups that are nested more than once keep their order within their parents. Signs are moved along where one wire
    alone decides those of a group.

    Parameters
    ----------
    plan : Plan

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.relaxation import Relaxation
    >>> relaxation = Relaxation.of(Architecture.mlp([4, 3, 2]))
    >>> mean = relaxation.move(torch.randn(1, 23), {"hidden1": torch.full((1, 3, 3), 1 / 3)})
    >>> bool(torch.allclose(mean[0, :4], mean[0, 4:8]))
    True
    """

    plan: Plan

    @classmethod
    def of(cls, architecture: Architecture) -> Relaxation:
        """The relaxation of an architecture's permutations.

        Parameters
        ----------
        architecture : Architecture

        Returns
        -------
        Relaxation
        """
        return cls(Plan.of(architecture))

    @cached_property
    def groups(self) -> dict[str, NeuronGroup]:
        """By name, the groups that are moved: not nested, or nested once."""
        architecture = self.plan.architecture
        return {g.name: g for g in architecture.groups if g.parent is None or g.parent.parent is None}

    @cached_property
    def flipping(self) -> dict[str, frozenset[SignedPart]]:
        """By name of the group, the parts of wires that may change signs of its neurons, if there are any."""
        parts: dict[str, set[SignedPart]] = {}
        for piece in self.plan.pieces:
            for group, odd in zip(piece.groups, piece.odd, strict=True):
                if group is not None and odd and group.name in self.groups:
                    parts.setdefault(group.name, set()).update(odd)
        return {name: frozenset(found) for name, found in parts.items()}

    @cached_property
    def signed(self) -> dict[str, SignedPart]:
        """By name of the group, the part of a wire that alone decides its neurons' signs."""
        single = {name: next(iter(parts)) for name, parts in self.flipping.items() if len(parts) == 1}
        return {name: part for name, part in single.items() if SIGN in self.plan.architecture.wire(part[0]).scalings}

    def pairs(self, name: str, matrix: Tensor) -> Tensor:
        """A matrix over all neurons of a group, for nested neurons cut into one for each pair of parents.

        Parameters
        ----------
        name : str
        matrix : Tensor of shape (n, total, total)

        Returns
        -------
        Tensor of shape (n, size, size), or (n, parents, parents, size, size)
        """
        group = self.groups[name]
        if group.parent is None:
            return matrix
        parents = group.parent.total
        return matrix.reshape(len(matrix), parents, group.size, parents, group.size).transpose(2, 3)

    def choose(self, scores: Scores, held: Collection[str] = ()) -> Action:
        """The permutations and signs with the largest sum of scores; of nested groups, the best within the best.

        Parameters
        ----------
        scores : Scores
            Groups without scores stay as they are.
        held : collection of str
            Groups that stay while others that are nested in them move.

        Returns
        -------
        Action
        """
        return self.rounded(self.matrices(scores), scores.signs, held)

    def matrices(self, scores: Scores) -> dict[str, Tensor]:
        """Scores as `pairs` cuts them; to those of parents come the best sums within.

        Parameters
        ----------
        scores : Scores

        Returns
        -------
        dict from str to Tensor of shape (n, size, size), or (n, parents, parents, size, size)
        """
        result = {name: self.pairs(name, value) for name, value in scores.values.items()}
        for name in scores.values:
            parent = self.groups[name].parent
            if parent is not None:
                inner = assignment(result[name].flatten(0, 2)).reshape(result[name].shape[:-1])
                best = picked(result[name], inner).sum(-1)
                result[parent.name] = result[parent.name] + best if parent.name in result else best
        return result

    def rounded(
        self, matrices: Mapping[str, Tensor], signs: Mapping[str, Tensor] | None = None, held: Collection[str] = ()
    ) -> Action:
        """The permutations nearest to matrices: first those of parents, then within the pairs that these make.

        Parameters
        ----------
        matrices : mapping from str to Tensor
            As `pairs` cuts them.
        signs : mapping from str to Tensor of shape (n, total, total), optional
        held : collection of str
            Groups that stay while others that are nested in them move.

        Returns
        -------
        Action
        """
        n = next((len(matrix) for matrix in matrices.values()), 0)
        found = {name: assignment(m) for name, m in matrices.items() if m.dim() == 3 and name not in held}
        for name, matrix in matrices.items():
            if matrix.dim() == 5:
                parent = self.groups[name].parent.name  # type: ignore[union-attr]
                stay = torch.arange(matrix.shape[1], device=matrix.device).expand(n, -1)
                found[name] = _rounded_within(matrix, found.get(parent, stay))
        if not found:
            return Action.identity(self.plan.architecture, n)
        scales = self._scales(found, signs or {}, n)
        return Action(self.plan.architecture, {name: index.cpu() for name, index in found.items()}, scales)

    def _scales(self, found: Mapping[str, Tensor], signs: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
        scales: dict[str, Tensor] = {}
        for name, index in found.items():
            if name in signs:
                wire, offset = self.signed[name]
                sign = picked(signs[name], index).cpu()
                total = self.plan.architecture.wire(wire).space.total
                scale = scales.setdefault(wire, torch.ones(n, total, dtype=sign.dtype))
                scale[:, offset : offset + sign.shape[1]] = sign
        return scales

    def move(
        self, weights: Tensor, matrices: Mapping[str, Tensor], signs: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Apply a matrix to each group; statistics stay as they are.

        Parameters
        ----------
        weights : Tensor of shape (n, d)
        matrices : mapping from str to Tensor of shape (n, size, size), or (n, parents, parents, size, size)
            By name of the group, as `pairs` cuts them: doubly stochastic.
        signs : mapping from str to Tensor of the same shape, optional
            Of the pairs of neurons; they count on axes where a sign changes the weights.

        Returns
        -------
        Tensor of shape (n, d)
        """
        columns, values = [], []
        for piece in self.plan.pieces:
            if any(group is not None and group.name in matrices for group in piece.groups):
                columns.append(piece.columns.reshape(-1))
                values.append(self._moved(piece, piece.of(weights), matrices, signs or {}).flatten(1))
        if not values:
            return weights
        return weights.index_copy(1, torch.cat(columns).to(weights.device), torch.cat(values, 1))

    def _moved(
        self, piece: Piece, values: Tensor, matrices: Mapping[str, Tensor], signs: Mapping[str, Tensor]
    ) -> Tensor:
        moving = [group is not None and group.name in matrices for group in piece.groups]
        for axis, group in enumerate(piece.groups):
            if group is None or group.parent is not None:
                continue
            inside = [i for i, parent in enumerate(piece.parents) if parent == axis and moving[i]]
            outer = self._matrix(piece, axis, matrices, signs) if moving[axis] else None
            if inside:
                values = self._within(piece, axis, inside, outer, values, matrices, signs)
            elif outer is not None:
                values = _along(outer, values, axis + 1)
        return values

    def _within(
        self,
        piece: Piece,
        axis: int,
        inside: list[int],
        outer: Tensor | None,
        values: Tensor,
        matrices: Mapping[str, Tensor],
        signs: Mapping[str, Tensor],
    ) -> Tensor:
        """Move neurons with what is nested in them: for each pair of a new and an old parent, then summed."""
        values = values.movedim(axis + 1, 1).unsqueeze(1)
        for child in inside:
            dim = 3 + (child if child < axis else child - 1)
            values = _along(self._matrix(piece, child, matrices, signs), values, dim, batch=3)
        if outer is None:
            outer = torch.eye(values.shape[2], dtype=values.dtype, device=values.device).unsqueeze(0)
        weighted = values * outer.reshape(*outer.shape, *(1,) * (values.dim() - 3))
        return weighted.sum(2).movedim(1, axis + 1)

    def _matrix(self, piece: Piece, axis: int, matrices: Mapping[str, Tensor], signs: Mapping[str, Tensor]) -> Tensor:
        name = piece.groups[axis].name  # type: ignore[union-attr]
        odd = name in signs and self.signed[name] in piece.odd[axis]
        return matrices[name] * signs[name] if odd else matrices[name]


def _rounded_within(matrix: Tensor, above: Tensor) -> Tensor:
    """Positions of nested neurons, where the permutation of their parents is known."""
    n, count, _, size, _ = matrix.shape
    chosen = matrix.gather(2, above.reshape(n, count, 1, 1, 1).expand(-1, -1, 1, size, size)).squeeze(2)
    within = assignment(chosen.flatten(0, 1)).reshape(n, count, size)
    return (within + above.unsqueeze(-1) * size).flatten(1)


def _along(matrix: Tensor, values: Tensor, dim: int, batch: int = 1) -> Tensor:
    """Multiply a matrix with one dimension of values; the first dimensions are a batch, which may be broadcast."""
    moved = values.movedim(dim, batch)
    product = torch.matmul(matrix, moved.flatten(batch + 1) if moved.dim() > batch + 1 else moved.unsqueeze(-1))
    return product.reshape(*product.shape[:-1], *moved.shape[batch + 1 :]).movedim(batch, dim)
