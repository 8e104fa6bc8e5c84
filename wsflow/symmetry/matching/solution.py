"""Solving a subproblem: the matching of its neurons that maximises their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.activations import PHASE
from wsflow.architecture import NeuronGroup
from wsflow.symmetry.matching.assignment import Parity, Signs, assignment, picked, rounding
from wsflow.symmetry.matching.subblocks import Subblock, WireSegment
from wsflow.symmetry.matching.subproblems import MatchingProblem, Subproblem

# by group and parity, scores (n, parents, neurons, neurons) of new neurons with old ones
Scores = dict[tuple[str, Parity], Tensor]


@dataclass(frozen=True)
class Matching:
    """Which neuron of its (new) parent each new neuron was (n, total), and signs (n, total) by segment of a wire."""

    within: dict[NeuronGroup, Tensor]
    signs: dict[WireSegment, Tensor]

    def rows(self, index: Tensor) -> Matching:
        """Return the matching of the indexed networks."""
        return Matching({k: v[index] for k, v in self.within.items()}, {k: v[index] for k, v in self.signs.items()})

    def expanded(self, n: int, index: Tensor) -> Matching:
        """Return the matching of n networks that is this one for the indexed networks, and the identity for others."""
        within = {group: stay(group, w).repeat(n, 1).index_copy_(0, index, w) for group, w in self.within.items()}
        signs = {segment: s.new_ones(n, s.shape[1]).index_copy_(0, index, s) for segment, s in self.signs.items()}
        return Matching(within, signs)

    @property
    def changes(self) -> Tensor:
        """Which networks (n,) it changes."""
        changed = [(within != stay(group, within)).any(1) for group, within in self.within.items()]
        return torch.stack([*changed, *((sign < 0).any(1) for sign in self.signs.values())]).any(0)

    def __call__(self, subblock: Subblock, values: Tensor) -> Tensor:
        """Permute the values (n, *extents) of a subblock, and change their signs."""
        # parents before what is nested in them, which goes along
        for axis in sorted(range(len(subblock.groups)), key=lambda i: len(subblock.nested_axes(i))):
            group = subblock.groups[axis]
            if group in self.within:
                values = _gathered(values, axis + 1, subblock.broadcastable(self.within[group], axis))
            for segment in subblock.odd[axis] & self.signs.keys():
                values = values * subblock.broadcastable(self.signs[segment], axis)
        return values


def _gathered(values: Tensor, dim: int, index: Tensor) -> Tensor:
    n, size = values.shape[:2]
    if dim > 1 or index.numel() > n * size:
        return values.gather(dim, index.expand(values.shape))
    # whole rows are copied several times faster than single numbers
    flat = index.reshape(n, size) + size * torch.arange(n, device=values.device).unsqueeze(1)
    return values.reshape(n * size, -1).index_select(0, flat.reshape(-1)).reshape(values.shape)


def stay(group: NeuronGroup, like: Tensor) -> Tensor:
    """Return the identity (total,) of a group, each neuron counted within its parent."""
    return torch.arange(group.total, device=like.device) % group.size


def solve(subproblem: Subproblem, scores: Scores, damping: float = 0.0) -> Matching:
    """Return the matching that maximises a subproblem's scores.

    Scores of parents are the sums of their own and of the best matchings of the neurons within. With damping, each
    neuron that stays is worth this share of the largest score.
    """
    n = len(next(iter(scores.values())))
    parents, size = subproblem.group.total // subproblem.group.size, subproblem.group.size
    by_group = {group: _of_group(scores, group.name) for group in (subproblem.group, *subproblem.nested)}
    total, found = torch.zeros(()), {}
    if own := by_group[subproblem.group]:
        total = Signs.of(own).best(own)
    for group in subproblem.nested:
        value, found[group] = _best_within(by_group[group], size, group.size)
        total = total.to(value) + value
    total = total.reshape(n * parents, size, size)
    if damping:
        total = total + damping * total.abs().amax((1, 2), keepdim=True) * torch.eye(size).to(total)
    index = assignment(total).reshape(n, parents, size)
    matching = Matching({subproblem.group: index.reshape(n, -1)}, _signs(own, index) if own else {})
    for group in subproblem.nested:
        chosen = found[group].take_along_dim(index[..., None, None], 3).squeeze(3)
        matching.within[group] = chosen.reshape(n, -1)
        old = (chosen + group.size * index.unsqueeze(-1)).reshape(n, parents, -1)
        matching.signs.update(_signs(by_group[group], old))
    return matching


def _of_group(scores: Scores, name: str) -> dict[Parity, Tensor]:
    return {parity: score for (target, parity), score in scores.items() if target == name}


def _best_within(scores: dict[Parity, Tensor], size: int, inner: int) -> tuple[Tensor, Tensor]:
    """Return for each pair of parents the value of the best matching of the neurons within, and that matching."""
    best = Signs.of(scores).best(scores)
    n, parents = best.shape[:2]
    pairs = best.reshape(n, parents, size, inner, size, inner).transpose(3, 4)
    index = assignment(pairs.reshape(-1, inner, inner)).reshape(pairs.shape[:-1])
    return picked(pairs, index).sum(-1), index


def _signs(scores: dict[Parity, Tensor], old: Tensor) -> dict[WireSegment, Tensor]:
    """Return the best signs of new neurons whose old neurons are known."""
    signs = Signs.of(scores)
    if not (signs.enumerated or signs.separate):
        return {}
    n = len(old)
    margin = torch.stack([rounding(score) for score in scores.values()]).amax(0)
    return signs.choose({parity: picked(score, old).reshape(n, -1) for parity, score in scores.items()}, margin)


def signs_and_phases(
    signs: Mapping[WireSegment, Tensor], problem: MatchingProblem, n: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the scales and the phases (n, total) by wire, 1 or -1 and 0 or 1, of signs (n, neurons) by segment."""
    scales: dict[str, Tensor] = {}
    phases: dict[str, Tensor] = {}
    for segment, sign in signs.items():
        total = problem.architecture.wire(segment.wire).space.total
        neurons = slice(segment.offset, segment.offset + sign.shape[1])
        if segment.kind == PHASE:
            phases.setdefault(segment.wire, torch.zeros(n, total, dtype=torch.long))[:, neurons] = (sign < 0).cpu()
        else:
            scales.setdefault(segment.wire, torch.ones(n, total, dtype=sign.dtype))[:, neurons] = sign.cpu()
    return scales, phases
