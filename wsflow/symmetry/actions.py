"""Actions: changes of weights that keep the function, for a batch of networks at once.

An action g on a row w is one gather and one multiplication, (g.w)_k = m_k w_pi(k): permutations of
neuron groups and scalings of wires, spread over the columns by the architecture's blocks.

References
----------
Ainsworth, Hayase and Srinivasa 2023, arXiv:2209.04836; Godfrey et al. 2022, arXiv:2205.14258.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.activations import POSITIVE, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, NeuronGroup, Space
from wsflow.weights import WeightArray


@dataclass(frozen=True)
class Action:
    """One group element for each of n networks.

    New neuron a of a group is old neuron p[a]; then wires are scaled, by factors that are indexed
    with the new neurons. Groups and wires that are not named stay as they are.

    Parameters
    ----------
    architecture : Architecture
    permutations : dict from str to LongTensor of shape (n, total)
        By name of the neuron group; of a nested group, positions over all neurons of the parent.
    scales : dict from str to Tensor of shape (n, total)
        By name of the wire: factors other than zero.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> swap = Action(architecture, {"hidden1": torch.tensor([[1, 0, 2]])}, {})
    >>> w = torch.randn(1, 23)
    >>> bool((swap(swap(w)) == w).all())
    True
    """

    architecture: Architecture
    permutations: dict[str, Tensor]
    scales: dict[str, Tensor]

    @classmethod
    def identity(cls, architecture: Architecture, n: int) -> Action:
        """The action that changes nothing, for n networks.

        Parameters
        ----------
        architecture : Architecture
        n : int

        Returns
        -------
        Action
        """
        return cls(architecture, {g.name: torch.arange(g.total).repeat(n, 1) for g in architecture.groups}, {})

    @classmethod
    def random(cls, architecture: Architecture, n: int, generator: torch.Generator, log_scale: float = 1.0) -> Action:
        """Uniform permutations and signs, and positive scales with normal logarithms.

        Parameters
        ----------
        architecture : Architecture
        n : int
        generator : torch.Generator
        log_scale : float
            Standard deviation of the logarithms.

        Returns
        -------
        Action
            With scales in float64.
        """
        permutations: dict[str, Tensor] = {}
        for group in architecture.groups:
            within = torch.rand(n, group.total // group.size, group.size, generator=generator).argsort(-1)
            permutations[group.name] = _nested(within, permutations.get(group.parent.name) if group.parent else None)
        scales = {}
        for wire in architecture.wires:
            s = torch.ones(n, wire.space.total, dtype=torch.float64)
            if POSITIVE in wire.scalings:
                s = torch.exp(log_scale * torch.randn(s.shape, generator=generator, dtype=s.dtype))
            if SIGN in wire.scalings:
                s = s * (2.0 * torch.randint(2, s.shape, generator=generator) - 1)
            scales[wire.name] = s
        return cls(architecture, permutations, scales)

    def __len__(self) -> int:
        return len(next(iter((*self.permutations.values(), *self.scales.values())), ()))

    def rows(self, index: Any) -> Action:
        """The group elements of some of the networks.

        Parameters
        ----------
        index : LongTensor, slice or list of int

        Returns
        -------
        Action
        """
        return Action(
            self.architecture,
            {name: p[index] for name, p in self.permutations.items()},
            {name: s[index] for name, s in self.scales.items()},
        )

    def __call__(self, weights: Any) -> Any:
        """Apply each group element to its row.

        Parameters
        ----------
        weights : Tensor, ndarray or WeightArray of shape (n, d)

        Returns
        -------
        Same type and dtype, of shape (n, d)

        Raises
        ------
        ValueError
            If there is not one row for each group element.
        """
        if not (self.permutations or self.scales):
            # an architecture without hidden neurons has no symmetries, and nothing to count its rows by
            return weights
        if len(weights) != len(self):
            raise ValueError(
                f"This action has {len(self)} group elements, one for each row, but got {len(weights)} rows."
            )
        if not isinstance(weights, Tensor):
            moved = self(torch.from_numpy(np.array(weights))).numpy()
            return weights.like(moved) if isinstance(weights, WeightArray) else moved
        moved = weights.gather(1, self.sources.to(weights.device))
        return moved * self.factors.to(weights) if self.scales else moved

    @property
    def sources(self) -> Tensor:
        """LongTensor of shape (n, d): the old column of each new weight."""
        n, d = len(self), self.architecture.n_weights
        result = torch.arange(d).repeat(n, 1)
        for _, block, columns in self.architecture.blocks:
            if not block.neuron_axes():
                continue
            index = torch.zeros((n, *(1,) * len(block.axes)), dtype=torch.long)
            for axis in range(len(block.axes)):
                stride = int(np.prod(block.extents[axis + 1 :], dtype=np.int64))
                index = index + stride * self._along(block, axis, n)
            flat = torch.from_numpy(columns.reshape(-1))
            result[:, flat] = flat[index.expand(n, *block.extents).reshape(n, -1)]
        return result

    def _along(self, block: Block, axis: int, n: int) -> Tensor:
        """Old index on one axis for each new position of the block, broadcastable to it."""
        shape = [n, *(1,) * len(block.axes)]
        shape[axis + 1] = block.extents[axis]
        index = space_index(block.axes[axis], self.permutations, n)
        parent = block.parent_axis(axis)
        if parent is None:
            return index.reshape(shape)
        size = block.extents[axis]
        index = index.reshape(n, block.extents[parent], size) % size
        shape[parent + 1] = block.extents[parent]
        return (index if parent < axis else index.transpose(1, 2)).reshape(shape)

    @property
    def factors(self) -> Tensor:
        """Tensor of shape (n, d): the factor of each new weight."""
        n, d = len(self), self.architecture.n_weights
        dtype = next(iter(self.scales.values())).dtype
        result = torch.ones(n, d, dtype=dtype)
        for _, block, columns in self.architecture.blocks:
            for wire, axis, exponent in block.wires:
                if wire in self.scales:
                    factor = _spread(self.scales[wire] ** exponent, block, axis)
                    flat = torch.from_numpy(columns.reshape(-1))
                    result[:, flat] *= factor.expand(n, *block.extents).reshape(n, -1)
        return result

    def inverse(self) -> Action:
        """The action that undoes this one.

        Returns
        -------
        Action
        """
        permutations = {name: p.argsort(1) for name, p in self.permutations.items()}
        scales = {
            name: 1 / s.gather(1, space_index(self.architecture.wire(name).space, permutations, len(self)))
            for name, s in self.scales.items()
        }
        return Action(self.architecture, permutations, scales)

    def __matmul__(self, other: Action) -> Action:
        """First `other`, then this action."""
        n = len(self)
        # a nested group that one of the two does not name still moves with its parent there
        permutations = {
            group.name: space_index(group, other.permutations, n).gather(1, space_index(group, self.permutations, n))
            for group in self.architecture.groups
            if group.name in self.permutations or group.name in other.permutations
        }
        scales = dict(self.scales)
        for name, s in other.scales.items():
            moved = s.gather(1, space_index(self.architecture.wire(name).space, self.permutations, n))
            scales[name] = scales[name] * moved if name in scales else moved
        return Action(self.architecture, permutations, scales)


def space_index(space: Space, permutations: dict[str, Tensor], n: int) -> Tensor:
    """The old coordinate of each new coordinate of a space.

    Parameters
    ----------
    space : Space
    permutations : dict from str to LongTensor of shape (n, total)
    n : int

    Returns
    -------
    LongTensor of shape (n, total)
    """
    if isinstance(space, DirectSum):
        offsets = np.cumsum([0, *(part.total for part in space.parts)])
        return torch.cat(
            [space_index(part, permutations, n) + int(o) for part, o in zip(space.parts, offsets[:-1], strict=True)], 1
        )
    if isinstance(space, NeuronGroup):
        if space.name in permutations:
            return permutations[space.name]
        if space.parent is not None and space.parent.name in permutations:
            within = torch.arange(space.size).repeat(n, space.parent.total, 1)
            return _nested(within, permutations[space.parent.name])
    return torch.arange(space.total).repeat(n, 1)


def _nested(within: Tensor, parents: Tensor | None) -> Tensor:
    """Positions in a nested group, from permutations within each new parent and those of the parents."""
    n, count, size = within.shape
    parents = torch.arange(count).repeat(n, 1) if parents is None else parents
    return (within + size * parents.unsqueeze(-1)).reshape(n, count * size)


def _spread(values: Tensor, block: Block, axis: int) -> Tensor:
    """Values on a space, shaped to multiply a block along one of its axes."""
    shape = [len(values), *(1,) * len(block.axes)]
    parent = block.parent_axis(axis)
    shape[axis + 1] = block.extents[axis]
    if parent is not None:
        shape[parent + 1] = block.extents[parent]
        if parent > axis:
            values = values.reshape(len(values), block.extents[parent], -1).transpose(1, 2)
    return values.reshape(shape)
