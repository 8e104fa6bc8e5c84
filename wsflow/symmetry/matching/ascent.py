r"""Weight matching as coordinate ascent, for many networks at once.

For two MLPs with weights A_l and B_l, weight matching (Ainsworth, Hayase and Srinivasa 2023, arXiv:2209.04836,
section 3.2) is the search for permutations P_l of the hidden neurons that

    maximise  sum_l <A_l, P_l B_l P_{l-1}^T>,    <X, Y> = tr(X^T Y),

a sum of bilinear assignment problems, which is NP-hard. Its algorithm 1 maximises over one P_l at a time, the others
being as they are: a linear assignment problem with the scores A_l P_{l-1} B_l^T + A_{l+1}^T P_{l+1} B_{l+1}. Here P_l
is a neuron group of any architecture with what is nested in it, and the objective is sum_k <r_k, (g.w)_k>. It never
falls.

Scores of what one subproblem alone permutes are computed once; what several permute is kept in its current order. A
subproblem of a network is solved again only where a coupled one has changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from wsflow.architecture import Fixed, NeuronGroup
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching.assignment import Parity, rounding
from wsflow.symmetry.matching.solution import Matching, Scores, signs_and_phases, solve, stay
from wsflow.symmetry.matching.subblocks import ScaledSubblock, Subblock, Unfolding
from wsflow.symmetry.matching.subproblems import MatchingProblem, Subproblem

# tried in turn where the objective is quadratic, and a step without damping may lower it
DAMPING = (0.0, 0.25, 1.0, 4.0)


class CoordinateAscent:
    """The state of the ascent: networks (n, d) on their way to a reference (1 or n, d).

    They are rows in which phases are signs, see `centring.compared`. Networks of scalable problems are compared after
    their wires are scaled (n, total). `passes` (n,) counts the sweeps in which a subproblem of the network was solved.
    """

    def __init__(
        self,
        weights: Tensor,
        reference: Tensor,
        problem: MatchingProblem,
        scales: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.problem = problem
        self.n, self.device = len(weights), weights.device
        values = [ScaledSubblock.of(subblock, weights, scales or {}) for subblock in problem.subblocks]
        self._reference = [subblock.of(reference) for subblock in problem.subblocks]
        self._constant = [self._constant_scores(subproblem, values) for subproblem in problem.subproblems]
        shared = {u.subblock for subproblem in problem.subproblems for u in subproblem.unfoldings
                  if u not in subproblem.constant}  # fmt: skip
        self._current = {i: values[i].copied() for i in sorted(shared)}
        groups, segments = problem.architecture.groups, problem.wire_segments
        self.permutations = {g: torch.arange(g.total, device=self.device).repeat(self.n, 1) for g in groups}
        self.signs = {segment: weights.new_ones(self.n, group.total) for segment, group in segments.items()}
        self._groups = {group.name: group for group in groups}
        # subproblems that have changed a network: constant scores keep the order in which the neurons came
        self._changed: set[int] = set()
        self.passes = torch.zeros(self.n, dtype=torch.long, device=self.device)
        self._stale = torch.ones(len(problem.subproblems), self.n, dtype=torch.bool, device=self.device)

    def _constant_scores(self, subproblem: Subproblem, values: Sequence[ScaledSubblock]) -> Scores:
        scores: Scores = {}
        own: set[tuple[str, Parity]] = set()
        for unfolding in (u for u in subproblem.unfoldings if u in subproblem.constant):
            number, key = unfolding.subblock, (unfolding.target, unfolding.odd)
            value, subblock = values[number], self.problem.subblocks[number]
            # a product is smaller than what is multiplied: it is scaled instead, where only its neurons are
            late = None if key in scores else value.row_factors(unfolding)
            plain = value.values if late is not None else value.scaled()
            _add(scores, own, unfolding, subblock, plain, self._reference[number])
            if late is not None:
                scores[key] *= late
        return scores

    def initialize(self) -> None:
        """Match layer by layer, comparing only weights between groups that have been reached.

        Where there are none, neurons are compared by the absolute values of their weights in order of size, whatever
        the neurons are with which they share them.
        """
        everyone = torch.arange(self.n, device=self.device)
        for number, unfoldings in self.problem.layer_order if self.n else ():
            subproblem = self.problem.subproblems[number]
            self._stale[number] = len(unfoldings) < len(subproblem.unfoldings)
            scores = self._scores(number, unfoldings, everyone) if unfoldings else self._scores_in_order(subproblem)
            self._apply(number, everyone, solve(subproblem, scores))

    def run(self, max_sweeps: int) -> None:
        """Solve all subproblems, again and again, until nothing changes."""
        for _ in range(max_sweeps):
            if not self._stale.any():
                break
            self.passes += self._stale.any(0)
            for number in range(len(self.problem.subproblems)):
                rows = self._stale[number].nonzero().squeeze(1)
                if len(rows):
                    self._stale[number] = False
                    self._step(number, rows)

    def action(self) -> Action:
        """Return the permutations, signs and phases (0 or 1) since the beginning."""
        permutations = {group.name: index.cpu() for group, index in self.permutations.items()}
        return Action(self.problem.architecture, permutations, *signs_and_phases(self.signs, self.problem, self.n))

    def _step(self, number: int, rows: Tensor) -> None:
        subproblem = self.problem.subproblems[number]
        scores = self._scores(number, subproblem.unfoldings, rows)
        for damping in DAMPING if subproblem.quadratic else (0.0,):
            matching = solve(subproblem, scores, damping)
            if not subproblem.quadratic:
                self._apply(number, rows, matching)
                return
            better = self._rises(number, rows, scores, matching)
            self._apply(number, rows[better], matching.rows(better))
            rows, scores = rows[~better], {key: score[~better] for key, score in scores.items()}
            if not len(rows):
                return

    def _rises(self, number: int, rows: Tensor, scores: Scores, matching: Matching) -> Tensor:
        """Return for which rows a quadratic objective rises by more than rounding."""
        gain = torch.zeros(len(rows), dtype=torch.float64, device=self.device)
        for i in self.problem.permuted[number]:
            before = self._current[i][rows]
            change = matching(self.problem.subblocks[i], before) - before
            gain += (change * _select(self._reference[i], rows)).flatten(1).sum(1).double()
        margin = torch.stack([rounding(score) for score in scores.values()]).amax(0)
        return gain > margin * self.problem.subproblems[number].group.total

    def _scores(self, number: int, unfoldings: Collection[Unfolding], rows: Tensor) -> Scores:
        subproblem, everyone = self.problem.subproblems[number], len(rows) == self.n
        result = {key: self._reordered(number, key, score, rows) for key, score in self._constant[number].items()}
        own = set(result) if number in self._changed else set()
        # in the subproblem's order: sums in another one are rounded differently
        for u in (u for u in subproblem.unfoldings if u in unfoldings and u not in subproblem.constant):
            values, reference = self._current[u.subblock], self._reference[u.subblock]
            if not everyone:
                values, reference = values.index_select(0, rows), _select(reference, rows)
            _add(result, own, u, self.problem.subblocks[u.subblock], values, reference)
        return result

    def _scores_in_order(self, subproblem: Subproblem) -> Scores:
        scores: Scores = {}
        for unfolding in subproblem.unfoldings:
            subblock, number = self.problem.subblocks[unfolding.subblock], unfolding.subblock
            sizes = (
                subblock.unfold(values, unfolding).abs().sort(-1).values
                for values in (self._current[number], self._reference[number])
            )
            _add_products(scores, set(), (unfolding.target, frozenset()), *sizes)
        return scores

    def _reordered(self, number: int, key: tuple[str, Parity], scores: Tensor, rows: Tensor) -> Tensor:
        """Return constant scores with the networks' neurons in their current order, and with their signs."""
        scores = scores if len(rows) == self.n else scores.index_select(0, rows)
        if number not in self._changed:
            return scores
        target, parity = key
        # one matrix for each of the parents, which stay where they are if there are several
        by_parents = (len(rows), scores.shape[1], 1, scores.shape[3])
        index = self.permutations[self._groups[target]][rows].reshape(by_parents) % scores.shape[3]
        scores = scores.gather(3, index.expand(scores.shape))
        for segment in parity:
            scores *= self.signs[segment][rows].reshape(by_parents)
        return scores

    def _apply(self, number: int, rows: Tensor, matching: Matching) -> None:
        changes = matching.changes
        if not changes.any():
            return
        if not changes.all():
            rows, matching = rows[changes], matching.rows(changes)
        changed = rows
        if self.n > len(rows) > self.n / 2:
            # to permute all of them in one go is faster than to pick most of them and put them back
            rows, matching = torch.arange(self.n, device=self.device), matching.expanded(self.n, rows)
        for other in self.problem.coupled[number]:
            self._stale[other, changed] = True
        for i in self.problem.permuted[number]:
            if i in self._current:
                self._current[i] = _replaced(self._current[i], rows, partial(matching, self.problem.subblocks[i]))
        self._changed.add(number)
        self._compose(rows, matching)

    def _compose(self, rows: Tensor, matching: Matching) -> None:
        """Compose a matching with what was done before; what is nested in a neuron goes with it."""
        old: dict[NeuronGroup | Fixed, Tensor] = {}
        for group in self.problem.architecture.groups:
            if group in matching.within or group.parent in old:
                old[group] = self._old(group, matching, old, len(rows))
                self.permutations[group][rows] = self.permutations[group][rows].gather(1, old[group])
        for segment, group in self.problem.wire_segments.items():
            sign = self.signs[segment][rows]
            sign = sign.gather(1, old[group]) if group in old else sign
            self.signs[segment][rows] = sign * matching.signs[segment] if segment in matching.signs else sign

    def _old(self, group: NeuronGroup, matching: Matching, old: dict[NeuronGroup | Fixed, Tensor], n: int) -> Tensor:
        within = matching.within[group] if group in matching.within else stay(group, self._stale).expand(n, -1)
        if group.parent is None:
            return within
        parents = old.get(group.parent, torch.arange(group.parent.total, device=self.device).expand(n, -1))
        return within + group.size * parents.repeat_interleave(group.size, 1)


def _add(
    scores: Scores,
    own: set[tuple[str, Parity]],
    unfolding: Unfolding,
    subblock: Subblock,
    values: Tensor,
    reference: Tensor,
) -> None:
    """Add the inner products of all pairs of neurons; scores whose keys are in `own` may be overwritten."""
    old, new = subblock.unfold(values, unfolding), subblock.unfold(reference, unfolding)
    _add_products(scores, own, (unfolding.target, unfolding.odd), old, new)


def _add_products(
    scores: Scores, own: set[tuple[str, Parity]], key: tuple[str, Parity], old: Tensor, new: Tensor
) -> None:
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


def _replaced(values: Tensor, rows: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return values of which some rows are changed; the given ones may be overwritten."""
    if len(rows) == len(values):
        return change(values)
    return values.index_copy_(0, rows, change(values.index_select(0, rows)))


def _select(reference: Tensor, rows: Tensor) -> Tensor:
    return reference if len(reference) == 1 else reference[rows]
