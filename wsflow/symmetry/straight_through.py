"""Straight-through matching: weights that descend on the loss at the midpoint, and the permutation nearest to them.

Let v be weights that start at the reference r. At each step the network w is permuted to the w' nearest to v, and v
descends on L((r + w') / 2) as if the permutation were the identity map.

References
----------
Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, algorithm 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.symmetry.actions import Action
from wsflow.symmetry.choice import Best, concatenated
from wsflow.symmetry.examples import Examples, rows_at_once
from wsflow.symmetry.matching import weight_matching

CHECKS = 10
SELECTION = 2048


def straight_through_matching(
    weights: Tensor,
    reference: Tensor,
    architecture: Architecture,
    inputs: Tensor,
    targets: Tensor,
    loss: str,
    *,
    generator: torch.Generator | None = None,
    steps: int = 100,
    learning_rate: float = 0.05,
    batch_size: int = 256,
    max_sweeps: int = 5,
) -> Action:
    """Permutations (and signs) that a descent on the loss at the midpoint passes through.

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
    loss : {"cross_entropy", "mse"}
    generator : torch.Generator, optional
        Draws the batches (default: one with seed 0).
    steps : int
    learning_rate : float
        Of Adam, in root mean squares of the reference's weights.
    batch_size : int
    max_sweeps : int
        Of the weight matching at each step, which starts at the permutation of the step before.

    Returns
    -------
    Action

    References
    ----------
    Ainsworth et al. 2023, arXiv:2209.04836.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.straight_through import straight_through_matching
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
    examples = Examples.of(architecture, inputs, targets, loss)
    goal = reference.expand(weights.shape)
    seed = int(torch.randint(2**62, (), generator=generator))
    found = [
        _descend(weights[i], goal[i], examples, steps, learning_rate, batch_size, max_sweeps, seed)
        for i in torch.arange(len(weights)).split(rows_at_once(weights))
    ]
    return concatenated(architecture, found)


def _descend(
    weights: Tensor,
    reference: Tensor,
    examples: Examples,
    steps: int,
    learning_rate: float,
    batch_size: int,
    max_sweeps: int,
    seed: int,
) -> Action:
    architecture, generator = examples.architecture, torch.Generator().manual_seed(seed)
    judge = examples.draw(SELECTION, generator)
    action = Action.identity(architecture, len(weights))
    best = Best(weights, reference, architecture, judge)
    best.offer(action)
    # each network descends in its own unit of length
    unit = reference.square().mean(1, keepdim=True).sqrt()
    unit = torch.where(unit > 0, unit, 1.0)
    guide = (reference / unit).clone().requires_grad_()
    optimizer = torch.optim.Adam([guide], lr=learning_rate)
    checks = {round(steps * (i + 1) / CHECKS) for i in range(CHECKS)}
    for step in range(1, steps + 1):
        moved = action(weights)
        action = weight_matching(moved, guide.detach() * unit, architecture, max_sweeps) @ action
        moved = action(weights).requires_grad_()
        midpoint = examples.draw(batch_size, generator).losses((moved + reference) / 2).sum()
        (guide.grad,) = torch.autograd.grad(midpoint, moved)
        optimizer.step()
        if step in checks:
            best.offer(action)
    return best.action
