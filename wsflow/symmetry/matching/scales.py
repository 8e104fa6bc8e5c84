"""Positive scalings of aligned networks that lower the loss at the midpoint."""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.activations import POSITIVE
from wsflow.architecture import Architecture
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching.examples import Examples
from wsflow.symmetry.matching.selection import BestAction

# examples on which scalings are compared
SELECTION = 4096


def scale_matching(
    weights: Tensor,
    reference: Tensor,
    architecture: Architecture,
    inputs: Tensor,
    targets: Tensor,
    loss: str,
    *,
    generator: torch.Generator | None = None,
    steps: int = 200,
    learning_rate: float = 0.01,
    batch_size: int = 256,
) -> Action:
    """Return positive scalings of aligned networks (n, d) that lower the loss at the midpoint with a reference.

    A network of ReLUs is the same function at any scale of its neurons (Godfrey et al. 2022, arXiv:2205.14258), but its
    average with another one is not. Adam descends on the logarithms of the scales; networks that it does not help keep
    theirs. Batches are drawn by a generator with seed 0 unless one is given.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    examples = Examples.of(architecture, inputs, targets, loss)
    wires = [wire for wire in architecture.wires if POSITIVE in wire.scalings]
    best = BestAction(weights, reference, architecture, examples.draw(SELECTION, generator))
    best.update(best.action)
    if not wires:
        return best.action
    logs = {wire.name: torch.zeros(len(weights), wire.space.total, dtype=weights.dtype) for wire in wires}
    optimizer = torch.optim.Adam([log.requires_grad_() for log in logs.values()], lr=learning_rate)
    for _ in range(steps):
        moved = _scaling(architecture, logs)(weights)
        optimizer.zero_grad()
        torch.autograd.backward(examples.draw(batch_size, generator).losses((moved + reference) / 2).sum())
        optimizer.step()
    best.update(_scaling(architecture, {name: log.detach() for name, log in logs.items()}))
    return best.action


def _scaling(architecture: Architecture, logs: dict[str, Tensor]) -> Action:
    return Action(architecture, {}, {name: log.exp() for name, log in logs.items()})
