"""Wires whose channels commute with all invertible matrices, each put to the test.

Channels between two linear maps commute with scalings and signs. So do those that are multiplied by a gate, which
commute with nothing more. What an architecture says does not tell them apart, and random networks do.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch

from wsflow.activations import POSITIVE, SIGN
from wsflow.architecture import Architecture, Block, NeuronGroup, Wire
from wsflow.architecture.spaces import groups_of
from wsflow.running.sequential import program_of
from wsflow.symmetry.invertible import LinearWire
from wsflow.tracing.certificate import TOLERANCE, Check

# networks that a wire is put to the test with
TRIALS = 3


@lru_cache(maxsize=32)
def linear_wires(architecture: Architecture) -> tuple[LinearWire, ...]:
    """The wires of an architecture that commute with invertible matrices, put to the test on random networks.

    There are none where only a module runs the networks.
    """
    wires = tuple(_candidates(architecture)) if program_of(architecture) is not None else ()
    if not wires:
        return ()
    generator = torch.Generator().manual_seed(0)
    check = Check(architecture, None, None, generator)
    weights, before = check.with_live_outputs(TRIALS, generator)

    def keeps_outputs(wire: LinearWire) -> bool:
        heads, k = wire.shape
        matrices = torch.randn(TRIALS, heads, k, k, generator=generator, dtype=torch.float64)
        return check.deviation(before, wire.moved(weights, matrices + 2 * torch.eye(k))) <= TOLERANCE

    return tuple(wire for wire in wires if keeps_outputs(wire))


def _candidates(architecture: Architecture) -> Iterator[LinearWire]:
    """Wires that commute with scalings and signs, and meet every weight of their channels once."""
    for wire in architecture.wires:
        group = wire.space
        if not (isinstance(group, NeuronGroup) and group.size > 1 and wire.scalings >= {POSITIVE, SIGN}):
            continue
        parts: dict[int, list[np.ndarray]] = {1: [], -1: []}
        if all(_collects(wire, group, block, columns, parts) for _, block, columns in architecture.blocks):
            produced, consumed = (parts[exponent] for exponent in (1, -1))
            if produced and consumed:
                yield LinearWire(wire.name, group.name, np.concatenate(produced, 2), np.concatenate(consumed, 2))


def _collects(
    wire: Wire, group: NeuronGroup, block: Block, columns: np.ndarray, parts: dict[int, list[np.ndarray]]
) -> bool:
    """Put the columns (heads, k, rest) of a block to those of its exponent; False where matrices cannot act on it."""
    axes = [axis for axis, space in enumerate(block.axes) if group in groups_of(space)]
    scaled = [(axis, exponent) for name, axis, exponent in block.wires if name == wire.name]
    if not axes and not scaled:
        return True
    shifted = wire.name in {*(name for name, *_ in block.shifts), *(shear.wire for shear in block.shears)}
    if shifted or len(axes) != 1 or len(scaled) != 1 or scaled[0][0] != axes[0] or scaled[0][1] not in parts:
        return False
    (axis, exponent), parent = scaled[0], block.parent_axis(axes[0])
    front = [axis] if parent is None else [parent, axis]
    heads = group.total // group.size
    if parent is not None and block.extents[parent] != heads:
        return False
    first = np.moveaxis(columns.reshape(block.extents), front, range(len(front)))
    parts[exponent].append(first.reshape(heads, group.size, -1))
    return True
