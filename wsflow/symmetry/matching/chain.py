"""A chain of matchings on data: cheap ones first, then soft permutations where the loss at the midpoint stays high.

For each network, of everything that is tried, the permutation with the lowest loss at the midpoint is kept, not the
nearest one: on narrow networks the nearest weights and the lowest barrier are far apart.

References
----------
Ainsworth et al. 2023, arXiv:2209.04836; Pena et al. 2023, arXiv:2212.12042.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.progress import Progress, stages
from wsflow.running.activation_statistics import has_activations
from wsflow.symmetry.actions import Action
from wsflow.symmetry.batches import replaced
from wsflow.symmetry.matching.activation import activation_matching
from wsflow.symmetry.matching.examples import Examples
from wsflow.symmetry.matching.selection import BestAction
from wsflow.symmetry.matching.sinkhorn import sinkhorn_matching
from wsflow.symmetry.matching.weight import weight_matching

# examples on which permutations are compared
SELECTION = 4096


def best_chain(
    weights: Tensor,
    reference: Tensor,
    architecture: Architecture,
    inputs: Tensor,
    targets: Tensor,
    loss: Any,
    *,
    sample_weight: Tensor | None = None,
    generator: torch.Generator | None = None,
    steps: int = 150,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
) -> Action:
    """Find permutations (and signs) with a low loss at the midpoint.

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
    loss : str or callable
        As of a `Task`.
    sample_weight : Tensor of shape (b,), optional
        Of the examples, with mean 1.
    generator : torch.Generator, optional
        Draws batches and the examples for comparing (default: one with seed 0).
    steps : int
        Of the descent.
    tolerance : float
        An excess of the midpoint's loss that is not worth a descent, as a share of a constant prediction's loss.
    progress : callable, optional
        Called with the steps done and their number, counted for each network.

    References
    ----------
    Ainsworth et al. 2023, arXiv:2209.04836; Pena et al. 2023, arXiv:2212.12042.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.matching import best_chain
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w, X = torch.randn(1, 23, generator=generator), torch.randn(50, 4, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w)
    >>> found = best_chain(moved, w[0], architecture, X, torch.arange(50) % 2, "cross_entropy")
    >>> torch.allclose(found(moved), w)
    True
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    start, descent = stages(progress, len(weights), 4 * len(weights))
    compared = Examples.of(architecture, inputs, targets, loss, sample_weight).draw(SELECTION, generator)
    best = BestAction(weights, reference, architecture, compared)
    best.update(best.action)
    best.update(weight_matching(weights, reference, architecture))
    if has_activations(architecture):
        found = activation_matching(weights, reference, architecture, compared.inputs)
        moved = best.update(found)
        best.update(weight_matching(moved, reference, architecture) @ found)
    if start is not None:
        start(1, 1)
    left = (best.excess > tolerance * compared.constant_loss).cpu()
    if left.any():
        found = sinkhorn_matching(
            weights[left], reference.expand(weights.shape)[left], architecture, (inputs, targets, loss, sample_weight),
            loss="midpoint", generator=generator, start=best.action.rows(left), steps=steps,
            tolerance=tolerance, progress=descent,
        )  # fmt: skip
        best.update(replaced(best.action, left, found))
    return best.action
