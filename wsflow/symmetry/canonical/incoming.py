"""The incoming weights that decide on the scale and the sign of each neuron, wire by wire in topological order.

A wire is decided by the blocks that produce it once all other wires that would change the decision are decided: a sign
changes no norm, and a positive scale of the same weights no sign. Where wires feed back into what produces them, such
as a residual stream, the producers that come first decide (the embedding); the others follow. Wires that wait for each
other, such as those of rows and columns of one matrix of gains, are decided together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsflow.activations import PHASE, POSITIVE
from wsflow.architecture import Architecture, Block, Parameter, Wire
from wsflow.symmetry.actions import block_factors, nested_axes
from wsflow.symmetry.views import block_view

# whether biases belong to a neuron's vector of incoming weights
Bias = Literal["inside", "outside"]


@dataclass(frozen=True, eq=False)
class Producer:
    """A block that produces a wire along one of its axes; its columns (neurons, fan_in) and as the block has them.

    It depends on the other wires that change its weights, and may be shifted by phases.
    """

    parameter: Parameter
    columns: Tensor
    depends_on: frozenset[str]
    shifted: bool
    block: Block
    axis: int
    block_columns: np.ndarray

    def rows(self, weights: Tensor, scales: Mapping[str, Tensor]) -> Tensor:
        """Return the incoming weights (n, neurons, fan_in) after other wires are scaled; a view where possible."""
        values = block_view(weights, self.block, self.block_columns)
        values = reduce(torch.mul, block_factors(self.block, scales, {}), values)
        axes = [axis + 1 for axis in nested_axes(self.block, self.axis)]
        return values.movedim(axes, tuple(range(1, len(axes) + 1))).reshape(len(values), *self.columns.shape)


@dataclass(frozen=True, eq=False)
class IncomingWeights:
    """A wire with the producers that decide on its scale and sign.

    One that is not `acyclic` waits for itself: it crosses other wires, is in a circle that nothing enters, or has no
    producer of exponent one.
    """

    wire: Wire
    producers: tuple[Producer, ...]
    acyclic: bool = True

    def columns(self, bias: Bias = "inside") -> Tensor:
        """Return the columns (neurons, fan_in) of the weights that decide on the scale."""
        empty = torch.empty(self.wire.space.total, 0, dtype=torch.long)
        return torch.cat([empty, *(producer.columns for producer in self._of_scale(bias))], 1)

    def norms(self, weights: Tensor, scales: Mapping[str, Tensor], bias: Bias = "inside") -> Tensor:
        """Return the norms (n, neurons) of these weights after other wires are scaled.

        Where squares would leave the range of numbers, weights are divided by the largest one first.
        """
        rows = [producer.rows(weights, scales) for producer in self._of_scale(bias)]
        zeros = weights.new_zeros(len(weights), self.wire.space.total)
        norms, limits = _norms(rows, zeros), torch.finfo(weights.dtype)
        far = ~((norms > 2.0**20 * limits.tiny**0.5) & (norms < 2.0**-20 * limits.max**0.5))
        if not far.any():
            return norms
        largest = reduce(torch.maximum, [row.abs().amax(-1) for row in rows if row.shape[-1]], zeros)
        unit = torch.where(largest > 0, largest, 1.0).unsqueeze(-1)
        return torch.where(far, largest * _norms([row / unit for row in rows], zeros), norms)

    def signed_vectors(self, weights: Tensor, scales: Mapping[str, Tensor]) -> Tensor:
        """Return the vectors (n, neurons, fan_in) whose signs decide: a bias that phases shift has none."""
        empty = weights.new_empty(len(weights), self.wire.space.total, 0)
        return torch.cat([empty, *(p.rows(weights, scales) for p in self.producers if not p.shifted)], 2)

    def _of_scale(self, bias: Bias) -> list[Producer]:
        return [p for p in self.producers if bias == "inside" or not self._is_bias(p)]

    def _is_bias(self, producer: Producer) -> bool:
        # the scales of a norm are vectors as well, and the only producers of their wire beside its bias
        vectors = all(len(p.parameter.shape) == 1 for p in self.producers)
        named = "bias" in producer.parameter.name.rpartition(".")[2]
        return len(producer.parameter.shape) == 1 and (named or not vectors)


def _norms(rows: list[Tensor], zeros: Tensor) -> Tensor:
    return reduce(torch.hypot, [torch.linalg.vector_norm(row, dim=-1) for row in rows], zeros)


def incoming_weights(architecture: Architecture) -> tuple[IncomingWeights, ...]:
    """Return the incoming weights of all wires with scalings, in topological order."""
    producers = _producers(architecture)
    waiting = [wire for wire in architecture.wires if wire.scalings]
    found: list[IncomingWeights] = []
    while waiting:
        undecided = {wire.name for wire in waiting}
        ready = {w.name: [p for p in producers[w.name] if not p.depends_on & undecided] for w in waiting}
        wire = next((w for w in waiting if ready[w.name] and len(ready[w.name]) == len(producers[w.name])), None)
        # a bias alone, which may be zero, is the last choice
        wire = wire or next((w for w in waiting if any(len(p.parameter.shape) > 1 for p in ready[w.name])), None)
        wire = wire or next((w for w in waiting if ready[w.name]), None)
        if wire is not None:
            found.append(IncomingWeights(wire, tuple(ready[wire.name])))
            waiting.remove(wire)
            continue
        joint = _smallest_closed_set({w.name: _dependencies(producers[w.name]) & undecided for w in waiting})
        found += [IncomingWeights(w, tuple(producers[w.name]), acyclic=False) for w in waiting if w.name in joint]
        waiting = [w for w in waiting if w.name not in joint]
    return tuple(found)


def _dependencies(producers: Sequence[Producer]) -> frozenset[str]:
    return frozenset().union(*(producer.depends_on for producer in producers))


def _smallest_closed_set(depends_on: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the fewest wires that depend on none but each other."""
    closed = {name: own | {name} for name, own in depends_on.items()}
    for _ in closed:
        closed = {name: own.union(*(closed[other] for other in own)) for name, own in closed.items()}
    return min(closed.values(), key=len)


def incoming_columns(architecture: Architecture, wire: Wire, bias: Bias = "inside") -> Tensor:
    """Return the columns (neurons, fan_in) of the incoming weights of unit norm that decide on a wire's scale.

    There are none for wires that are decided together.
    """
    found = (d.columns(bias) for d in incoming_weights(architecture) if d.wire.name == wire.name and d.acyclic)
    return next(found, torch.empty(wire.space.total, 0, dtype=torch.long))


def _producers(architecture: Architecture) -> dict[str, list[Producer]]:
    acting = {wire.name: wire for wire in architecture.wires if wire.scalings}
    flipping: dict[str, set[str]] = {}
    for _, block, _ in architecture.blocks:
        for shear in block.shears:
            flipping.setdefault(shear.bias, set()).add(shear.wire)
    found: dict[str, list[Producer]] = {name: [] for name in acting}
    for parameter, block, columns in architecture.blocks:
        for occurrence, (name, axis, exponent) in enumerate([*block.wires, *_phases_alone(block)]):
            if name in acting and exponent == 1 and parameter.role == "weight":
                others = {
                    other
                    for i, (other, _, _) in enumerate(block.wires)
                    if i != occurrence and other in acting and _changes(acting[other], acting[name])
                }
                depends_on = frozenset(others | (flipping.get(parameter.name, set()) & acting.keys()))
                rows = neurons_first(torch.from_numpy(columns), block, axis)
                found[name].append(Producer(parameter, rows, depends_on, bool(block.shifts), block, axis, columns))
    return {name: _without_common_scales(own, acting, name) for name, own in found.items()}


def _changes(other: Wire, wire: Wire) -> bool:
    """Return whether another wire on a block changes the norms or the signs by which a wire is decided."""
    scales, turns = POSITIVE in other.scalings, bool(other.scalings - {POSITIVE})
    norms, signs = POSITIVE in wire.scalings, bool(wire.scalings - {POSITIVE})
    return (norms and scales) or (signs and (turns or scales))


def _without_common_scales(producers: list[Producer], acting: Mapping[str, Wire], name: str) -> list[Producer]:
    """Return the producers of a wire with signs alone, which what scales all of them alike does not change."""
    # a phase is read from the bias as it is scaled
    if not producers or acting[name].scalings & {POSITIVE, PHASE}:
        return producers
    own = [{(w, e) for w, axis, e in p.block.wires if axis == p.axis} for p in producers]
    elsewhere = {w for p in producers for w, axis, _ in p.block.wires if axis != p.axis}
    common = {w for w, _ in set.intersection(*own) if w in acting and acting[w].scalings == {POSITIVE}} - elsewhere
    return [replace(p, depends_on=p.depends_on - common) for p in producers]


def _phases_alone(block: Block) -> list[tuple[str, int, int]]:
    """Return the wires that shift a block and do not scale it."""
    scaling = {name for name, _, _ in block.wires}
    return [(name, axis, 1) for name, axis, _ in block.shifts if name not in scaling]


def neurons_first(columns: Tensor, block: Block, axis: int) -> Tensor:
    """Return the elements of a block as rows (neurons, rest), one for each neuron on one of its axes."""
    axes = nested_axes(block, axis)
    rows = columns.movedim(axes, tuple(range(len(axes)))).flatten(0, len(axes) - 1)
    return rows.reshape(len(rows), -1)
