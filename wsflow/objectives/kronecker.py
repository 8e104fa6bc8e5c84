"""Kronecker factors of the curvature of linear layers and convolutions, for n networks at once.

A convolution is a linear layer on patches, one for each position of its output, and a layer that is applied to tokens
or pixels, or several times, has a row for each. K-FAC's expansion takes these rows to be independent: with inputs a
and propagated curvatures g at T positions the block of a layer is E[sum_t a_t a_t^T] x E[1/T sum_t g_t g_t^T].

References
----------
Martens and Grosse 2015, arXiv:1503.05671 (the factors, and how damping is split between them); Grosse and Martens 2016,
arXiv:1602.01407 (convolutions); Eschenhagen, Immer, Turner, Schneider and Hennig 2023, arXiv:2311.00636 (layers that
share weights: "expand").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wsflow.running.affine import Affine

MEMORY = 0.95  # of the running averages of the factors


class KroneckerFactors:
    """The factors of one layer, as averages over minibatches: `into` of what comes in, `back` of what is propagated.

    Both have the shape (n, groups, size, size); `into` has a row for the bias, where there is one. A layer whose inputs
    do not depend on weights is given the eigenvalues and eigenvectors of its `into` once, (1, groups, ...).
    """

    def __init__(self, layer: Affine, spectrum: tuple[Tensor, Tensor] | None = None) -> None:
        self.layer, self.spectrum = layer, spectrum
        self.into: Tensor | None = None
        self.back: Tensor | None = None

    def observe_into(self, inputs: Sequence[Tensor], weight: Sequence[int], share: Tensor | None) -> None:
        """Add a minibatch of what comes in (n, b, ...), one tensor for each use; weights (b,) are of the examples."""
        if self.spectrum is None:
            self.into = _averaged(self.into, input_moment(self.layer, inputs, weight, share))

    def observe_back(self, back: Tensor) -> None:
        """Add the second moment (n, groups, q, q) of a minibatch."""
        self.back = _averaged(self.back, back)

    def precondition(self, gradient: Tensor, bias: Tensor | None, damping: float) -> tuple[Tensor, Tensor | None]:
        """G^-1 D A^-1 for gradients D of weights (n, q, ...), with those of biases (n, q) as a last column."""
        assert self.back is not None
        spectrum = torch.linalg.eigh(self.into) if self.spectrum is None else self.spectrum
        values, vectors = (m.to(self.back) for m in spectrum)
        n, groups, q = self.back.shape[:3]
        rows = gradient.reshape(n, groups, q, -1)
        if bias is not None:
            rows = torch.cat([rows, bias.reshape(n, groups, q, 1)], -1)
        share = (values.mean(-1) / self.back.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-8)).sqrt()
        root = damping**0.5
        left = self.back + torch.diag_embed((root / share).unsqueeze(-1).expand(-1, -1, q))
        half = torch.linalg.solve(left, rows)
        spread = values.clamp_min(0) + (root * share).unsqueeze(-1)
        natural = (half @ vectors / spread.unsqueeze(-2)) @ vectors.transpose(-2, -1)
        if bias is None:
            return natural.reshape(gradient.shape), None
        return natural[..., :-1].reshape(gradient.shape), natural[..., -1].reshape(bias.shape)


def input_moment(layer: Affine, inputs: Sequence[Tensor], weight: Sequence[int], share: Tensor | None = None) -> Tensor:
    """E[sum_t a_t a_t^T] (n, groups, p, p) of what goes into a layer, with a constant 1 for the bias.

    Patches are written for one network at a time.
    """
    total: Any = 0
    for x in inputs:
        parts = x.split(1) if layer.spatial else (x,)
        found = []
        for part in parts:
            rows = layer.input_rows(part, weight)
            if layer.bias is not None:
                rows = torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], -1)
            found.append(_second_moment(rows, x.shape[1], share))
        total = total + torch.cat(found)
    return total


def output_moment(layer: Affine, gradients: Sequence[Tensor], share: Tensor | None = None) -> Tensor:
    """E[1/T sum_t g_t g_t^T] (n, groups, q, q) of what is propagated to a layer, (n, b, ...) for each use."""
    rows = [layer.output_rows(g) for g in gradients]
    positions = sum(x.shape[2] // g.shape[1] for x, g in zip(rows, gradients, strict=True))
    counts = [g.shape[1] * positions for g in gradients]
    return sum(_second_moment(x, count, share) for x, count in zip(rows, counts, strict=True))  # type: ignore[return-value]


def _second_moment(rows: Tensor, count: int, share: Tensor | None) -> Tensor:
    """Sums of a a^T over rows (n, groups, r, p), over a count; weights (b,) of examples have the mean 1."""
    weighted = rows
    if share is not None:
        weighted = rows * share.to(rows).repeat_interleave(rows.shape[2] // len(share)).unsqueeze(-1)
    return rows.transpose(-2, -1) @ weighted / count


def _averaged(before: Tensor | None, now: Tensor) -> Tensor:
    return now if before is None else MEMORY * before + (1 - MEMORY) * now
