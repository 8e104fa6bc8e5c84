"""Invertible matrices between two linear maps: queries with keys, values with outputs, layers without activation.

What produces the k channels of such a wire, M of shape (k, m), and what consumes them, N of shape (k, l), acts by
N^T M only. So A M and A^-T N make the same function for every A of GL(k), of which permutations, scalings and signs are
a small part. With N^T M = U S V^T, the smallest sum of squares is that of

    A M = Q S^(1/2) V^T,    A^-T N = Q S^(1/2) U^T,

for any orthogonal Q; and the Q which brings them nearest to a reference (R, T) is the polar factor of
R (A M)^T + T (A^-T N)^T, the answer to Procrustes' problem. So every network of an orbit gets the same weights.

References
----------
Schoenemann 1966, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31; Gower 1975,
"Generalized Procrustes analysis", Psychometrika 40 (the mean as reference); Zhang et al. 2025, "Beyond the permutation
symmetry of transformers: the role of rotation for model fusion", arXiv:2502.00264.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

# over wires that share weights, as those of a chain of linear layers do
PASSES = 20
# smallest singular value of N^T M, over the largest one, with which matrices other than rotations are chosen
SMALLEST = 1e-6


@dataclass(frozen=True, eq=False)
class LinearWire:
    """A wire whose channels commute with all invertible matrices, for each of its heads.

    Parameters
    ----------
    name, group : str
        Of the wire, and of the group of its channels.
    produced : ndarray of int, shape (heads, k, m)
        Columns of the weights that produce channels.
    consumed : ndarray of int, shape (heads, k, l)
        Columns of those that consume them.
    """

    name: str
    group: str
    produced: np.ndarray
    consumed: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """The number of heads, and of channels in each."""
        heads, channels = self.produced.shape[:2]
        return heads, channels

    def read(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """M (n, heads, k, m) and N (n, heads, k, l) of weights (n, d)."""
        m, n = (weights[:, torch.from_numpy(columns)] for columns in (self.produced, self.consumed))
        return m, n

    def moved(self, weights: Tensor, matrices: Tensor) -> Tensor:
        """Weights (n, d) with A M and A^-T N, for matrices A (n, heads, k, k) of the same dtype."""
        m, n = self.read(weights)
        moved = weights.clone()
        moved[:, torch.from_numpy(self.produced)] = matrices @ m
        moved[:, torch.from_numpy(self.consumed)] = torch.linalg.solve(matrices.mT, n)
        return moved


def nearest(m: Tensor, n: Tensor, reference: tuple[Tensor, Tensor]) -> Tensor:
    """The matrices A (..., k, k) that balance M (..., k, m) and N (..., k, l), and bring them nearest to a reference.

    Where N^T M has not the rank k, up to rounding, A is a rotation.
    """
    balance = balancing(m, n)
    r, t = reference
    towards = r @ (balance @ m).mT + t @ torch.linalg.solve(balance.mT, n).mT
    u, _, vh = torch.linalg.svd(towards)
    return u @ vh @ balance


def balancing(m: Tensor, n: Tensor) -> Tensor:
    """The matrices A (..., k, k) with the smallest sum of squares of A M and A^-T N, up to rotations of both."""
    # N^T M = Q_n (R_n R_m^T) Q_m^T: of these only the middle has k rows
    r_m, r_n = (torch.linalg.qr(x.mT, mode="r").R for x in (m, n))
    identity = torch.eye(m.shape[-2], dtype=m.dtype, device=m.device).expand(*m.shape[:-1], m.shape[-2])
    if min(r_m.shape[-2], r_n.shape[-2]) < m.shape[-2]:
        return identity
    _, s, vh = torch.linalg.svd(r_n @ r_m.mT)
    regular = (s[..., -1:] > SMALLEST * s[..., :1]).unsqueeze(-1)
    triangle = torch.where(regular, r_m, identity).mT
    found = torch.linalg.solve_triangular(triangle, s.sqrt().unsqueeze(-1) * vh, upper=False, left=False)
    return torch.where(regular, found, identity)


@dataclass(frozen=True, eq=False)
class InvertibleAction:
    """One invertible matrix for each head of a wire, for each of n networks.

    Parameters
    ----------
    wires : sequence of LinearWire
    matrices : dict from str to Tensor of shape (n, heads, k, k)
        By name of the wire, in float64.
    """

    wires: Sequence[LinearWire]
    matrices: Mapping[str, Tensor]

    @classmethod
    def towards(cls, weights: Tensor, wires: Sequence[LinearWire], reference: Tensor) -> InvertibleAction:
        """The matrices that balance weights (n, d), in float64, and bring them nearest to a reference (d,)."""
        matrices: dict[str, Tensor] = {}
        for _ in range(PASSES if _share_weights(wires) else 1):
            for wire in wires:
                found = nearest(*wire.read(weights), wire.read(reference.unsqueeze(0)))
                weights = wire.moved(weights, found)
                matrices[wire.name] = found @ matrices[wire.name] if wire.name in matrices else found
        return cls(wires, matrices)

    @classmethod
    def concatenated(cls, actions: Sequence[InvertibleAction]) -> InvertibleAction:
        """The matrices of several actions, one after the other."""
        first = actions[0]
        names = first.matrices
        return cls(first.wires, {name: torch.cat([action.matrices[name] for action in actions]) for name in names})

    def __call__(self, weights: Any) -> Any:
        """Move weights, a tensor or an array (n, d), within their orbits; computed in float64."""
        if not isinstance(weights, Tensor):
            return self(torch.from_numpy(np.array(weights))).numpy()
        moved = reduce(lambda rows, wire: wire.moved(rows, self.matrices[wire.name]), self.wires, weights.double())
        return moved.to(weights.dtype)

    def inverse(self) -> InvertibleAction:
        """The action that undoes this one."""
        return InvertibleAction(self.wires, {name: torch.linalg.inv(found) for name, found in self.matrices.items()})

    def rows(self, index: Any) -> InvertibleAction:
        """The matrices of the indexed networks."""
        return InvertibleAction(self.wires, {name: found[index] for name, found in self.matrices.items()})


def _share_weights(wires: Sequence[LinearWire]) -> bool:
    columns = [np.concatenate([wire.produced.reshape(-1), wire.consumed.reshape(-1)]) for wire in wires]
    together = np.concatenate(columns) if columns else np.empty(0)
    return len(np.unique(together)) < len(together)
