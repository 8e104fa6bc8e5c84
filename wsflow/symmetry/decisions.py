"""Which weights decide on the scale and the sign of a neuron, and in which order the wires are decided.

A wire is decided by the blocks that produce it once all other wires that act on these blocks are decided, so
that nothing behind can change the decision. Where wires feed back into what produces them, such as a residual
stream, the producers that come first decide (the embedding); the others follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture, Block, Parameter, Wire
from wsflow.symmetry.actions import axes_of, factors_of
from wsflow.symmetry.columns import cut

Bias = Literal["inside", "outside"]


@dataclass(frozen=True, eq=False)
class Producer:
    """A block that produces a wire.

    Parameters
    ----------
    parameter : Parameter
    columns : LongTensor of shape (neurons, fan_in)
    needs : frozenset of str
        The other wires that change its weights.
    shifted : bool
        Whether phases shift it.
    block : Block
    axis : int
        The block's axis that ranges over the wire.
    where : ndarray of int, shaped as the block
        The columns as the block has them.
    """

    parameter: Parameter
    columns: Tensor
    needs: frozenset[str]
    shifted: bool
    block: Block
    axis: int
    where: np.ndarray

    def rows(self, weights: Tensor, scales: Mapping[str, Tensor]) -> Tensor:
        """The incoming weights of each neuron, after other wires have been scaled.

        Parameters
        ----------
        weights : Tensor of shape (n, d)
        scales : mapping from str to Tensor of shape (n, total)
            By name of the wire.

        Returns
        -------
        Tensor of shape (n, neurons, fan_in)
            A view where that is possible.
        """
        values = reduce(torch.mul, factors_of(self.block, scales, {}), cut(weights, self.block, self.where))
        axes = [axis + 1 for axis in axes_of(self.block, self.axis)]
        return values.movedim(axes, tuple(range(1, len(axes) + 1))).reshape(len(values), *self.columns.shape)


@dataclass(frozen=True, eq=False)
class Decision:
    """A wire with the producers that decide on its scale and sign.

    Parameters
    ----------
    wire : Wire
    producers : tuple of Producer
    free : bool
        Whether nothing behind can change them. Where that is not so, the wire is part of a circle that nothing
        enters, and silent.
    """

    wire: Wire
    producers: tuple[Producer, ...]
    free: bool = True

    def columns(self, bias: Bias = "inside") -> Tensor:
        """The columns of the weights that decide.

        Parameters
        ----------
        bias : {"inside", "outside"}
            Whether biases belong to the neuron's vector.

        Returns
        -------
        LongTensor of shape (neurons, fan_in)
        """
        empty = torch.empty(self.wire.space.total, 0, dtype=torch.long)
        return torch.cat([empty, *(producer.columns for producer in self._deciding(bias))], 1)

    def norms(self, weights: Tensor, scales: Mapping[str, Tensor], bias: Bias = "inside") -> Tensor:
        """The norms of the weights that decide.

        Parameters
        ----------
        weights : Tensor of shape (n, d)
        scales : mapping from str to Tensor of shape (n, total)
            Of other wires: the norms are those after they have been scaled.
        bias : {"inside", "outside"}

        Returns
        -------
        Tensor of shape (n, neurons)
        """
        parts = [torch.linalg.vector_norm(p.rows(weights, scales), dim=-1) for p in self._deciding(bias)]
        return reduce(torch.hypot, parts, weights.new_zeros(len(weights), self.wire.space.total))

    def oriented(self, weights: Tensor, scales: Mapping[str, Tensor]) -> Tensor:
        """The weights whose signs decide: a bias that phases shift has none.

        Parameters
        ----------
        weights : Tensor of shape (n, d)
        scales : mapping from str to Tensor of shape (n, total)
            Of other wires: the weights are those after they have been scaled.

        Returns
        -------
        Tensor of shape (n, neurons, fan_in)
        """
        empty = weights.new_empty(len(weights), self.wire.space.total, 0)
        return torch.cat([empty, *(p.rows(weights, scales) for p in self.producers if not p.shifted)], 2)

    def _deciding(self, bias: Bias) -> list[Producer]:
        return [p for p in self.producers if bias == "inside" or not self._is_bias(p)]

    def _is_bias(self, producer: Producer) -> bool:
        # the scales of a norm are vectors as well, and the only producers of their wire beside its bias
        vectors = all(len(p.parameter.shape) == 1 for p in self.producers)
        named = "bias" in producer.parameter.name.rpartition(".")[2]
        return len(producer.parameter.shape) == 1 and (named or not vectors)


def decisions(architecture: Architecture) -> tuple[Decision, ...]:
    """The wires in the order in which they are decided, each with what decides.

    Parameters
    ----------
    architecture : Architecture

    Returns
    -------
    tuple of Decision

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.decisions import decisions
    >>> [(d.wire.name, [p.parameter.name for p in d.producers]) for d in decisions(Architecture.mlp([4, 3, 2]))]
    [('hidden1', ['0.weight', '0.bias'])]
    """
    producers = _producers(architecture)
    waiting = [wire for wire in architecture.wires if wire.scalings]
    found: list[Decision] = []
    while waiting:
        undecided = {wire.name for wire in waiting}
        ready = {w.name: [p for p in producers[w.name] if not p.needs & undecided] for w in waiting}
        wire = next((w for w in waiting if len(ready[w.name]) == len(producers[w.name])), None)
        # a bias alone, which may be zero, is the last choice
        wire = wire or next((w for w in waiting if any(len(p.parameter.shape) > 1 for p in ready[w.name])), None)
        wire = wire or next((w for w in waiting if ready[w.name]), None)
        if wire is None:
            return (*found, *(Decision(w, tuple(producers[w.name]), free=False) for w in waiting))
        found.append(Decision(wire, tuple(ready[wire.name])))
        waiting.remove(wire)
    return tuple(found)


def _producers(architecture: Architecture) -> dict[str, list[Producer]]:
    acting = {wire.name for wire in architecture.wires if wire.scalings}
    leaving: dict[str, set[str]] = {}
    for _, block, _ in architecture.blocks:
        for shear in block.shears:
            leaving.setdefault(shear.bias, set()).add(shear.wire)
    found: dict[str, list[Producer]] = {name: [] for name in acting}
    for parameter, block, columns in architecture.blocks:
        for occurrence, (name, axis, exponent) in enumerate([*block.wires, *_phases_alone(block)]):
            if name in acting and exponent == 1 and parameter.role == "weight":
                others = {w for i, (w, _, _) in enumerate(block.wires) if i != occurrence}
                needs = frozenset((others | leaving.get(parameter.name, set())) & acting)
                rows = neurons_first(torch.from_numpy(columns), block, axis)
                found[name].append(Producer(parameter, rows, needs, bool(block.shifts), block, axis, columns))
    return found


def _phases_alone(block: Block) -> list[tuple[str, int, int]]:
    """Wires that shift a block and do not scale it."""
    scaling = {name for name, _, _ in block.wires}
    return [(name, axis, 1) for name, axis, _ in block.shifts if name not in scaling]


def neurons_first(columns: Tensor, block: Block, axis: int) -> Tensor:
    """The elements of a block, by the neurons on one of its axes.

    Parameters
    ----------
    columns : Tensor, shaped as the block
    block : Block
    axis : int

    Returns
    -------
    Tensor of shape (neurons, rest)

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Block, Fixed, NeuronGroup
    >>> block = Block((Fixed(2), NeuronGroup("hidden", 3)))
    >>> neurons_first(torch.arange(6).reshape(2, 3), block, 1).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    axes = axes_of(block, axis)
    rows = columns.movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1)
    return rows.reshape(len(rows), -1)


def shifted_biases(architecture: Architecture) -> Iterator[tuple[str, Tensor, float]]:
    """The biases that take the phases.

    Parameters
    ----------
    architecture : Architecture

    Yields
    ------
    wire : str
    columns : LongTensor of shape (neurons,)
    unit : float
        What a phase of one adds.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.decisions import shifted_biases
    >>> [(wire, columns.tolist()) for wire, columns, _ in shifted_biases(Architecture.mlp([1, 2, 1], "sine"))]
    [('hidden1', [2, 3])]
    """
    for _, block, columns in architecture.blocks:
        for wire, axis, unit in block.shifts:
            rows = neurons_first(torch.from_numpy(columns), block, axis)
            yield wire, rows[:, 0], unit
