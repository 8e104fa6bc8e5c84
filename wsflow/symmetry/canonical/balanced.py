"""Balanced networks: the positive scalings with the smallest sum of squares.

Over t = log s, the sum of squares of an orbit is F(t) = sum_c m_c exp(2 (E t)_c): m_c are the squares of weights that
scale together, and E holds their exponents. F is convex, and where each neuron has weights on both sides its minimum
is unique: incoming and outgoing weights then have equal sums of squares, weighted by their exponents. Newton steps
of length log(1 + D) / D, where D is the largest change of an exponent, fall without a line search.

References
----------
Du, Hu and Lee 2018, "Algorithmic regularization in learning deep homogeneous models", arXiv:1806.00900 (balancedness);
Sun and Tran-Dinh 2019, "Generalized self-concordant functions", arXiv:1703.04599 (the step).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_array
from torch import Tensor

from wsflow.activations import POSITIVE
from wsflow.architecture import Architecture, Block, Parameter
from wsflow.running import take
from wsflow.symmetry.actions import broadcast_along, nested_axes
from wsflow.symmetry.canonical.incoming import Bias

_TOLERANCE = 1e-14
_MAX_STEPS = 200
_TINY = np.finfo(float).tiny
# elements of the largest temporary tensor
_CHUNK = 2**24

# from the squares (cells, n) of weights that scale together, their exponents and the square (n,) of the unit in which
# they are measured to log-scales (neurons, n)
Minimise = Callable[[np.ndarray, "Exponents", np.ndarray], np.ndarray]


def balanced_scales(weights: Tensor, architecture: Architecture, bias: Bias = "inside") -> dict[str, Tensor]:
    """Return the positive scales that make the sum of squares of each network's weights smallest.

    A neuron whose incoming or outgoing weights are all zero would go to zero or infinity: it keeps its scale, and so do
    wires that let some weights vanish while no others grow. Statistics do not count.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    bias : {"inside", "outside"}
        Whether biases count.

    Returns
    -------
    dict from the wires' names to Tensor of shape (n, neurons)

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.canonical import balanced_scales
    >>> balanced_scales(torch.tensor([[2.0, 8.0]]), Architecture.mlp([1, 1, 1], bias=False))
    {'hidden1': tensor([[2.]])}
    """
    names = _with_minimum(architecture, bias)
    return minimal_scales(weights, architecture, names, lambda cells, system, _: minimise(cells, system), bias)


def minimal_scales(
    weights: Tensor, architecture: Architecture, names: list[str], minimise: Minimise, bias: Bias = "inside"
) -> dict[str, Tensor]:
    """Return the scales (n, neurons) of these wires, whose logarithms a function of their cells and exponents finds."""
    parts = list(_cells(weights[:0], architecture, bias, names))
    if not parts:
        return {}
    system = Exponents.of(architecture, names, [rows for _, rows in parts])
    size = max(1, _CHUNK // system.matrix.shape[0])
    found = []
    for chunk in weights.double().split(size):
        # squares stay in the range of numbers, and a power of two changes no digit of the scales
        exponent = torch.frexp(chunk.abs().amax(1, keepdim=True)).exponent.clamp(-1000, 1000)
        chunk = chunk * torch.pow(2.0, -exponent.double())
        cells = torch.cat([cells for cells, _ in _cells(chunk, architecture, bias, names)], 1)
        unit = torch.pow(4.0, -exponent.double().clamp(-500, 500)).numpy(force=True)[:, 0]
        found.append(torch.from_numpy(minimise(np.ascontiguousarray(cells.numpy(force=True).T), system, unit).T))
    log_scales = torch.cat(found)
    sizes = [architecture.wire(name).space.total for name in names]
    return {name: t.exp().to(weights) for name, t in zip(names, log_scales.split(sizes, 1), strict=True)}


def _with_minimum(architecture: Architecture, bias: Bias) -> list[str]:
    """Return the wires over which the sum of squares has a minimum, where no weight is zero.

    There is none along log-scales d where all exponents E d are at most 0, and some are not 0 (a linear program).
    """
    found = [wire.name for wire in architecture.wires if POSITIVE in wire.scalings]
    while found:
        rows = [
            [sum(e for w, _, e in block.wires if w == name) for name in found]
            for parameter, block, _ in architecture.blocks
            if _counts(parameter, bias)
        ]
        exponents = np.unique(rows, axis=0)
        falling = linprog(exponents.sum(0), A_ub=exponents, b_ub=np.zeros(len(exponents)), bounds=(-1, 1))
        if falling.fun > -1e-6:
            break
        found = [name for name, d in zip(found, falling.x, strict=True) if abs(d) < 1e-6]
    return found


def _counts(parameter: Parameter, bias: Bias) -> bool:
    outside = bias == "outside" and len(parameter.shape) == 1 and "bias" in parameter.name.rpartition(".")[2]
    return parameter.role == "weight" and not outside


Rows = list[tuple[str, int, Tensor]]


def _cells(weights: Tensor, architecture: Architecture, bias: Bias, names: list[str]) -> Iterator[tuple[Tensor, Rows]]:
    """Yield sums of squares (n, cells) of each block, and by wire and exponent the neuron of each cell."""
    for parameter, block, columns in architecture.blocks:
        wires = [entry for entry in block.wires if entry[0] in names]
        if wires and _counts(parameter, bias):
            kept = sorted({i for _, axis, _ in wires for i in nested_axes(block, axis)})
            rest = [i + 1 for i in range(len(block.axes)) if i not in kept]
            squares = take(weights, torch.from_numpy(columns)).square()
            cells = squares.sum(rest) if rest else squares
            yield cells.flatten(1), [(w, e, _neurons(architecture, block, w, axis, kept)) for w, axis, e in wires]


def _neurons(architecture: Architecture, block: Block, wire: str, axis: int, kept: list[int]) -> Tensor:
    index = broadcast_along(torch.arange(architecture.wire(wire).space.total).unsqueeze(0), block, axis)
    shape = [block.extents[i] if i in kept else 1 for i in range(len(block.axes))]
    return index.expand(1, *shape).reshape(-1)


@dataclass(frozen=True, eq=False)
class Exponents:
    """The sparse matrix E (cells, neurons) of exponents: for each cell, how often it holds the scale of each neuron.

    `positive` and `negative` (neurons, cells) have the absolute values of the entries of the transposed matrix,
    `squared` their squares; `spans` has the neurons of each wire, and the sum of its extreme exponents. Where wires
    cross, log-scales of one may grow while those of the other fall by as much: `ridge` keeps Newton steps from these.
    """

    matrix: csr_array
    transposed: csr_array
    positive: csr_array
    negative: csr_array
    squared: csr_array
    spans: tuple[tuple[slice, int], ...]
    ridge: float

    @classmethod
    def of(cls, architecture: Architecture, names: list[str], parts: list[Rows]) -> Exponents:
        """Return the exponents of the cells, given by block as (wire, exponent, neurons (cells,))."""
        sizes = [architecture.wire(name).space.total for name in names]
        starts = dict(zip(names, np.cumsum([0, *sizes]).tolist(), strict=False))
        cell, neuron, value, offset = [], [], [], 0
        for rows in parts:
            count = len(rows[0][2])
            for wire, exponent, index in rows:
                cell.append(np.arange(offset, offset + count))
                neuron.append(index.numpy() + starts[wire])
                value.append(np.full(count, float(exponent)))
            offset += count
        where = np.concatenate(cell), np.concatenate(neuron)
        matrix = csr_array((np.concatenate(value), where), shape=(offset, sum(sizes)))
        transposed = matrix.T.tocsr()
        largest = {name: [0, 0] for name in names}
        for wire, exponent, _ in (row for rows in parts for row in rows):
            largest[wire] = [max(largest[wire][0], exponent), max(largest[wire][1], -exponent)]
        spans = tuple(
            (slice(starts[name], starts[name] + size), max(1, sum(largest[name])))
            for name, size in zip(names, sizes, strict=True)
        )
        positive, negative = transposed.maximum(0).tocsr(), (-transposed).maximum(0).tocsr()
        crossed = max((positive > 0).sum(0).max(), (negative > 0).sum(0).max()) > 1
        return cls(matrix, transposed, positive, negative, transposed.power(2), spans, 1e-12 if crossed else 0.0)


def minimise(cells: np.ndarray, system: Exponents) -> np.ndarray:
    """Return the minimum (neurons, n) of sum_c m_c exp(2 (E t)_c) for the m_c (cells, n) of each network.

    It is zero for a neuron with weights on one side alone.
    """
    alive = ((system.positive @ cells > 0) & (system.negative @ cells > 0)).astype(float)
    return descend(_start(cells, system, alive), cells, system, alive)


def descend(
    t: np.ndarray, cells: np.ndarray, system: Exponents, alive: np.ndarray, mean_square: float | np.ndarray = 0.0
) -> np.ndarray:
    """Return the minimum (neurons, n) of sum_c m_c exp(2 (E t)_c) - 2 mean_square (E t)_c, over all m_c > 0.

    It is found from t on, for the neurons that are alive.
    """
    goal = mean_square * (cells > 0)
    for _ in range(_MAX_STEPS):
        now = cells * np.exp(2 * (system.matrix @ t))
        gradient = alive * (system.transposed @ (now - goal))
        size = system.positive @ (now + goal) + system.negative @ (now + goal)
        if (np.abs(gradient) <= _TOLERANCE * size).all():
            break
        step = _newton(now, gradient, system, alive)
        change = (2 * np.abs(system.matrix @ step) * (cells > 0)).max(0)
        t = t + step * np.divide(np.log1p(change), change, out=np.ones_like(change), where=change > 0)
        if (change <= _TOLERANCE).all():
            break
    return t


def _start(cells: np.ndarray, system: Exponents, alive: np.ndarray, passes: int = 4) -> np.ndarray:
    """Put one wire after the other at its own minimum, where that is better than t = 0."""
    t = np.zeros_like(alive)
    for _ in range(passes):
        for neurons, exponents in system.spans:
            now = cells * np.exp(2 * (system.matrix @ t))
            outgoing, into = (
                np.where(alive > 0, side @ now, 1.0)[neurons] for side in (system.negative, system.positive)
            )
            t[neurons] += np.log(outgoing / into) / (2 * exponents)
    better = (cells * np.exp(2 * (system.matrix @ t))).sum(0) < cells.sum(0)
    return np.where(better, t, 0.0)


def _newton(
    now: np.ndarray, gradient: np.ndarray, system: Exponents, alive: np.ndarray, max_iter: int = 200
) -> np.ndarray:
    """Solve H d = -gradient by conjugate gradients, H = 2 E' diag(cells) E, preconditioned by H's diagonal."""
    diagonal = np.maximum(2 * (system.squared @ now), _TINY)
    inverse = alive / diagonal
    step, residual = np.zeros_like(gradient), -gradient
    z = inverse * residual
    direction, energy = z, (residual * z).sum(0)
    goal = 1e-6 * energy
    for _ in range(max_iter):
        image = 2 * (system.transposed @ (now * (system.matrix @ direction)))
        if system.ridge:
            image += system.ridge * diagonal * direction
        length = np.where(energy > goal, energy / np.maximum((direction * image).sum(0), _TINY), 0.0)
        step, residual = step + length * direction, residual - length * image
        z = inverse * residual
        before, energy = energy, (residual * z).sum(0)
        if (energy <= goal).all():
            break
        direction = z + energy / np.maximum(before, _TINY) * direction
    return step
