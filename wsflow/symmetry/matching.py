"""Weight matching: permutations and signs that bring networks close to a reference.

Coordinate ascent on sum_k <r_k, (g.w)_k> over one neuron group at a time; each step is a linear assignment
problem, and the objective never falls.

References
----------
Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from wsflow.activations import SIGN
from wsflow.architecture import Architecture, NeuronGroup
from wsflow.architecture.spaces import groups_of
from wsflow.networks import take
from wsflow.symmetry.actions import Action


def weight_matching(weights: Tensor, reference: Tensor, architecture: Architecture, max_sweeps: int = 50) -> Action:
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
    groups = [GroupPlaces.of(architecture, group) for group in architecture.groups if group.parent is None]
    reference = reference.expand(weights.shape)
    action = Action(
        architecture,
        {g.name: torch.arange(g.size).repeat(len(weights), 1) for g in groups},
        {g.wire: weights.new_ones(len(weights), g.size) for g in groups if g.wire},
    )
    active = torch.arange(len(weights))
    moved = weights.clone()
    for _ in range(max_sweeps):
        changed = torch.zeros(len(active), dtype=torch.bool)
        rows, goal = moved[active], reference[active]
        for group in groups:
            index, sign = group.best(rows, goal)
            changed |= (index != torch.arange(group.size)).any(1) | (sign < 0).any(1)
            group.move(rows, index, sign)
            action.permutations[group.name][active] = action.permutations[group.name][active].gather(1, index)
            if group.wire:
                action.scales[group.wire][active] = sign * action.scales[group.wire][active].gather(1, index)
        moved[active] = rows
        active = active[changed]
        if not len(active):
            break
    return action


def layer_matching(weights: Tensor, reference: Tensor, architecture: Architecture) -> Action:
    """Match one neuron group after the other, looking only at weights between groups that have been reached.

    What it finds does not depend on the order in which a row's neurons come, so coordinate ascent that starts
    from it sends a whole orbit to one point; from the identity, members of an orbit end at different local maxima.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    architecture : Architecture

    Returns
    -------
    Action

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.matching import layer_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w, reference = torch.randn(2, 23, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w[None])
    >>> one, two = (layer_matching(rows, reference, architecture)(rows) for rows in (w[None], moved))
    >>> torch.equal(one, two)
    True
    """
    reference = reference.expand(weights.shape)
    permutations, scales = {}, {}
    rows = weights.clone()
    seen = torch.zeros(architecture.n_weights, dtype=torch.bool)
    reached: set[str] = set()
    for group in architecture.groups:
        reached.add(group.name)
        if group.parent is not None:
            continue
        for _, block, columns in architecture.blocks:
            if {g.name for space in block.axes for g in groups_of(space)} <= reached:
                seen[torch.from_numpy(columns.reshape(-1))] = True
        places = GroupPlaces.of(architecture, group)
        index, sign = places.best(rows * seen, reference * seen)
        places.move(rows, index, sign)
        permutations[group.name] = index
        if places.wire:
            scales[places.wire] = sign
    return Action(architecture, permutations, scales)


def orbit_matching(weights: Tensor, reference: Tensor, architecture: Architecture, max_sweeps: int = 50) -> Action:
    """Weight matching that starts layer by layer, so that all members of an orbit end at one point.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    architecture : Architecture
    max_sweeps : int
        Of the coordinate ascent.

    Returns
    -------
    Action

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.matching import orbit_matching
    >>> w = torch.randn(2, 23, generator=torch.Generator().manual_seed(0))
    >>> len(orbit_matching(w, w[0], Architecture.mlp([4, 3, 2])))
    2
    """
    start = layer_matching(weights, reference, architecture)
    return weight_matching(start(weights), reference, architecture, max_sweeps) @ start


@dataclass(frozen=True)
class GroupPlaces:
    """One neuron group with every place where its neurons occur in a row of weights.

    Parameters
    ----------
    name : str
    size : int
    wire : str or None
        The wire whose signs may flip.
    places : tuple of (LongTensor of shape (size, rest), bool)
        For each axis of a block that the group labels: the columns, that axis first, and whether a
        flip of the wire changes their sign.
    """

    name: str
    size: int
    wire: str | None
    places: tuple[tuple[Tensor, bool], ...]

    @classmethod
    def of(cls, architecture: Architecture, group: NeuronGroup) -> GroupPlaces:
        """The places of a group of an architecture.

        Parameters
        ----------
        architecture : Architecture
        group : NeuronGroup

        Returns
        -------
        GroupPlaces
        """
        wire = next((w.name for w in architecture.wires if w.space == group and SIGN in w.scalings), None)
        places = []
        for _, block, columns in architecture.blocks:
            for axis in (i for i, space in enumerate(block.axes) if space == group):
                index = torch.from_numpy(np.moveaxis(columns, axis, 0).reshape(group.size, -1))
                flips = sum(e for name, on, e in block.wires if name == wire and on == axis) % 2 == 1
                places.append((index, flips))
        return cls(group.name, group.size, wire, tuple(places))

    def best(self, rows: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """The permutation and signs that bring rows closest to the goal while all other groups stay.

        Parameters
        ----------
        rows, goal : Tensor of shape (n, d)

        Returns
        -------
        index, sign : Tensor of shape (n, size)
        """
        even = rows.new_zeros(len(rows), self.size, self.size)
        odd = torch.zeros_like(even)
        for index, flips in self.places:
            product = torch.bmm(take(goal, index), take(rows, index).transpose(1, 2))
            (odd if flips else even).add_(product)
        # a flip changes the sign of what is odd in it: the best sign of a pair gives even + |odd|
        chosen = assignment(even + odd.abs())
        value = odd.gather(2, chosen.unsqueeze(-1)).squeeze(-1)
        return chosen, torch.where(value < 0, -1.0, 1.0).to(rows)

    def move(self, rows: Tensor, index: Tensor, sign: Tensor) -> None:
        """Permute and flip the group, in place.

        Parameters
        ----------
        rows : Tensor of shape (n, d)
        index, sign : Tensor of shape (n, size)
        """
        for columns, flips in self.places:
            values = take(rows, columns).gather(1, index.unsqueeze(-1).expand(-1, -1, columns.shape[1]))
            rows[:, columns] = values * sign.unsqueeze(-1) if flips else values


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
