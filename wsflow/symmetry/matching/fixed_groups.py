"""Neuron groups that are fixed: their neurons are identified by weights that are equal in all networks.

Networks that share a frozen backbone, a head, or the untrained part of one initialisation agree there neuron by
neuron. A permutation would keep each function and lose that. The rule: a group is fixed where the weights that are
equal in all networks tell its neurons apart; what is nested in a fixed group is fixed where they tell its neurons apart
within their parents, and else moves within them, as channels do in heads that a table of positions identifies. Zero
biases and unit gains of fresh layers are equal as well, but tell no neurons apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture, NeuronGroup
from wsflow.mapped import chunks
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching.subblocks import Subblock, subblocks_of


def fixed_groups(rows: Tensor, architecture: Architecture, first: Tensor | None = None) -> dict[str, Tensor]:
    """Find the groups that are fixed in a population, with the columns whose equal weights fix them.

    Groups that may be permuted have no entry; there is none where all networks are one network.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
        Networks as they were trained: scalings would blur what is equal.
    first : Tensor of shape (d,), optional
        A network before them (default: the first of them).

    Examples
    --------
    Two networks with one first layer:

    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.matching import fixed_groups
    >>> rows = torch.randn(2, 47, generator=torch.Generator().manual_seed(0))
    >>> rows[1, :15] = rows[0, :15]
    >>> list(fixed_groups(rows, Architecture.mlp([4, 3, 5, 2])))
    ['hidden1']
    """
    # most columns differ between any two networks: only the others are compared in all of them
    first = rows[0] if first is None else first.to(rows)
    other = next((row for row in rows if not torch.equal(row, first)), None)
    if other is None:
        return {}
    equal = _equal(first, other)
    if not equal.any():
        return {}
    for part in chunks(*rows.shape):
        equal[equal.clone()] = _equal(rows[part, equal], first[equal]).all(0)
    if equal.all():
        return {}
    subblocks = tuple(subblocks_of(architecture))
    found: dict[str, Tensor] = {}
    for group in architecture.groups:
        columns = [part for subblock in subblocks for part in _equal_columns(subblock, group, equal)]
        if columns and group.total > 1:
            values = first[torch.cat(columns, 1)]
            within = isinstance(group.parent, NeuronGroup) and group.parent.name in found
            if all(_differ(part) for part in (values.split(group.size) if within else [values])):
                found[group.name] = torch.cat(columns, 1).reshape(-1)
    return found


def _differ(values: Tensor) -> bool:
    """Return whether all rows (neurons, weights) differ by more than the last digits."""
    significand, exponent = torch.frexp(values)
    # two thirds of the bits
    steps = 2 ** round(-2 / 3 * math.log2(torch.finfo(values.dtype).eps))
    return len(torch.ldexp((significand * steps).round() / steps, exponent).unique(dim=0)) == len(values)


def _equal(a: Tensor, b: Tensor) -> Tensor:
    """Return where numbers are equal but for the last digits, which a canonical form may have touched."""
    return torch.isclose(a, b.to(a), rtol=8 * torch.finfo(a.dtype).eps, atol=0.0)


def _equal_columns(subblock: Subblock, group: NeuronGroup, equal: Tensor) -> list[Tensor]:
    """Return columns (neurons, rest) along each axis with the group, where those of all neurons are equal."""
    found = []
    for axis in (i for i, other in enumerate(subblock.groups) if other == group):
        axes = subblock.nested_axes(axis)
        others = [i for i in range(len(subblock.groups)) if i not in axes]
        columns = subblock.columns.permute(*axes, *others).reshape(group.total, -1)
        found.append(columns[:, equal[columns].all(0)])
    return [columns for columns in found if columns.shape[1]]


def restored(rows: Tensor, first: Tensor, fixed: Mapping[str, Tensor], architecture: Architecture) -> Action:
    """Return the permutations of fixed groups by which rows (n, d) agree with a first network (d,), if there are some.

    So a network that shares a table comes to the same point in whichever order its heads come. Other rows stay, and so
    do those of a matrix between two groups that have both moved.
    """
    action = Action.identity(architecture, len(rows))
    for group in (group for group in architecture.groups if group.name in fixed):
        columns = fixed[group.name].reshape(-1, group.size, len(fixed[group.name]) // group.total)
        values, wanted = action(rows)[:, columns], first[columns]
        # rows of numbers are put in order by one number each
        weights = torch.rand(values.shape[-1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        old, new = ((part.double() @ weights.to(part.device)).argsort(-1) for part in (values, wanted))
        index = torch.empty_like(old).scatter_(-1, new.expand_as(old), old)
        agrees = _equal(values.take_along_dim(index.unsqueeze(-1), -2), wanted).flatten(1).all(1)
        index = torch.where(agrees[:, None, None], index, torch.arange(group.size))
        parents = torch.arange(len(columns)).unsqueeze(1)
        action = Action(architecture, {group.name: (index + group.size * parents).flatten(1)}, {}) @ action
    return action


def rows_by_fixed_groups(rows: Tensor, first: Tensor, fixed: dict[str, Tensor]) -> list[tuple[Tensor, tuple[str, ...]]]:
    """Return row numbers (LongTensor) with the names of the groups in which these rows agree with a first network."""
    if not fixed or not len(rows):
        return [(torch.arange(len(rows)), ())]
    agrees = torch.stack([_equal(rows[:, columns], first[columns]).all(1) for columns in fixed.values()], 1)
    kinds, which = agrees.unique(dim=0, return_inverse=True)
    names = np.array(list(fixed))
    return [((which == i).nonzero().squeeze(1), tuple(names[kind.numpy()].tolist())) for i, kind in enumerate(kinds)]
