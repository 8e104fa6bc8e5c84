"""Linear assignment problems in batches, and the best signs for each pair of neurons.

References
----------
Crouse 2016, "On implementing 2D rectangular assignment algorithms", IEEE TAES 52(4): the algorithm in scipy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from wsflow.symmetry.matching.subblocks import WireSegment

# the segments of wires that change the sign of a score
Parity = frozenset[WireSegment]


def assignment(scores: Tensor) -> Tensor:
    """Return the permutations p (n, size) that maximise sum_i scores[i, p(i)] for scores (n, size, size).

    Among equals it is the one that stays nearest to the identity. Scores that are not finite raise a ValueError.
    """
    n, size = scores.shape[:2]
    margin = rounding(scores)
    identity = torch.arange(size, device=scores.device).expand(n, size)
    if size < 2 or not n:
        return identity.clone()
    # what an old neuron costs against its best place: the same problem, and solved a fifth faster
    costs = (scores.amax(1, keepdim=True) - scores).detach().to("cpu", torch.float64)
    # equal neurons may be exchanged for ever otherwise: staying is worth a little, moving must gain more than rounding
    costs.diagonal(dim1=1, dim2=2).sub_(margin.to(costs).unsqueeze(1))
    columns = [linear_sum_assignment(cost)[1] for cost in costs.contiguous().numpy()]
    found = torch.from_numpy(np.stack(columns)).to(scores.device)
    gain = (picked(scores, found) - scores.diagonal(dim1=1, dim2=2)).sum(1)
    return torch.where((gain > margin * size).unsqueeze(1), found, identity)


def rounding(scores: Tensor) -> Tensor:
    """Return bounds (n,) on rounding errors: some units in the last place of the norm of a row of (n, ..., size)."""
    size, rows = scores.shape[-1], scores.flatten(1)
    norm = torch.linalg.vector_norm(rows, dim=1)
    if not norm.isfinite().all() and rows.isfinite().all():
        # squares of such scores leave the range of numbers
        largest = rows.abs().amax(1, keepdim=True)
        norm = largest[:, 0] * torch.linalg.vector_norm(rows / largest.clamp_min(1), dim=1)
    return 16 * torch.finfo(scores.dtype).eps * norm / size**0.5


def picked(scores: Tensor, index: Tensor) -> Tensor:
    """Return the scores (..., size) at the pairs of a permutation (..., size)."""
    return scores.gather(-1, index.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Signs:
    """The best of all signs for each pair of neurons, given the scores by parity.

    A score changes its sign with each segment of its parity. A segment that shares no parity with another one adds
    |score| and is `separate`; the signs of the others, a cover of the parities that are shared, are `enumerated`.
    """

    enumerated: tuple[WireSegment, ...]
    separate: tuple[WireSegment, ...]

    @classmethod
    def of(cls, parities: Collection[Parity]) -> Signs:
        """Return the signs of these parities, with a greedy cover."""
        segments = sorted(set().union(*parities))
        enumerated: list[WireSegment] = []
        while shared := [left for parity in parities if len(left := parity - set(enumerated)) > 1]:
            enumerated.append(max(segments, key=lambda segment: sum(segment in left for left in shared)))
        return cls(tuple(enumerated), tuple(segment for segment in segments if segment not in enumerated))

    def best(self, scores: Mapping[Parity, Tensor]) -> Tensor:
        """Return the scores with the best signs, in the shape of one of them."""
        if not (self.enumerated or self.separate):
            return reduce(torch.add, scores.values())
        values = (sum((part.abs() for part in odd.values()), start=even) for _, even, odd in self._patterns(scores))
        return reduce(torch.maximum, values)

    def choose(self, scores: Mapping[Parity, Tensor], margin: Tensor) -> dict[WireSegment, Tensor]:
        """Return the best signs (n, neurons) for scores (n, neurons); a sign of -1 gains more than the margin (n,)."""
        best, chosen = None, {}
        for pattern, even, odd in self._patterns(scores):
            flips = {w: torch.where(odd[w] < -margin.unsqueeze(1), -1.0, 1.0).to(even) for w in self.separate}
            value = sum((odd[segment] * flips[segment] for segment in self.separate), start=even)
            signs = {**{w: torch.full_like(even, s) for w, s in pattern.items()}, **flips}
            if best is None:
                best, chosen = value, signs
                continue
            better = value > best + margin.unsqueeze(1)
            best = torch.where(better, value, best)
            chosen = {segment: torch.where(better, signs[segment], chosen[segment]) for segment in signs}
        return chosen

    def _patterns(
        self, scores: Mapping[Parity, Tensor]
    ) -> Iterator[tuple[dict[WireSegment, float], Tensor, dict[WireSegment, Tensor]]]:
        """Yield each pattern of enumerated signs, the score without other signs, and that of each separate one."""
        zero = torch.zeros_like(next(iter(scores.values())))
        for values in product((1.0, -1.0), repeat=len(self.enumerated)):
            pattern = dict(zip(self.enumerated, values, strict=True))
            even, odd = zero, dict.fromkeys(self.separate, zero)
            for parity, score in scores.items():
                signed = score if sum(pattern.get(segment, 1.0) < 0 for segment in parity) % 2 == 0 else -score
                separate = next((segment for segment in parity if segment in odd), None)
                if separate is None:
                    even = even + signed
                else:
                    odd[separate] = odd[separate] + signed
            yield pattern, even, odd
