"""The linear chart in which flips are plain signs.

The sigmoid is 1/2 + tanh(z / 2) / 2: counted from c/2, a function with a(-z) = c - a(z) is odd. So a layer that
consumes such neurons has b' = b + c/2 sum_i W_i as the bias that a flip leaves alone, and comparisons of
networks may treat flips as signs there.

References
----------
Kurkova and Kainen 1994, "Functionally equivalent feedforward neural networks", Neural Computation 6(3), 543-558.
"""

from __future__ import annotations

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
