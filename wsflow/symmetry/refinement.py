"""The best alignment that data can buy: cheap matchings first, then soft permutations where they are worth it.

For each network, of everything that is tried, the permutation with the lowest loss at the midpoint is kept, not the
nearest one: on narrow networks the nearest weights and the lowest barrier are far apart.

References
----------
Ainsworth et al. 2023, arXiv:2209.04836; Pena et al. 2023, arXiv:2212.12042.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.activations import POSITIVE
from wsflow.architecture import Architecture
from wsflow.running.activation_statistics import has_activations
from wsflow.symmetry.actions import Action
from wsflow.symmetry.activation_matching import activation_matching
from wsflow.symmetry.choice import Best, replaced
from wsflow.symmetry.examples import Examples
from wsflow.symmetry.matching import weight_matching
from wsflow.symmetry.sinkhorn_matching import sinkhorn_matching

SELECTION = 4096


def best_chain(
    weights: Tensor,
    reference: Tensor,
    architecture: Architecture,
    inputs: Tensor,
    targets: Tensor,
    loss: str,
    *,
    generator: torch.Generator | None = None,
    steps: int = 150,
    tolerance: float = 1e-3,
) -> Action:
    """Permutations (and signs) with a low loss at the midpoint.

    It tries the networks as they are, weight matching, activation matching, and weight matching from there. Networks
    whose midpoint is then clearly worse than the mean of the two ends descend on the loss at the midpoint by Sinkhorn
    re-basin, from the correlations of activations.

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
        Draws batches and the examples for comparing (default: one with seed 0).
    steps : int
        Of the descent.
    tolerance : float
        An excess of the midpoint's loss that is not worth a descent, in parts of a constant prediction's loss.

    Returns
    -------
    Action

    References
    ----------
    Ainsworth et al. 2023, arXiv:2209.04836; Pena et al. 2023, arXiv:2212.12042.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.refinement import best_chain
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w, X = torch.randn(1, 23, generator=generator), torch.randn(50, 4, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w)
    >>> found = best_chain(moved, w[0], architecture, X, torch.arange(50) % 2, "cross_entropy")
    >>> torch.allclose(found(moved), w)
    True
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    examples = Examples.of(architecture, inputs, targets, loss)
    judge = examples.draw(SELECTION, generator)
    best = Best(weights, reference, architecture, judge)
    best.offer(best.action)
    best.offer(weight_matching(weights, reference, architecture))
    if has_activations(architecture):
        found = activation_matching(weights, reference, architecture, judge.inputs)
        moved = best.offer(found)
        best.offer(weight_matching(moved, reference, architecture) @ found)
    left = (best.excess > tolerance * judge.trivial).cpu()
    if left.any():
        found = sinkhorn_matching(
            weights[left], reference.expand(weights.shape)[left], architecture, (inputs, targets, loss),
            loss="midpoint", generator=generator, start=best.action.rows(left), steps=steps,
            tolerance=tolerance,
        )  # fmt: skip
        best.offer(replaced(best.action, left, found))
    return best.action


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
    """Positive scalings of networks that lower the loss at the midpoint, permutations as they are.

    A network of ReLUs is the same function at any scale of its neurons, but its average with another one is not.
    Networks for which the scalings found do not help keep theirs.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
        Aligned before.
    reference : Tensor of shape (d,) or (n, d)
    architecture : Architecture
        One that has layers, or a module.
    inputs : Tensor of shape (b, ...)
    targets : Tensor of shape (b,) or (b, k)
    loss : {"cross_entropy", "mse"}
    generator : torch.Generator, optional
        Draws the batches (default: one with seed 0).
    steps : int
    learning_rate : float
        Of Adam, on the logarithms of the scales.
    batch_size : int

    Returns
    -------
    Action

    References
    ----------
    Godfrey et al. 2022, arXiv:2205.14258, for the group.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.refinement import scale_matching
    >>> w, X = torch.randn(2, 23, generator=torch.Generator().manual_seed(0)), torch.eye(4)
    >>> y = torch.tensor([0, 1, 0, 1])
    >>> action = scale_matching(w[1:], w[0], Architecture.mlp([4, 3, 2]), X, y, "cross_entropy", steps=20)
    >>> bool((action.scales["hidden1"] > 0).all())
    True
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    examples = Examples.of(architecture, inputs, targets, loss)
    wires = [wire for wire in architecture.wires if POSITIVE in wire.scalings]
    best = Best(weights, reference, architecture, examples.draw(SELECTION, generator))
    best.offer(best.action)
    if not wires:
        return best.action
    logs = {wire.name: torch.zeros(len(weights), wire.space.total, dtype=weights.dtype) for wire in wires}
    optimizer = torch.optim.Adam([log.requires_grad_() for log in logs.values()], lr=learning_rate)
    for _ in range(steps):
        moved = _scaled(architecture, logs)(weights)
        optimizer.zero_grad()
        torch.autograd.backward(examples.draw(batch_size, generator).losses((moved + reference) / 2).sum())
        optimizer.step()
    best.offer(_scaled(architecture, {name: log.detach() for name, log in logs.items()}))
    return best.action


def _scaled(architecture: Architecture, logs: dict[str, Tensor]) -> Action:
    return Action(architecture, {}, {name: log.exp() for name, log in logs.items()})
