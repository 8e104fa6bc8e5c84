"""Pieces of networks that are compared after a scaling, without writing all scaled weights first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from wsflow.symmetry.actions import factors_of
from wsflow.symmetry.places import Piece, Term


@dataclass(frozen=True, eq=False)
class Scaled:
    """A piece of networks with the factors that scale it.

    Parameters
    ----------
    plain : Tensor of shape (n, *extents)
    factors : tuple of Tensor
        Broadcastable to the piece.
    """

    plain: Tensor
    factors: tuple[Tensor, ...]

    @classmethod
    def of(cls, piece: Piece, weights: Tensor, scales: Mapping[str, Tensor]) -> Scaled:
        """A piece of rows of weights, when wires are scaled.

        Parameters
        ----------
        piece : Piece
        weights : Tensor of shape (n, d)
        scales : mapping from str to Tensor of shape (n, total)

        Returns
        -------
        Scaled
        """
        factors = factors_of(piece.block, scales, {}) if scales and piece.block is not None else ()
        return cls(piece.of(weights), tuple(factor.to(weights) for factor in factors))

    def scaled(self) -> Tensor:
        """The scaled piece.

        Returns
        -------
        Tensor of shape (n, *extents)
        """
        return reduce(torch.mul, self.factors, self.plain)

    def copied(self) -> Tensor:
        """The scaled piece, in memory of its own.

        Returns
        -------
        Tensor of shape (n, *extents)
        """
        return self.scaled() if self.factors else self.plain.clone()

    def of_neurons(self, term: Term) -> Tensor | None:
        """The factors of a term's old neurons, as its scores have them, if there are no others.

        Parameters
        ----------
        term : Term

        Returns
        -------
        Tensor of shape (n, 1, 1, neurons), or None
        """
        if len(self.factors) != 1 or term.inner is not None or len(term.order) != self.plain.dim() - 1:
            return None
        (factor,) = self.factors
        if factor.shape[term.axis + 1] * len(factor) != factor.numel() or term.order[0] != term.axis:
            return None
        return factor.reshape(len(factor), 1, 1, -1)
