"""What is equal in all networks is held fixed: neuron groups that already have names.

Networks that share a frozen backbone, a head, or the untrained part of one initialisation agree there neuron by
neuron. A permutation would keep each function and lose that. The rule: a group is held where the weights that are equal
in all networks tell its neurons apart; what is nested in a held group is held with it. Zero biases and unit gains of
fresh layers are equal as well, but tell no neurons apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture, NeuronGroup
from wsflow.symmetry.actions import Action
from wsflow.symmetry.places import Piece, Plan


def held_groups(rows: Tensor, architecture: Architecture) -> dict[str, Tensor]:
    """The groups that are held in a population, and the columns whose equal weights hold them.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
        Networks as they were trained: scalings would blur what is equal.
    architecture : Architecture

    Returns
    -------
    dict from str to LongTensor
        Without an entry for groups that may move; empty where all networks are one network.

    Examples
    --------
    Two networks with one first layer:

    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.holding import held_groups
    >>> rows = torch.randn(2, 47, generator=torch.Generator().manual_seed(0))
    >>> rows[1, :15] = rows[0, :15]
    >>> list(held_groups(rows, Architecture.mlp([4, 3, 5, 2])))
    ['hidden1']
    """
    # most columns differ between any two networks: only the others are looked at in all of them
    other = next((row for row in rows if not torch.equal(row, rows[0])), None)
    if other is None:
        return {}
    equal = _same(rows[0], other)
    if not equal.any():
        return {}
    equal[equal.clone()] = _same(rows[:, equal], rows[0, equal]).all(0)
    if equal.all():
        return {}
    pieces = Plan.of(architecture).pieces
    found: dict[str, Tensor] = {}
    for group in architecture.groups:
        columns = [part for piece in pieces for part in _named(piece, group, equal)]
        if group.parent is not None and group.parent.name in found:
            found[group.name] = found[group.parent.name]
        elif columns and group.total > 1 and len(rows[0, torch.cat(columns, 1)].unique(dim=0)) == group.total:
            found[group.name] = torch.cat(columns, 1).reshape(-1)
    return found


def _same(a: Tensor, b: Tensor) -> Tensor:
    """Equal but for the last digits, which a canonical form may have touched."""
    return torch.isclose(a, b.to(a), rtol=8 * torch.finfo(a.dtype).eps, atol=0.0)


def _named(piece: Piece, group: NeuronGroup, equal: Tensor) -> list[Tensor]:
    """For each axis of a piece with the group: its columns, a row for each neuron, where all neurons' are equal."""
    found = []
    for axis in (i for i, other in enumerate(piece.groups) if other == group):
        chain = piece.chain(axis)
        others = [i for i in range(len(piece.groups)) if i not in chain]
        columns = piece.columns.permute(*chain, *others).reshape(group.total, -1)
        found.append(columns[:, equal[columns].all(0)])
    return [columns for columns in found if columns.shape[1]]


def thawed(action: Action, architecture: Architecture, n: int) -> Action:
    """An action of a frozen architecture, as one of the whole that leaves the frozen groups where they are.

    Parameters
    ----------
    action : Action
    architecture : Architecture
    n : int
        Number of networks.

    Returns
    -------
    Action
    """
    still = Action.identity(architecture, n).permutations
    return Action(architecture, {**still, **action.permutations}, action.scales, action.phases)


def patterns(rows: Tensor, first: Tensor, held: dict[str, Tensor]) -> list[tuple[Tensor, tuple[str, ...]]]:
    """Rows by the groups in which they agree with a population's first network.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
    first : Tensor of shape (d,)
    held : dict from str to LongTensor
        From `held_groups`.

    Returns
    -------
    list of (LongTensor, tuple of str)
        Which rows, and the names of the groups that hold them.
    """
    if not held or not len(rows):
        return [(torch.arange(len(rows)), ())]
    agrees = torch.stack([_same(rows[:, columns], first[columns]).all(1) for columns in held.values()], 1)
    kinds, which = agrees.unique(dim=0, return_inverse=True)
    names = np.array(list(held))
    return [((which == i).nonzero().squeeze(1), tuple(names[kind.numpy()].tolist())) for i, kind in enumerate(kinds)]


def together(architecture: Architecture, parts: Sequence[tuple[Tensor, Action]]) -> Action:
    """The actions of some rows each, as one action of all rows.

    Parameters
    ----------
    architecture : Architecture
    parts : sequence of (LongTensor, Action)
        Which rows, each of them once; actions that name all groups.

    Returns
    -------
    Action
    """
    n = sum(len(index) for index, _ in parts)
    whole = Action.identity(architecture, n)
    for index, action in parts:
        for name, places in action.permutations.items():
            whole.permutations[name][index] = places
        for name, scale in action.scales.items():
            ones = torch.ones(n, scale.shape[1], dtype=scale.dtype)
            whole.scales.setdefault(name, ones)[index] = scale
    return whole
