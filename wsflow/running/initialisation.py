"""Weights before training: one function and row for each scheme; each returns weights (n, d)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from wsflow.activations import activation
from wsflow.architecture import Architecture
from wsflow.architecture.sequential import LINEAR, Layer

OMEGA_0 = 30.0


def normal(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Draw every weight from N(0, 0.1), the variance that the thesis uses (Erdogan 2025)."""
    return torch.randn(n, architecture.n_weights, generator=generator, dtype=torch.float32) * 0.1**0.5


def uniform(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Draw weights and biases uniformly on +-1/sqrt(fan in), as ``torch.nn.Linear`` does."""
    bound = torch.ones(architecture.n_weights, dtype=torch.float32)
    fan_in = {}
    for parameter in architecture.parameters:
        layer = parameter.name.rpartition(".")[0]
        if len(parameter.shape) > 1:
            fan_in[layer] = parameter.size // parameter.shape[0]
        bound[architecture.slices[parameter.name]] = fan_in.get(layer, 1) ** -0.5
    return _uniform(bound, n, generator)


def siren(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Draw networks of sines whose layers all begin with the same spread of values.

    For sin(omega z) and n inputs: weights of the first layer are uniform on +-30 / (omega n), those of hidden layers on
    +-sqrt(6 / n) / omega, biases on +-30 / (omega sqrt(n)); weights of the last layer on +-sqrt(6 / n) / 30, its
    biases on +-1 / sqrt(n). With omega = 30 these are the bounds of the paper and its code; another omega changes the
    scale of the weights, not the functions.

    Raises
    ------
    ValueError
        If there is another activation, or the architecture has no list of layers.

    References
    ----------
    Sitzmann et al. 2020, "Implicit neural representations with periodic activation functions", arXiv:2006.09661,
    section 3.2.
    """
    layers = architecture.layers
    if {layer.kind for layer in layers} != {LINEAR, "sine"} or layers[-1].kind != LINEAR:
        raise ValueError(
            f"The initialisation 'siren' is for linear layers with sines between them, and the networks are "
            f"{architecture}. Choose activation='sine', or another initialisation."
        )
    bound = torch.empty(architecture.n_weights, dtype=torch.float32)
    for layer, after in pairwise((*layers, None)):
        if layer is not None and layer.kind == LINEAR:
            spread = 1 / layer.inputs if layer is layers[0] else (6 / layer.inputs) ** 0.5 / OMEGA_0
            scale = 1.0 if after is None else OMEGA_0 / _frequency(after)
            bound[architecture.slices[f"{layer.name}.weight"]] = spread * scale
            if layer.bias:
                bound[architecture.slices[f"{layer.name}.bias"]] = scale * layer.inputs**-0.5
    return _uniform(bound, n, generator)


def _uniform(bound: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(n, len(bound), generator=generator, dtype=torch.float32) - 1) * bound


def _frequency(layer: Layer) -> float:
    return activation(layer.kind).default if layer.argument is None else layer.argument


INITIALISATIONS: dict[str, Callable[[Architecture, int, torch.Generator], Tensor]] = {
    "normal": normal,
    "siren": siren,
    "uniform": uniform,
}
