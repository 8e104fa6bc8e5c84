"""Coordinate ascent on sum_k <r_k, (g.w)_k>: one unit of neuron groups after the other, for many networks at once.

What one unit alone moves is multiplied with the reference once; what several units move is kept in its present order.
A network's unit is matched again only where one of its neighbours has moved since.

References
----------
Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wsflow.architecture import NeuronGroup
from wsflow.symmetry.actions import Action
from wsflow.symmetry.assignment import Parity, Signs, assignment, picked, rounding
from wsflow.symmetry.places import Piece, Plan, SignedPart, Term, Unit, rows_of
from wsflow.symmetry.scaled import Scaled

# scores of all pairs of neurons, by the group and by the wires whose flip changes their sign
Scores = dict[tuple[str, Parity], Tensor]
# what staying is worth, in parts of the largest score, where a step on a quadratic objective would go too far
INERTIA = (0.0, 0.25, 1.0, 4.0)


@dataclass(frozen=True)
class Move:
    """What a unit does to networks.

    Parameters
    ----------
    within : dict from NeuronGroup to LongTensor of shape (n, total)
        For each new neuron, which neuron of its (new) parent it was.
    signs : dict from (str, int) to Tensor of shape (n, total)
        By part of a wire: 1 or -1.
    """

    within: dict[NeuronGroup, Tensor]
    signs: dict[SignedPart, Tensor]

    def rows(self, index: Tensor) -> Move:
        """The moves of some of the networks.

        Parameters
        ----------
        index : Tensor

        Returns
        -------
        Move
        """
        return Move({k: v[index] for k, v in self.within.items()}, {k: v[index] for k, v in self.signs.items()})

    def among(self, n: int, index: Tensor) -> Move:
        """The moves of n networks, of which only some move.

        Parameters
        ----------
        n : int
        index : LongTensor
            Which they are.

        Returns
        -------
        Move
        """
        within = {group: _stay(group, w).repeat(n, 1).index_copy_(0, index, w) for group, w in self.within.items()}
        signs = {part: s.new_ones(n, s.shape[1]).index_copy_(0, index, s) for part, s in self.signs.items()}
        return Move(within, signs)

    @property
    def changes(self) -> Tensor:
        """BoolTensor of shape (n,): the networks that it changes."""
        changed = [(within != _stay(group, within)).any(1) for group, within in self.within.items()]
        return torch.stack([*changed, *((sign < 0).any(1) for sign in self.signs.values())]).any(0)


def _stay(group: NeuronGroup, like: Tensor) -> Tensor:
    return torch.arange(group.total, device=like.device) % group.size


def solve(unit: Unit, scores: Scores, inertia: float = 0.0) -> Move:
    """The move that maximises a unit's scores.

    Nested groups are matched for every pair of their parents, whose scores are those of the best such matchings.

    Parameters
    ----------
    unit : Unit
    scores : dict from (str, parity) to Tensor of shape (n, parents, neurons, neurons)
        New neurons, then old ones; for an inner group, those of all neurons of the unit's group.
    inertia : float
        What each neuron that stays is worth, in parts of the largest score.

    Returns
    -------
    Move
    """
    n = len(next(iter(scores.values())))
    parents, size = unit.group.total // unit.group.size, unit.group.size
    tables = {group: _table(scores, group.name) for group in (unit.group, *unit.inner)}
    total, found = torch.zeros(()), {}
    if own := tables[unit.group]:
        total = Signs.of(own).best(own)
    for group in unit.inner:
        value, found[group] = _inner(tables[group], size, group.size)
        total = total.to(value) + value
    total = total.reshape(n * parents, size, size)
    if inertia:
        total = total + inertia * total.abs().amax((1, 2), keepdim=True) * torch.eye(size).to(total)
    index = assignment(total).reshape(n, parents, size)
    move = Move({unit.group: index.reshape(n, -1)}, _signs(own, index) if own else {})
    for group in unit.inner:
        chosen = found[group].take_along_dim(index[..., None, None], 3).squeeze(3)
        move.within[group] = chosen.reshape(n, -1)
        old = (chosen + group.size * index.unsqueeze(-1)).reshape(n, parents, -1)
        move.signs.update(_signs(tables[group], old))
    return move


def _table(scores: Scores, name: str) -> dict[Parity, Tensor]:
    return {parity: score for (target, parity), score in scores.items() if target == name}


def _inner(table: dict[Parity, Tensor], size: int, inner: int) -> tuple[Tensor, Tensor]:
    """For each pair of parents, the value of the best matching of the neurons within, and the matching."""
    best = Signs.of(table).best(table)
    n, parents = best.shape[:2]
    pairs = best.reshape(n, parents, size, inner, size, inner).transpose(3, 4)
    index = assignment(pairs.reshape(-1, inner, inner)).reshape(pairs.shape[:-1])
    return picked(pairs, index).sum(-1), index


def _signs(table: dict[Parity, Tensor], old: Tensor) -> dict[SignedPart, Tensor]:
    """The best signs of neurons whose old places are chosen."""
    signs = Signs.of(table)
    if not (signs.tried or signs.alone):
        return {}
    n = len(old)
    margin = torch.stack([rounding(score) for score in table.values()]).amax(0)
    return signs.choose({parity: picked(score, old).reshape(n, -1) for parity, score in table.items()}, margin)


class Ascent:
    """Networks on their way to a reference.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (1, d) or (n, d)
    plan : Plan
    scales : mapping from str to Tensor of shape (n, total), optional
        By name of the wire: the networks are compared after they have been scaled. Only for scalable plans.

    Attributes
    ----------
    passes : LongTensor of shape (n,)
        In how many sweeps something was matched.
    """

    def __init__(
        self, weights: Tensor, reference: Tensor, plan: Plan, scales: Mapping[str, Tensor] | None = None
    ) -> None:
        self.plan = plan
        self.n, self.device = len(weights), weights.device
        values = [Scaled.of(piece, weights, scales or {}) for piece in plan.pieces]
        self._goals = [piece.of(reference) for piece in plan.pieces]
        self._fixed = [self._once(unit, values) for unit in plan.units]
        shared = {term.piece for unit in plan.units for term in unit.terms if term not in unit.fixed}
        self._values = {i: values[i].copied() for i in sorted(shared)}
        groups, parts = plan.architecture.groups, signed_parts(plan)
        self.places = {g: torch.arange(g.total, device=self.device).repeat(self.n, 1) for g in groups}
        self.signs = {part: weights.new_ones(self.n, group.total) for part, group in parts.items()}
        self._on, self._named = parts, {group.name: group for group in groups}
        # units that have moved: what is fixed stays in the order in which the neurons came
        self._moving: set[int] = set()
        self.passes = torch.zeros(self.n, dtype=torch.long, device=self.device)
        self._stale = torch.ones(len(plan.units), self.n, dtype=torch.bool, device=self.device)

    def _once(self, unit: Unit, values: Sequence[Scaled]) -> Scores:
        """The scores of what no other unit moves."""
        scores: Scores = {}
        own: set[tuple[str, Parity]] = set()
        for term in (term for term in unit.terms if term in unit.fixed):
            part, piece, key = values[term.piece], self.plan.pieces[term.piece], (term.target, term.odd)
            # a product is smaller than what is multiplied: it is scaled instead, where only its neurons are
            late = None if key in scores else part.of_neurons(term)
            _add(scores, own, term, piece, part.plain if late is not None else part.scaled(), self._goals[term.piece])
            if late is not None:
                scores[key] *= late
        return scores

    def begin(self) -> None:
        """Match the units one after the other, looking only at weights between groups that have been reached."""
        everyone = torch.arange(self.n, device=self.device)
        for number, terms in self.plan.start if self.n else ():
            unit = self.plan.units[number]
            self._stale[number] = len(terms) < len(unit.terms)
            self._move(number, everyone, solve(unit, self._scores(number, terms, everyone)))

    def climb(self, max_sweeps: int) -> None:
        """Match all units, again and again, until nothing changes.

        Parameters
        ----------
        max_sweeps : int
        """
        for _ in range(max_sweeps):
            if not self._stale.any():
                break
            self.passes += self._stale.any(0)
            for number in range(len(self.plan.units)):
                rows = self._stale[number].nonzero().squeeze(1)
                if len(rows):
                    self._stale[number] = False
                    self._step(number, rows)

    def action(self) -> Action:
        """What has moved the networks, in all.

        Returns
        -------
        Action
        """
        scales: dict[str, Tensor] = {}
        for (name, offset), sign in self.signs.items():
            total = self.plan.architecture.wire(name).space.total
            scale = scales.setdefault(name, torch.ones(self.n, total, dtype=sign.dtype))
            scale[:, offset : offset + sign.shape[1]] = sign.cpu()
        return Action(self.plan.architecture, {g.name: place.cpu() for g, place in self.places.items()}, scales)

    def _step(self, number: int, rows: Tensor) -> None:
        unit = self.plan.units[number]
        scores = self._scores(number, unit.terms, rows)
        for inertia in INERTIA if unit.squares else (0.0,):
            move = solve(unit, scores, inertia)
            if not unit.squares:
                self._move(number, rows, move)
                return
            better = self._rises(number, rows, scores, move)
            self._move(number, rows[better], move.rows(better))
            rows, scores = rows[~better], {key: score[~better] for key, score in scores.items()}
            if not len(rows):
                return

    def _rises(self, number: int, rows: Tensor, scores: Scores, move: Move) -> Tensor:
        """Whether a quadratic objective rises by more than rounding."""
        gain = torch.zeros(len(rows), dtype=torch.float64, device=self.device)
        for i in self.plan.touched[number]:
            before = self._values[i][rows]
            change = moved(self.plan.pieces[i], before, move) - before
            gain += (change * _some(self._goals[i], rows)).flatten(1).sum(1).double()
        margin = torch.stack([rounding(score) for score in scores.values()]).amax(0)
        return gain > margin * self.plan.units[number].group.total

    def _scores(self, number: int, terms: Collection[Term], rows: Tensor) -> Scores:
        unit, all_rows = self.plan.units[number], len(rows) == self.n
        result = {key: self._arranged(number, key, score, rows) for key, score in self._fixed[number].items()}
        own = set(result) if number in self._moving else set()
        # in the unit's order: sums in another one are rounded differently
        for term in (term for term in unit.terms if term in terms and term not in unit.fixed):
            values = self._values[term.piece] if all_rows else self._values[term.piece].index_select(0, rows)
            goal = self._goals[term.piece] if all_rows else _some(self._goals[term.piece], rows)
            _add(result, own, term, self.plan.pieces[term.piece], values, goal)
        return result

    def _move(self, number: int, rows: Tensor, move: Move) -> None:
        changes = move.changes
        if not changes.any():
            return
        if not changes.all():
            rows, move = rows[changes], move.rows(changes)
        moving = rows
        if self.n > len(rows) > self.n / 2:
            # to move all of them in one go is faster than to pick most of them and put them back
            rows, move = torch.arange(self.n, device=self.device), move.among(self.n, rows)
        for other in self.plan.neighbours[number]:
            self._stale[other, moving] = True
        for i in self.plan.touched[number]:
            if i in self._values:
                piece = self.plan.pieces[i]
                self._values[i] = _replaced(self._values[i], rows, partial(moved, piece, move=move))
        self._moving.add(number)
        self._record(rows, move)

    def _arranged(self, number: int, key: tuple[str, Parity], scores: Tensor, rows: Tensor) -> Tensor:
        """Scores of neurons as they came, in the order in which they are now."""
        scores = scores if len(rows) == self.n else scores.index_select(0, rows)
        if number not in self._moving:
            return scores
        target, parity = key
        scores = scores.gather(3, self.places[self._named[target]][rows, None, None].expand(scores.shape))
        for part in parity:
            scores *= self.signs[part][rows, None, None]
        return scores

    def _record(self, rows: Tensor, move: Move) -> None:
        """Compose a move with what was done before; what is nested in a neuron goes with it."""
        old: dict[NeuronGroup, Tensor] = {}
        for group in self.plan.architecture.groups:
            if group in move.within or group.parent in old:
                old[group] = self._old(group, move, old, len(rows))
                self.places[group][rows] = self.places[group][rows].gather(1, old[group])
        for part, group in self._on.items():
            sign = self.signs[part][rows]
            sign = sign.gather(1, old[group]) if group in old else sign
            self.signs[part][rows] = sign * move.signs[part] if part in move.signs else sign

    def _old(self, group: NeuronGroup, move: Move, old: dict[NeuronGroup, Tensor], n: int) -> Tensor:
        within = move.within[group] if group in move.within else _stay(group, self._stale).expand(n, -1)
        if group.parent is None:
            return within
        stay = torch.arange(group.parent.total, device=self.device).expand(n, -1)
        return within + group.size * old.get(group.parent, stay).repeat_interleave(group.size, 1)


def signed_parts(plan: Plan) -> dict[SignedPart, NeuronGroup]:
    """The group of each part of a wire whose signs may flip.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    dict from (str, int) to NeuronGroup
    """
    return {
        part: group
        for piece in plan.pieces
        for group, odd in zip(piece.groups, piece.odd, strict=True)
        for part in sorted(odd)
        if group is not None
    }


def _add(scores: Scores, own: set[tuple[str, Parity]], term: Term, piece: Piece, values: Tensor, goal: Tensor) -> None:
    """Add inner products of all pairs of neurons, in the reference and in the networks; `own` may be overwritten."""
    key = (term.target, term.odd)
    old, new = rows_of(term, piece, values), rows_of(term, piece, goal)
    n, parents, size, _ = old.shape
    old = old.flatten(0, 1).transpose(1, 2)
    new = new.expand(n, *new.shape[1:]).flatten(0, 1)
    if key not in scores:
        product = torch.bmm(new, old)
    elif key in own:
        product = scores[key].flatten(0, 1).baddbmm_(new, old)
    else:
        product = torch.baddbmm(scores[key].flatten(0, 1), new, old)
    own.add(key)
    scores[key] = product.reshape(n, parents, size, size)


def moved(piece: Piece, values: Tensor, move: Move) -> Tensor:
    """A piece of networks after a move.

    Parameters
    ----------
    piece : Piece
    values : Tensor of shape (n, *extents)
    move : Move

    Returns
    -------
    Tensor of shape (n, *extents)
    """
    # parents before what is nested in them, which goes along
    for axis in sorted(range(len(piece.groups)), key=lambda i: len(piece.chain(i))):
        group = piece.groups[axis]
        if group in move.within:
            values = _gathered(values, axis + 1, piece.spread(move.within[group], axis))
        for part in piece.odd[axis] & move.signs.keys():
            values = values * piece.spread(move.signs[part], axis)
    return values


def _gathered(values: Tensor, dim: int, index: Tensor) -> Tensor:
    n, size = values.shape[:2]
    if dim > 1 or index.numel() > n * size:
        return values.gather(dim, index.expand(values.shape))
    # whole rows are copied several times faster than single numbers
    flat = index.reshape(n, size) + size * torch.arange(n, device=values.device).unsqueeze(1)
    return values.reshape(n * size, -1).index_select(0, flat.reshape(-1)).reshape(values.shape)


def _replaced(values: Tensor, rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Values with some rows changed; they may be overwritten."""
    if len(rows) == len(values):
        return change(values)
    return values.index_copy_(0, rows, change(values.index_select(0, rows)))


def _some(goal: Tensor, rows: Tensor) -> Tensor:
    return goal if len(goal) == 1 else goal[rows]
