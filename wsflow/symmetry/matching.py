"""Weight matching: permutations and signs that bring networks close to a reference.

Coordinate ascent on sum_k <r_k, (g.w)_k> over one neuron group at a time; each step is a linear assignment
problem, and the objective never falls.

References
----------
Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, algorithm 1.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from wsflow.activations import SIGN
from wsflow.architecture import Architecture, NeuronGroup
from wsflow.symmetry.actions import Action


def weight_matching(
    weights: Tensor, reference: Tensor, architecture: Architecture, max_sweeps: int = 50
) -> Action:
    """Permutations (and signs, where activations are odd) that bring each row close to its reference.

    It compares what it is given: give it canonical weights, or scalings will decide. Nested
    groups keep their order within their parents.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
        One for all rows, or one for each.
    architecture : Architecture
    max_sweeps : int
        At most so many passes over all groups; a row stops when a pass changes nothing.

    Returns
    -------
    Action

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.matching import weight_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w = torch.randn(1, 23, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w)
    >>> torch.allclose(weight_matching(moved, w[0], architecture)(moved), w)
    True
    """
    groups = [group for group in architecture.groups if group.parent is None]
    reference = reference.expand(weights.shape)
    action = Action(
        architecture,
        {g.name: torch.arange(g.total).repeat(len(weights), 1) for g in groups},
        {
            w.name: torch.ones(len(weights), w.space.total, dtype=weights.dtype)
            for w in architecture.wires
            if _signed(architecture, w.space) == w.name
        },
    )
    active = torch.arange(len(weights))
    moved = weights.clone()
    for _ in range(max_sweeps):
        changed = torch.zeros(len(active), dtype=torch.bool)
        for group in groups:
            step = _best(moved[active], reference[active], architecture, group)
            changed |= _differs(step)
            moved[active] = step(moved[active])
            _assign(action, active, step @ action.rows(active))
        active = active[changed]
        if not len(active):
            break
    return action


def _signed(architecture: Architecture, space: object) -> str | None:
    """The wire on this space that may be flipped."""
    names = [w.name for w in architecture.wires if w.space == space and SIGN in w.scalings]
    return names[0] if names else None


def _best(weights: Tensor, reference: Tensor, architecture: Architecture, group: NeuronGroup) -> Action:
    """The best permutation and signs of one group while all others stay."""
    wire = _signed(architecture, group)
    even, odd = similarity(weights, reference, architecture, group, wire)
    # a flip changes the sign of what is odd in it: the best sign of a pair gives even + |odd|
    index = assignment(even + odd.abs() if wire else even + odd)
    permutations = {group.name: index}
    if wire is None:
        return Action(architecture, permutations, {})
    chosen = odd.gather(2, index.unsqueeze(-1)).squeeze(-1)
    return Action(architecture, permutations, {wire: torch.where(chosen < 0, -1.0, 1.0).to(weights)})


def similarity(
    weights: Tensor, reference: Tensor, architecture: Architecture, group: NeuronGroup, wire: str | None = None
) -> tuple[Tensor, Tensor]:
    """Inner products between the weights of reference neuron i and of neuron j.

    Parameters
    ----------
    weights, reference : Tensor of shape (n, d)
    architecture : Architecture
    group : NeuronGroup
    wire : str, optional
        The wire whose signs may flip.

    Returns
    -------
    even, odd : Tensor of shape (n, size, size)
        From the blocks that a flip of the wire leaves alone, and from those that it flips.
    """
    even = weights.new_zeros(len(weights), group.size, group.size)
    odd = torch.zeros_like(even)
    for _, block, columns in architecture.blocks:
        for axis, space in enumerate(block.axes):
            if space != group:
                continue
            index = torch.from_numpy(np.moveaxis(columns, axis, 0).reshape(group.size, -1))
            product = torch.bmm(reference[:, index], weights[:, index].transpose(1, 2))
            flips = sum(e for name, on, e in block.wires if name == wire and on == axis) % 2
            (odd if flips else even).add_(product)
    return even, odd


def assignment(scores: Tensor) -> Tensor:
    """The permutations that maximise sum_i scores[i, p(i)]; among equals the one that stays nearest to the identity.

    Parameters
    ----------
    scores : Tensor of shape (n, size, size)

    Returns
    -------
    LongTensor of shape (n, size)

    Raises
    ------
    ValueError
        If a score is not finite.
    """
    values = scores.double().cpu().numpy()
    columns = [linear_sum_assignment(value, maximize=True)[1] for value in values]
    found = torch.from_numpy(np.stack(columns)) if columns else torch.empty(scores.shape[:2], dtype=torch.long)
    stay = torch.arange(scores.shape[1]).expand_as(found)
    gain = _value(scores, found) - _value(scores, stay)
    # equal neurons may be exchanged for ever otherwise: move only for a gain beyond rounding
    tolerance = 16 * torch.finfo(scores.dtype).eps * scores.abs().amax((1, 2)) * scores.shape[1]
    return torch.where((gain > tolerance).unsqueeze(1), found, stay)


def _value(scores: Tensor, index: Tensor) -> Tensor:
    return scores.gather(2, index.to(scores.device).unsqueeze(-1)).sum((1, 2)).cpu()


def _differs(step: Action) -> Tensor:
    moved = [(p != torch.arange(p.shape[1])).any(1) for p in step.permutations.values()]
    flipped = [(s < 0).any(1) for s in step.scales.values()]
    return torch.stack([*moved, *flipped]).any(0)


def _assign(action: Action, rows: Tensor, new: Action) -> None:
    for name, p in new.permutations.items():
        action.permutations[name][rows] = p
    for name, s in new.scales.items():
        action.scales[name][rows] = s
