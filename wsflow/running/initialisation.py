"""Weights before training: one function and row for each scheme; each returns weights (n, d).

Whatever the scheme, norms begin with gains of one and shifts of zero, and their statistics with means of zero and
variances of one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from wsflow.activations import activation
from wsflow.architecture import Architecture, Parameter
from wsflow.architecture.sequential import LINEAR, Layer
from wsflow.running.layer_types import LayerType, layer_types

OMEGA_0 = 30.0
# of positions and tokens (Dosovitskiy et al. 2021, arXiv:2010.11929)
TOKEN_SPREAD = 0.02
SLOPE = 0.25


class Start(NamedTuple):
    """The law of a parameter's first values: uniform on +-bound, normal, or a constant."""

    bound: float = 0.0
    spread: float = 0.0
    constant: float = 0.0


def torch_default(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Draw the first values of torch's layers.

    Those of linear layers and convolutions are uniform on +-1/sqrt(fan in), of recurrent layers on
    +-1/sqrt(hidden units), of the projections of attention by Glorot's rule with biases of zero; embeddings are
    standard normal, slopes of PReLU 1/4. For parameters that are of no layer of torch: a factor is one, and what is
    added or joined to activations, such as a position or a token, is N(0, 0.02^2).

    Raises
    ------
    ValueError
        If a parameter is used in another way; it is named.

    References
    ----------
    Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS).
    """
    return _drawn(architecture, n, generator, _torch_start)


def kaiming(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Draw the weights of linear layers and convolutions from N(0, 2 / fan in), biases are zero; others as torch does.

    References
    ----------
    He, Zhang, Ren and Sun 2015, "Delving deep into rectifiers", arXiv:1502.01852.
    """
    return _drawn(architecture, n, generator, _kaiming_start)


def normal(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Draw every weight from N(0, 0.1), the variance that the thesis uses (Erdogan 2025)."""
    weights = torch.randn(n, architecture.n_weights, generator=generator, dtype=torch.float32) * 0.1**0.5
    return _with_norms(weights, architecture)


def uniform(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Draw all weights and biases uniformly on +-1/sqrt(fan in), as ``torch.nn.Linear`` does."""
    bound = torch.ones(architecture.n_weights, dtype=torch.float32)
    fan_in = {}
    for parameter in architecture.parameters:
        layer = parameter.name.rpartition(".")[0]
        if len(parameter.shape) > 1:
            fan_in[layer] = parameter.size // parameter.shape[0]
        bound[architecture.slices[parameter.name]] = fan_in.get(layer, 1) ** -0.5
    return _with_norms(_uniform(bound, n, generator), architecture)


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
    layers = _sine_layers(architecture, "siren")
    bound = torch.empty(architecture.n_weights, dtype=torch.float32)
    for layer, after in pairwise((*layers, None)):
        if layer is not None and layer.kind == LINEAR:
            spread = 1 / layer.inputs if layer is layers[0] else (6 / layer.inputs) ** 0.5 / OMEGA_0
            scale = 1.0 if after is None else OMEGA_0 / _frequency(after)
            bound[architecture.slices[f"{layer.name}.weight"]] = spread * scale
            if layer.bias:
                bound[architecture.slices[f"{layer.name}.bias"]] = scale * layer.inputs**-0.5
    return _uniform(bound, n, generator)


def siren_small(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Draw networks of sines that begin nearly flat: as those of public collections of implicit representations.

    Weights of all layers, the first included, are uniform on +-sqrt(6 / n) / 30 for n inputs (+-.058 for the two
    coordinates of a pixel), for sin(30 z); biases are zero, but for those of the outputs, which are 1/2.

    Raises
    ------
    ValueError
        If there is another activation, or the architecture has no list of layers.

    References
    ----------
    Navon, Shamsian, Achituve, Fetaya, Chechik and Maron 2023, "Equivariant architectures for learning in deep weight
    spaces", arXiv:2301.12780 (its collection of implicit representations).
    """
    layers = _sine_layers(architecture, "siren_small")
    bound, constant = torch.zeros(2, architecture.n_weights, dtype=torch.float32).unbind()
    for layer, after in pairwise((*layers, None)):
        if layer is not None and layer.kind == LINEAR:
            scale = 1.0 if after is None else OMEGA_0 / _frequency(after)
            bound[architecture.slices[f"{layer.name}.weight"]] = (6 / layer.inputs) ** 0.5 / OMEGA_0 * scale
            if layer.bias and after is None:
                constant[architecture.slices[f"{layer.name}.bias"]] = 0.5
    return _uniform(bound, n, generator) + constant


def _sine_layers(architecture: Architecture, scheme: str) -> tuple[Layer, ...]:
    layers = architecture.layers
    if {layer.kind for layer in layers} != {LINEAR, "sine"} or layers[-1].kind != LINEAR:
        raise ValueError(
            f"The initialisation {scheme!r} is for linear layers with sines between them, and the networks are "
            f"{architecture}. Choose activation='sine', or another initialisation."
        )
    return layers


def _uniform(bound: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(n, len(bound), generator=generator, dtype=torch.float32) - 1) * bound


def _frequency(layer: Layer) -> float:
    return activation(layer.kind).default if layer.argument is None else layer.argument


def _torch_start(parameter: Parameter, kind: LayerType) -> Start:
    if kind.part == "attention":
        return Start(bound=(6 / sum(parameter.shape)) ** 0.5)
    if kind.part == "attention_token":
        return Start(spread=(2 / (parameter.shape[0] * kind.fan_in + parameter.shape[1] * kind.fan_in)) ** 0.5)
    fixed = {"one": 1.0, "zero": 0.0, "attention_bias": 0.0, "unused": 0.0, "slope": SLOPE}
    if kind.part in fixed:
        return Start(constant=fixed[kind.part])
    spread = {"embedding": 1.0, "token": TOKEN_SPREAD}
    return Start(spread=spread[kind.part]) if kind.part in spread else Start(bound=kind.fan_in**-0.5)


def _kaiming_start(parameter: Parameter, kind: LayerType) -> Start:
    if kind.part == "weight":
        return Start(spread=(2 / kind.fan_in) ** 0.5)
    return Start() if kind.part == "bias" else _torch_start(parameter, kind)


def _drawn(
    architecture: Architecture,
    n: int,
    generator: torch.Generator,
    start: Callable[[Parameter, LayerType], Start],
) -> Tensor:
    """Draw networks whose parameters start by their types."""
    types = layer_types(architecture)
    unknown = next((name for name in architecture.names if name not in types), None)
    if unknown is not None:
        raise ValueError(
            f"What the parameter {unknown!r} is used for does not say how it begins. Choose the initialisation "
            "'normal', or 'module' where a module or a function that builds one is given."
        )
    starts = [start(parameter, types[parameter.name]) for parameter in architecture.parameters]
    sizes = torch.tensor([parameter.size for parameter in architecture.parameters])
    bound, spread, constant = torch.tensor(starts, dtype=torch.float32).T.repeat_interleave(sizes, dim=1)
    weights = _uniform(bound, n, generator) if bound.any() else bound.repeat(n, 1)
    if spread.any():
        weights += torch.randn(weights.shape, generator=generator, dtype=torch.float32) * spread
    for parameter in architecture.parameters:
        padding = types[parameter.name].padding
        if padding is not None:
            weights[:, architecture.slices[parameter.name]].view(n, *parameter.shape)[:, padding] = 0
    return weights + constant


def _with_norms(weights: Tensor, architecture: Architecture) -> Tensor:
    """Return weights with the constants at which norms and statistics begin."""
    for name, kind in layer_types(architecture).items():
        if kind.part in ("one", "zero"):
            weights[:, architecture.slices[name]] = float(kind.part == "one")
    return weights


INITIALISATIONS: dict[str, Callable[[Architecture, int, torch.Generator], Tensor]] = {
    # one scheme under its author's two names
    "he": kaiming,
    "kaiming": kaiming,
    "normal": normal,
    "siren": siren,
    "siren_small": siren_small,
    "torch": torch_default,
    "uniform": uniform,
}
