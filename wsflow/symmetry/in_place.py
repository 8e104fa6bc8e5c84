"""Group elements applied in the memory of the weights themselves, for networks of which there is no room for two."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from wsflow.architecture import Block, Parameter
from wsflow.architecture.spaces import groups_of
from wsflow.symmetry.actions import Action, block_factors, flip_shears

# numbers that are moved at a time
CHUNK = 1 << 20


def apply_in_place(action: Action, weights: Tensor) -> None:
    """Move weights (n, d) as the action does, which returns new ones."""
    for parameter in action.architecture.parameters:
        own = weights[:, action.architecture.slices[parameter.name]]
        for block in parameter.blocks:
            _move(action, own, parameter, block)
    if action.phases:
        weights.copy_(action._shifted(weights))
    if any(bool((scale < 0).any()) for scale in action.scales.values()) and any(flip_shears(action.architecture)):
        weights.copy_(action._sheared(weights))


def _move(action: Action, own: Tensor, parameter: Parameter, block: Block) -> None:
    """Move one block of a parameter (n, size)."""
    if block.index is None:
        values = own.view(len(own), *(block.view or parameter.shape))
        if block.slices is not None:
            values = values[(slice(None), *(slice(*bounds) for bounds in block.slices))]
    else:
        columns = torch.from_numpy(block.positions(parameter.shape).reshape(-1)).to(own.device)
        values = own[:, columns]
    values = values.view(len(own), *block.extents)
    # neurons go along with their parents before they move within them
    axes = [i for i, space in enumerate(block.axes) if groups_of(space)]
    for axis in sorted(axes, key=lambda i: len(groups_of(block.axes[i])) if block.parent_axis(i) is not None else 0):
        _gather(values, action._along(block, axis, len(own)).to(values.device), axis + 1)
    for factor in block_factors(block, action.scales, action.phases):
        values.mul_(factor.to(values))
    if block.index is not None:
        own[:, columns] = values.flatten(1)


def _gather(values: Tensor, index: Tensor, dim: int) -> None:
    """Permute values along a dimension by an index that broadcasts to them, slab by slab of the longest other one."""
    others = [i for i in range(values.dim()) if i != dim]
    along = max(others, key=lambda i: values.shape[i])
    size = max(1, CHUNK * values.shape[along] // max(1, prod(values.shape)))
    index = index.expand(values.shape)
    for start in range(0, values.shape[along], size):
        length = min(size, values.shape[along] - start)
        slab = values.narrow(along, start, length)
        slab.copy_(slab.gather(dim, index.narrow(along, start, length)))
