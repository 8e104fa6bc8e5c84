"""Reading a network: from a torch module, or from the shapes in a state dict, to its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsflow.activations import ACTIVATIONS, activation
from wsflow.architecture.layers import LINEAR, Layer

_KINDS = {row.module: kind for kind, row in ACTIVATIONS.items()}


def layers_of_module(module: Any) -> tuple[Layer, ...]:
    """The layers of an ``nn.Sequential`` (nested ones too) of Linear and activation layers.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    tuple of Layer

    Raises
    ------
    ValueError
        If a layer is neither; the error names it and the way around.
    """
    return tuple(_flattened(module, ""))


def _flattened(module: Any, prefix: str) -> list[Layer]:
    if type(module).__name__ == "Sequential":
        return [layer for name, child in module.named_children() for layer in _flattened(child, f"{prefix}{name}.")]
    return [_layer(module, prefix.rstrip("."))]


def _layer(module: Any, name: str) -> Layer:
    kind = type(module).__name__
    if kind == "Linear" and name:
        return Layer(LINEAR, name, module.in_features, module.out_features, module.bias is not None)
    if kind not in _KINDS:
        raise ValueError(
            f"The layer {name or 'of the module'!r} is a {kind}, which Architecture.from_module does not read: it "
            "reads nn.Sequential of Linear and activation layers. Describe the network by hand with "
            "Architecture(parameters=..., wires=...)."
        )
    return Layer(_KINDS[kind], name, argument=_argument(_KINDS[kind], module))


def _argument(kind: str, module: Any) -> float | None:
    if kind == "softplus" and (module.beta, module.threshold) != (1, 20):
        raise ValueError(
            "A Softplus layer with its own beta or threshold is not in wsflow's table: use torch's defaults."
        )
    if kind == "gelu" and module.approximate != "none":
        raise ValueError("A GELU layer with an approximation is not in wsflow's table: use approximate='none'.")
    row = activation(kind)
    if not row.argument:
        return None
    value = float(getattr(module, row.argument))
    return None if value == row.default else value


def layers_of_shapes(shapes: Mapping[str, tuple[int, ...]], activation: str) -> tuple[Layer, ...]:
    """The layers of a plain MLP whose state dict has tensors of these shapes.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        In the order of the forward pass.
    activation : str
        The activation between the linear layers.

    Returns
    -------
    tuple of Layer

    Raises
    ------
    ValueError
        If these are not the tensors of a plain MLP.
    """
    weights = [name for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2]
    biases = {name.removesuffix("weight") + "bias" for name in weights}
    strange = [name for name in shapes if name not in weights and not (name in biases and len(shapes[name]) == 1)]
    if strange or not weights:
        raise ValueError(
            "The architecture of this state dict is not that of a plain MLP"
            + (f" (what is {strange[0]!r}, of shape {shapes[strange[0]]}?)" if strange else " (it has no 2-d weights)")
            + ". Pass architecture=."
        )
    layers: list[Layer] = []
    for name in weights:
        prefix = name.removesuffix(".weight")
        if layers:
            layers.append(Layer(activation, ""))
        outputs, inputs = shapes[name]
        layers.append(Layer(LINEAR, prefix, inputs, outputs, f"{prefix}.bias" in shapes))
    return tuple(layers)
