"""The charts in which flips and phases are plain signs.

The sigmoid is 1/2 + tanh(z / 2) / 2: counted from c/2, a function with a(-z) = c - a(z) is odd. So a layer that
consumes such neurons has b' = b + c/2 sum_i W_i as the bias that a flip leaves alone, and comparisons of
networks may treat flips as signs there. A bias b that a phase of half a period u shifts is the point
(u / pi) (cos, sin)(pi b / u) of a circle on which distances are those of biases: a phase takes it to the opposite
point, and changes the sign of the sine alone if it comes with a sign.

References
----------
Kurkova and Kainen 1994, "Functionally equivalent feedforward neural networks", Neural Computation 6(3), 543-558.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.running import take
from wsflow.symmetry.actions import add_to_biases, flip_shears


def centred(weights: Tensor, architecture: Architecture) -> Tensor:
    """Return weights (n, d) whose biases count activations from the centre of their flip.

    Examples
    --------
    A flip of the sigmoid neuron is w -> -w, b -> -b, v -> -v here, and the last bias stays:

    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.centring import centred
    >>> architecture = Architecture.mlp([1, 1, 1], "sigmoid")
    >>> w = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    >>> flip = Action(architecture, {}, {"hidden1": torch.tensor([[-1.0]])})
    >>> centred(w, architecture).tolist(), centred(flip(w), architecture).tolist()
    ([[1.0, 2.0, 3.0, 5.5]], [[-1.0, -2.0, -3.0, 5.5]])
    """
    for shear, _, columns, biases in flip_shears(architecture):
        weights = add_to_biases(weights, take(weights, columns), biases, 0.5 * shear.amount)
    return weights


@dataclass(frozen=True, eq=False)
class BiasCircle:
    """Biases that the phases of a wire shift along one axis of a block; with the columns of their cosines and sines."""

    wire: str
    axis: int
    half_period: float
    cosines: np.ndarray
    sines: np.ndarray


def bias_circles(architecture: Architecture) -> dict[int, BiasCircle]:
    """Return the circles of biases by number of the block; sines have columns of their own, behind the weights."""
    circles, first = {}, architecture.n_weights
    for number, (_, block, columns) in enumerate(architecture.blocks):
        # two wires that shift one bias would need a common period
        if len(block.shifts) == 1:
            ((wire, axis, half_period),) = block.shifts
            sines = first + np.arange(columns.size).reshape(columns.shape)
            circles[number] = BiasCircle(wire, axis, half_period, columns, sines)
            first += columns.size
    return circles


def compared(weights: Tensor, architecture: Architecture) -> Tensor:
    """Return weights (n, d) as rows (n, d + m) in which signs, flips and phases are all plain signs.

    Examples
    --------
    A phase takes the bias to the opposite point, (cos, sin) -> -(cos, sin), and v to -v:

    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.centring import compared
    >>> architecture = Architecture.mlp([1, 1, 1], "sine")
    >>> w = torch.tensor([[1.0, torch.pi / 2, 3.0, 4.0]])
    >>> phase = Action(architecture, {}, {}, {"hidden1": torch.tensor([[1]])})
    >>> compared(torch.cat([w, phase(w)]), architecture).round(decimals=4).abs()
    tensor([[1., 0., 3., 4., 1.],
            [1., 0., 3., 4., 1.]])
    >>> compared(phase(w), architecture)[0, [2, 4]].tolist()
    [-3.0, -1.0]
    """
    rows = centred(weights, architecture)
    for circle in bias_circles(architecture).values():
        columns = torch.from_numpy(circle.cosines.reshape(-1)).to(rows.device)
        radius = circle.half_period / pi
        angle = rows[:, columns] / radius
        rows = torch.cat([rows.index_copy(1, columns, radius * angle.cos()), radius * angle.sin()], 1)
    return rows
