"""How networks look before training: one function and row for each scheme."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsflow.architecture import Architecture


def normal(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Every weight from N(0, 0.1), the variance that the thesis uses (Erdogan 2025).

    Parameters
    ----------
    architecture : Architecture
    n : int
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (n, d)
    """
    return torch.randn(n, architecture.n_weights, generator=generator) * 0.1**0.5


def uniform(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Weights and biases uniform on +-1/sqrt(fan in), as ``torch.nn.Linear`` draws them.

    Parameters
    ----------
    architecture : Architecture
    n : int
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (n, d)
    """
    bound = torch.ones(architecture.n_weights)
    fan_in = {}
    for parameter in architecture.parameters:
        layer = parameter.name.rpartition(".")[0]
        if len(parameter.shape) > 1:
            fan_in[layer] = parameter.size // parameter.shape[0]
        bound[architecture.slices[parameter.name]] = fan_in.get(layer, 1) ** -0.5
    return (2 * torch.rand(n, architecture.n_weights, generator=generator) - 1) * bound


INITIALISATIONS: dict[str, Callable[[Architecture, int, torch.Generator], Tensor]] = {
    "normal": normal,
    "uniform": uniform,
}
