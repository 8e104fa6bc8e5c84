"""Scales and signs of wires that wait for each other, such as those of rows and columns of one matrix of gains.

No wire is the first of them. Their log-scales t minimise sum_c m_c exp(2 (E t)_c) - 2 (E t)_c, in the words of
`balanced`: a convex function that has a minimum whatever the exponents E are, where the weights of each neuron have
mean square one. Their signs make the largest weights positive: taken in the order of their absolute values, each whose
sign the weights before leave open (a greedy basis of a binary matroid; Edmonds 1971, "Matroids and the greedy
algorithm"). Neither depends on the order of neurons.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.symmetry.actions import broadcast_along
from wsflow.symmetry.canonical.balanced import Exponents, descend, minimal_scales
from wsflow.symmetry.canonical.incoming import Bias
from wsflow.symmetry.centring import centred


def joint_scales(
    weights: Tensor, architecture: Architecture, names: list[str], bias: Bias = "inside"
) -> dict[str, Tensor]:
    """Return the positive scales (n, neurons) of these wires where the weights of each neuron have mean square one.

    Weights that scale together count as one, their norm, and consumed ones against produced ones. A neuron without
    weights keeps its scale.
    """
    return minimal_scales(weights, architecture, names, _mean_square_one, bias)


def _mean_square_one(cells: np.ndarray, system: Exponents, unit: np.ndarray) -> np.ndarray:
    alive = (system.positive @ cells + system.negative @ cells > 0).astype(float)
    return descend(np.zeros_like(alive), cells, system, alive, mean_square=unit)


def joint_signs(weights: Tensor, architecture: Architecture, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the signs (n, neurons) of these wires, or flips, with which the largest weights are positive.

    Signs that change no weight are positive.
    """
    sizes = [architecture.wire(name).space.total for name in names]
    kinds, kind, blocks, columns = _turned_weights(architecture, names)
    signs = np.ones((len(weights), sum(sizes)))
    for sign, row in zip(signs, centred(weights, architecture)[:, columns].numpy(force=True), strict=True):
        # what scales have made equal is not in the order of its rounding
        size = np.log(np.abs(row), out=np.full(len(row), -np.inf), where=row != 0).round(6)
        order = np.lexsort((blocks, -size))
        # of weights with the same signs the first decides
        first = order[np.sort(np.unique(kind[order], return_index=True)[1])]
        flipped = _solution([(kinds[kind[i]], bool(row[i] < 0)) for i in first if row[i] != 0])
        sign[[k for k in range(len(sign)) if flipped >> k & 1]] = -1.0
    found = torch.from_numpy(signs).to(weights).split(sizes, 1)
    return dict(zip(names, found, strict=True))


def _turned_weights(
    architecture: Architecture, names: Sequence[str]
) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """Return the sets of neurons of these wires, as bits, whose signs turn some weight.

    And for all weights that are turned the number of this set, that of their block, and their column.
    """
    starts = dict(zip(names, accumulate([0, *(architecture.wire(name).space.total for name in names)]), strict=False))
    numbers: dict[int, int] = {}
    found = []
    for i, (parameter, block, columns) in enumerate(architecture.blocks):
        bits = np.zeros(block.extents, dtype=object)
        for name, axis, exponent in block.wires if parameter.role == "weight" else ():
            if name in starts and exponent % 2:
                neurons = [1 << starts[name] + k for k in range(architecture.wire(name).space.total)]
                index = broadcast_along(torch.arange(len(neurons)).unsqueeze(0), block, axis)[0]
                bits ^= np.array(neurons, dtype=object)[index.numpy()]
        found += [
            (numbers.setdefault(own, len(numbers)), i, column)
            for own, column in zip(bits.reshape(-1), columns.reshape(-1), strict=True)
            if own
        ]
    return list(numbers), *np.array(found, dtype=np.int64).reshape(-1, 3).T


def _solution(equations: Sequence[tuple[int, bool]]) -> int:
    """Return bits whose parity over each mask is the value, for masks that those before do not add up to.

    Elimination modulo 2.
    """
    pivots: dict[int, tuple[int, bool]] = {}
    for mask, value in equations:
        while mask and (known := pivots.get(mask.bit_length())):
            mask, value = mask ^ known[0], value ^ known[1]
        if mask:
            pivots[mask.bit_length()] = mask, value
    solution = 0
    for length in sorted(pivots):
        mask, value = pivots[length]
        if (mask & solution).bit_count() % 2 != value:
            solution |= 1 << length - 1
    return solution
