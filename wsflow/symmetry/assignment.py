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

from wsflow.symmetry.places import SignedPart

Parity = frozenset[SignedPart]


def assignment(scores: Tensor) -> Tensor:
    """The permutations that maximise sum_i scores[i, p(i)]; among equals the one that stays nearest to the identity.

    Parameters
    ----------
    scores : Tensor of shape (n, size, size)

    Returns
    -------
    LongTensor of shape (n, size)
        Where the scores are.

    Raises
    ------
    ValueError
        If a score is not finite.

    Examples
    --------
    >>> import torch
    >>> from wsflow.symmetry.assignment import assignment
    >>> assignment(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]])).tolist()
    [[1, 0]]
    """
    n, size = scores.shape[:2]
    margin = rounding(scores)
    stay = torch.arange(size, device=scores.device).expand(n, size)
    if size < 2 or not n:
        return stay.clone()
    # what an old neuron costs against its best place: the same problem, and solved a fifth faster
    costs = (scores.amax(1, keepdim=True) - scores).detach().to("cpu", torch.float64)
    # equal neurons may be exchanged for ever otherwise: staying is worth a little, moving must gain more than rounding
    costs.diagonal(dim1=1, dim2=2).sub_(margin.to(costs).unsqueeze(1))
    columns = [linear_sum_assignment(cost)[1] for cost in costs.contiguous().numpy()]
    found = torch.from_numpy(np.stack(columns)).to(scores.device)
    gain = (picked(scores, found) - scores.diagonal(dim1=1, dim2=2)).sum(1)
    return torch.where((gain > margin * size).unsqueeze(1), found, stay)


def rounding(scores: Tensor) -> Tensor:
    """What differences of scores mean nothing: some units in the last place of a typical row's norm.

    Parameters
    ----------
    scores : Tensor of shape (n, ..., size)

    Returns
    -------
    Tensor of shape (n,)
    """
    size = scores.shape[-1]
    return 16 * torch.finfo(scores.dtype).eps * torch.linalg.vector_norm(scores.flatten(1), dim=1) / size**0.5


def picked(scores: Tensor, index: Tensor) -> Tensor:
    """The scores of the pairs that a permutation makes.

    Parameters
    ----------
    scores : Tensor of shape (..., size, size)
    index : LongTensor of shape (..., size)

    Returns
    -------
    Tensor of shape (..., size)
    """
    return scores.gather(-1, index.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Signs:
    """The sign wires of one group: the best of all sign patterns, for each pair of neurons.

    Scores come by parity: a set of wires such that a flip of one of them changes the scores' sign. A wire that shares
    no set with another adds |scores|; the others, a cover of those that share one, are tried out.

    Parameters
    ----------
    tried : tuple of (str, int)
    alone : tuple of (str, int)

    Examples
    --------
    >>> import torch
    >>> from wsflow.symmetry.assignment import Signs
    >>> even, odd = frozenset(), frozenset({("wire", 0)})
    >>> Signs.of([even, odd]).best({even: torch.tensor([1.0]), odd: torch.tensor([-2.0])})
    tensor([3.])
    """

    tried: tuple[SignedPart, ...]
    alone: tuple[SignedPart, ...]

    @classmethod
    def of(cls, parities: Collection[Parity]) -> Signs:
        """For scores of these parities.

        Parameters
        ----------
        parities : collection of frozenset of (str, int)

        Returns
        -------
        Signs
        """
        wires = sorted(set().union(*parities))
        tried: list[SignedPart] = []
        while shared := [left for parity in parities if len(left := parity - set(tried)) > 1]:
            tried.append(max(wires, key=lambda wire: sum(wire in left for left in shared)))
        return cls(tuple(tried), tuple(wire for wire in wires if wire not in tried))

    def best(self, scores: Mapping[Parity, Tensor]) -> Tensor:
        """The scores of the best signs.

        Parameters
        ----------
        scores : mapping from parity to Tensor

        Returns
        -------
        Tensor of the same shape
        """
        if not (self.tried or self.alone):
            return reduce(torch.add, scores.values())
        values = (sum((part.abs() for part in odd.values()), start=even) for _, even, odd in self._patterns(scores))
        return reduce(torch.maximum, values)

    def choose(self, scores: Mapping[Parity, Tensor], margin: Tensor) -> dict[SignedPart, Tensor]:
        """The best signs; no flip gains less than a margin.

        Parameters
        ----------
        scores : mapping from parity to Tensor of shape (n, neurons)
        margin : Tensor of shape (n,)

        Returns
        -------
        dict from (str, int) to Tensor of shape (n, neurons)
            1 or -1.
        """
        best, chosen = None, {}
        for pattern, even, odd in self._patterns(scores):
            flips = {wire: torch.where(odd[wire] < -margin.unsqueeze(1), -1.0, 1.0).to(even) for wire in self.alone}
            value = sum((odd[wire] * flips[wire] for wire in self.alone), start=even)
            signs = {**{w: torch.full_like(even, s) for w, s in pattern.items()}, **flips}
            if best is None:
                best, chosen = value, signs
                continue
            better = value > best + margin.unsqueeze(1)
            best = torch.where(better, value, best)
            chosen = {wire: torch.where(better, signs[wire], chosen[wire]) for wire in signs}
        return chosen

    def _patterns(
        self, scores: Mapping[Parity, Tensor]
    ) -> Iterator[tuple[dict[SignedPart, float], Tensor, dict[SignedPart, Tensor]]]:
        """For each pattern of the tried wires: it, what no other sign changes, and what each lone wire's sign turns."""
        zero = torch.zeros_like(next(iter(scores.values())))
        for values in product((1.0, -1.0), repeat=len(self.tried)):
            pattern = dict(zip(self.tried, values, strict=True))
            even, odd = zero, dict.fromkeys(self.alone, zero)
            for parity, score in scores.items():
                signed = score if sum(pattern.get(wire, 1.0) < 0 for wire in parity) % 2 == 0 else -score
                lone = next((wire for wire in parity if wire in odd), None)
                if lone is None:
                    even = even + signed
                else:
                    odd[lone] = odd[lone] + signed
            yield pattern, even, odd
