"""Straight-through matching: weights that descend on the loss at the midpoint, and the permutation nearest to them.

Let v be weights that start at the reference r. At each step the network w is permuted to the w' nearest to v, and v
descends on L((r + w') / 2) as if the permutation were the identity map.

References
----------
Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, algorithm 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.progress import Progress
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching.examples import Examples
from wsflow.symmetry.matching.selection import BestAction, checkpoints, in_chunks
from wsflow.symmetry.matching.weight import weight_matching

# examples on which permutations are compared
SELECTION = 2048


def straight_through_matching(
    weights: Tensor,
    reference: Tensor,
    architecture: Architecture,
    inputs: Tensor,
    targets: Tensor,
    loss: Any,
    *,
    sample_weight: Tensor | None = None,
    generator: torch.Generator | None = None,
    steps: int = 100,
    learning_rate: float = 0.05,
    batch_size: int = 256,
    max_sweeps: int = 5,
    progress: Progress | None = None,
) -> Action:
    """Find permutations (and signs) that a descent on the loss at the midpoint passes through.

    Of ten permutations along the way, and of staying, it returns the one with the lowest loss at the midpoint, for
    each network.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
        One for all rows, or one for each.
    architecture : Architecture
        One that has layers, or a module.
    inputs : Tensor of shape (b, ...)
    targets : Tensor of shape (b,) or (b, k)
    loss : str or callable
        As of a `Task`.
    sample_weight : Tensor of shape (b,), optional
        Of the examples, with mean 1.
    generator : torch.Generator, optional
        Draws the batches (default: one with seed 0).
    learning_rate : float
        Of Adam, in root mean squares of the reference's weights.
    max_sweeps : int
        Of the weight matching at each step, which starts at the permutation of the step before.
    progress : callable, optional
        Called with the steps done and their number, counted for each network.

    References
    ----------
    Ainsworth et al. 2023, arXiv:2209.04836.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.matching import straight_through_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w, X = torch.randn(1, 23, generator=generator), torch.randn(50, 4, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w)
    >>> y = torch.arange(50) % 2
    >>> found = straight_through_matching(moved, w[0], architecture, X, y, "cross_entropy", steps=10)
    >>> torch.allclose(found(moved), w)
    True
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    examples = Examples.of(architecture, inputs, targets, loss, sample_weight)
    references = reference.expand(weights.shape)

    def descend(rows: Tensor, generator: torch.Generator, progress: Progress | None) -> Action:
        own, aim = weights[rows], references[rows]
        action = Action.identity(architecture, len(own))
        best = BestAction(own, aim, architecture, examples.draw(SELECTION, generator))
        best.update(action)
        # each network descends in its own unit of length
        unit = aim.square().mean(1, keepdim=True).sqrt()
        unit = torch.where(unit > 0, unit, 1.0)
        v = (aim / unit).clone().requires_grad_()
        optimizer = torch.optim.Adam([v], lr=learning_rate)
        for step in range(1, steps + 1):
            moved = action(own)
            action = weight_matching(moved, v.detach() * unit, architecture, max_sweeps) @ action
            moved = action(own).requires_grad_()
            midpoint = examples.draw(batch_size, generator).losses((moved + aim) / 2).sum()
            (v.grad,) = torch.autograd.grad(midpoint, moved)
            optimizer.step()
            if step in checkpoints(steps):
                best.update(action)
            if progress is not None:
                progress(step, steps)
        return best.action

    return in_chunks(weights, architecture, generator, descend, progress)
