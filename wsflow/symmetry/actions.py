"""Actions: changes of weights that keep the function, for a batch of networks at once.

An action g on a row w is one gather and one multiplication, m_k w_pi(k): permutations of neuron groups and
scalings of wires, broadcast over the columns by the architecture's blocks. Two further steps add to biases: phases
shift them by whole half periods, and flips move the weights of flipped neurons into the bias behind.

References
----------
Ainsworth, Hayase and Srinivasa 2023, arXiv:2209.04836; Godfrey et al. 2022, arXiv:2205.14258; Kurkova and Kainen 1994,
"Functionally equivalent feedforward neural networks", Neural Computation 6(3), 543-558 (flips).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.activations import FLIP, PHASE, POSITIVE, SIGN
from wsflow.architecture import Architecture, Block, DirectSum, NeuronGroup, Shear, Space
from wsflow.architecture.spaces import groups_of
from wsflow.representation import in_a_line
from wsflow.running import take
from wsflow.symmetry.views import as_index, broadcastable, empty_like
from wsflow.weights import WeightArray


@in_a_line
@dataclass(frozen=True)
class Action:
    """One group element for each of n networks.

    New neuron a of a group is old neuron p[a]; then wires are scaled, by factors that are indexed
    with the new neurons; then phases are added, and what flips (negative scales of a wire that has them) leave over.
    Groups and wires that are not named stay as they are.

    Parameters
    ----------
    permutations : dict from str to LongTensor of shape (n, total)
        By name of the neuron group; of a nested group, positions over all neurons of the parent.
    scales : dict from str to Tensor of shape (n, total)
        By name of the wire: factors other than zero.
    phases : dict from str to LongTensor of shape (n, total)
        By name of the wire: half periods that are added to its biases.

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
    phases: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def identity(cls, architecture: Architecture, n: int) -> Action:
        """Return the action that changes nothing, for n networks."""
        return cls(architecture, {g.name: torch.arange(g.total).repeat(n, 1) for g in architecture.groups}, {})

    @classmethod
    def random(cls, architecture: Architecture, n: int, generator: torch.Generator, log_scale: float = 1.0) -> Action:
        """Draw uniform permutations and signs, positive scales, and phases from -2 to 2.

        `log_scale` is the standard deviation of the scales' normal logarithms; scales are in float64.
        """
        permutations: dict[str, Tensor] = {}
        for group in architecture.groups:
            shape = n, group.total // group.size, group.size
            within = torch.rand(shape, generator=generator, dtype=torch.float32).argsort(-1)
            permutations[group.name] = _nested(within, permutations.get(group.parent.name) if group.parent else None)
        scales, phases = {}, {}
        for wire in architecture.wires:
            s = torch.ones(n, wire.space.total, dtype=torch.float64)
            if POSITIVE in wire.scalings:
                s = torch.exp(log_scale * torch.randn(s.shape, generator=generator, dtype=s.dtype))
            if wire.scalings & {SIGN, FLIP}:
                s = s * (2.0 * torch.randint(2, s.shape, generator=generator) - 1)
            scales[wire.name] = s
            if PHASE in wire.scalings:
                phases[wire.name] = torch.randint(-2, 3, s.shape, generator=generator)
        return cls(architecture, permutations, scales, phases)

    def __len__(self) -> int:
        return len(next(iter((*self.permutations.values(), *self.scales.values(), *self.phases.values())), ()))

    def rows(self, index: Any) -> Action:
        """Return the group elements of the indexed networks."""
        parts = (self.permutations, self.scales, self.phases)
        return Action(self.architecture, *({name: t[index] for name, t in part.items()} for part in parts))

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
        if not (self.permutations or self.scales or self.phases):
            # an architecture without hidden neurons has no symmetries, and nothing to count its rows by
            return weights
        if len(weights) != len(self):
            raise ValueError(
                f"This action has {len(self)} group elements, one for each row, but got {len(weights)} rows."
            )
        if not isinstance(weights, Tensor):
            # nothing is written to them, but torch warns of arrays that may not be written to, and reads none backwards
            values = np.asarray(weights)
            is_read = values.flags.writeable and min(values.strides) >= 0
            moved = self(torch.from_numpy(values if is_read else values.copy())).numpy()
            return weights.like(moved) if isinstance(weights, WeightArray) else moved
        if weights.dtype != torch.float64 and self.is_extreme:
            return self._sheared(self._shifted(self._linear(weights.double()))).to(weights.dtype)
        return self._sheared(self._shifted(self._linear(weights)))

    @property
    def is_extreme(self) -> bool:
        """Whether a scale, or the product of a few, may be beyond the range of float32."""
        sizes = [scale.detach().abs() for scale in self.scales.values() if scale.numel()]
        return any(not bool(2.0**-40 < size.min() <= size.max() < 2.0**40) for size in sizes)

    def _linear(self, weights: Tensor) -> Tensor:
        """Return weights with their neurons in the new order, and scaled: each block is written once."""
        moved, n = empty_like(weights), len(weights)
        blocks = self.architecture.blocks
        if sum(columns.size for _, _, columns in blocks) < weights.shape[1]:
            moved.copy_(weights)
        moving = {
            name for name, p in self.permutations.items() if (p != torch.arange(p.shape[1], device=p.device)).any()
        }
        for _, block, columns in blocks:
            where = as_index(columns)
            axes = [i for i, space in enumerate(block.axes) if moving & {group.name for group in groups_of(space)}]
            values = weights[:, where].reshape(n, *block.extents)
            # a view of what is being written, where there is one
            target = moved[:, where].reshape(n, *block.extents) if isinstance(where, slice) else empty_like(values)
            self._write(target, values, block, axes)
            if not isinstance(where, slice):
                moved[:, where] = target.flatten(1)
        return moved

    def _write(self, target: Tensor, values: Tensor, block: Block, axes: list[int]) -> None:
        """Write a block's values (n, *extents) to a target, permuted along some axes, and scaled."""
        factors = [factor.to(values) for factor in self._factors_of(block)]
        needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (values, *factors))
        if needs_grad or not (axes == [] or (axes == [0] and block.parent_axis(0) is None)):
            values = self._gathered(values, block, axes)
            target.copy_(reduce(torch.mul, factors, values))
            return
        if axes:
            # whole rows are copied several times faster than single numbers
            new = self._along(block, 0, len(values)).reshape(len(values), -1).argsort(1).to(values.device)
            target.index_put_((torch.arange(len(values), device=values.device).unsqueeze(1), new), values)
        elif factors:
            torch.mul(values, factors.pop(0), out=target)
        else:
            target.copy_(values)
        for factor in factors:
            target.mul_(factor)

    def _gathered(self, values: Tensor, block: Block, axes: list[int]) -> Tensor:
        # neurons go along with their parents before they move within them
        for axis in sorted(
            axes, key=lambda axis: len(groups_of(block.axes[axis])) if block.parent_axis(axis) is not None else 0
        ):
            index = self._along(block, axis, len(values)).to(values.device)
            values = values.gather(axis + 1, index.expand(values.shape))
        return values

    def _shifted(self, moved: Tensor) -> Tensor:
        """Return weights with the phases in their biases."""
        for _, block, columns in self.architecture.blocks if self.phases else ():
            for wire, axis, unit in block.shifts:
                if wire in self.phases:
                    shift = unit * broadcast_along(self.phases[wire], block, axis).to(moved)
                    index = torch.from_numpy(columns.reshape(-1)).to(moved.device)
                    moved = moved.index_add(1, index, shift.expand(len(moved), *block.extents).flatten(1))
        return moved

    def _sheared(self, moved: Tensor) -> Tensor:
        """Return weights with what flips leave over, the weights of flipped neurons, in the biases behind."""
        flipped = {name: s < 0 for name, s in self.scales.items() if (s < 0).any()}
        for shear, block, columns, biases in flip_shears(self.architecture) if flipped else ():
            if shear.wire in flipped:
                mask = broadcast_along(flipped[shear.wire], block, shear.axis).to(moved)
                moved = add_to_biases(moved, take(moved, columns) * mask, biases, -shear.amount)
        return moved

    @property
    def sources(self) -> Tensor:
        """The old column of each new weight, a LongTensor (n, d)."""
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
        """Return the old index on one axis for each new position of the block, broadcastable to it."""
        index = space_index(block.axes[axis], self.permutations, n)
        return broadcast_along(index if block.parent_axis(axis) is None else index % block.extents[axis], block, axis)

    @property
    def factors(self) -> Tensor:
        """The factor of each new weight, a Tensor (n, d)."""
        n, d = len(self), self.architecture.n_weights
        first = next(iter(self.scales.values()), None)
        result = torch.ones(n, d) if first is None else first.new_ones(n, d)
        for _, block, columns in self.architecture.blocks:
            flat = as_index(columns)
            for factor in self._factors_of(block):
                result[:, flat] *= factor.to(result).expand(n, *block.extents).reshape(n, -1)
        return result

    def _factors_of(self, block: Block) -> Iterator[Tensor]:
        return block_factors(block, self.scales, self.phases)

    def inverse(self) -> Action:
        """Return the action that undoes this one."""
        permutations = {name: p.argsort(1) for name, p in self.permutations.items()}
        back = Action(self.architecture, permutations, {})
        scales = {name: 1 / back._permuted(name, s) for name, s in self.scales.items()}
        undone = Action(self.architecture, permutations, scales)
        phases = {name: -undone._with_turned_signs(name, back._permuted(name, k)) for name, k in self.phases.items()}
        return Action(self.architecture, permutations, scales, phases)

    def __matmul__(self, other: Action) -> Action:
        """Return the action that is first `other`, then this one."""
        # one that names nothing has no rows to count
        n = len(self) or len(other)
        # a nested group that one of the two does not name still moves with its parent there
        permutations = {
            group.name: space_index(group, other.permutations, n).gather(1, space_index(group, self.permutations, n))
            for group in self.architecture.groups
            if group.name in self.permutations or group.name in other.permutations
        }
        scales, phases = dict(self.scales), dict(self.phases)
        for name, s in other.scales.items():
            moved = self._permuted(name, s) if self.permutations else s
            scales[name] = scales[name] * moved if name in scales else moved
        for name, k in other.phases.items():
            moved = self._with_turned_signs(name, self._permuted(name, k) if self.permutations else k)
            phases[name] = phases[name] + moved if name in phases else moved
        return Action(self.architecture, permutations, scales, phases)

    def _with_turned_signs(self, wire: str, phases: Tensor) -> Tensor:
        """Return phases after this action's scales, which turn the signs of the biases that are shifted."""
        block, axis = next((b, a) for _, b, _ in self.architecture.blocks for w, a, _ in b.shifts if w == wire)
        for name, where, exponent in block.wires:
            if name in self.scales and where == axis:
                phases = phases * (self.scales[name].sign() ** exponent).to(phases)
        return phases

    def _permuted(self, wire: str, values: Tensor) -> Tensor:
        """Return values on a wire after this action's permutations."""
        index = space_index(self.architecture.wire(wire).space, self.permutations, len(self))
        return values.gather(1, index.to(values.device))


def flip_shears(architecture: Architecture) -> Iterator[tuple[Shear, Block, Tensor, Tensor]]:
    """Yield each shear of a flip with its block, and the columns of weights and biases, both shaped as the block."""
    for parameter, block, columns in architecture.blocks:
        for shear in block.shears:
            positions = columns - architecture.slices[parameter.name].start
            outputs = np.unravel_index(positions, parameter.shape)[shear.outputs]
            biases = outputs + architecture.slices[shear.bias].start
            yield shear, block, torch.from_numpy(columns), torch.from_numpy(biases)


def add_to_biases(weights: Tensor, values: Tensor, biases: Tensor, amount: float) -> Tensor:
    """Return weights (n, d) with an amount of some values (n, ...) added to the columns (...) of their biases."""
    return weights.index_add(1, biases.reshape(-1).to(weights.device), values.flatten(1), alpha=amount)


def block_factors(block: Block, scales: Mapping[str, Tensor], phases: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Yield what a block is multiplied with when wires are scaled and shifted, broadcastable to (n, *extents)."""
    for wire, axis, exponent in block.wires:
        if wire in scales:
            yield broadcast_along(scales[wire] ** exponent, block, axis)
        if wire in phases and exponent < 0:
            # a half period turns the sign of what the wire carries
            yield broadcast_along((1 - 2 * (phases[wire] % 2)) ** -exponent, block, axis)


def space_index(space: Space, permutations: dict[str, Tensor], n: int) -> Tensor:
    """Return the old coordinate (n, total) of each new coordinate of a space."""
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
    """Return positions in a nested group, from permutations within each new parent and those of the parents."""
    n, count, size = within.shape
    parents = torch.arange(count).repeat(n, 1) if parents is None else parents
    return (within + size * parents.unsqueeze(-1)).reshape(n, count * size)


def broadcast_along(values: Tensor, block: Block, axis: int) -> Tensor:
    """Return values (n, total) on the space of one axis, broadcastable to the block (n, *extents)."""
    return broadcastable(values, nested_axes(block, axis), block.extents)


def nested_axes(block: Block, axis: int) -> tuple[int, ...]:
    """Return the axes over which the neurons of one axis range, outermost first, as nested groups count within parents.

    Examples
    --------
    >>> from wsflow.architecture import Block, Fixed, NeuronGroup
    >>> from wsflow.symmetry.actions import nested_axes
    >>> heads = NeuronGroup("heads", 4)
    >>> nested_axes(Block((NeuronGroup("channels", 8, parent=heads), Fixed(3), heads)), 0)
    (2, 0)
    """
    chain = [axis]
    while (parent := block.parent_axis(chain[0])) is not None:
        chain.insert(0, parent)
    return tuple(chain)
