"""Sequential networks: a list of layers, and the table of parameters and wires that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsflow.activations import ACTIVATIONS, activation
from wsflow.architecture.parameters import Block, Parameter
from wsflow.architecture.spaces import Fixed, NeuronGroup, Space, Wire

LINEAR = "linear"


@dataclass(frozen=True)
class Layer:
    """One step of a sequential network.

    Parameters
    ----------
    kind : str
        ``"linear"`` or a key of the activation table.
    name : str
        Prefix of the layer's parameters in the state dict.
    inputs, outputs : int
        Widths of a linear layer.
    bias : bool
        Whether a linear layer has one.
    argument : float, optional
        The activation's parameter (LeakyReLU's slope, ELU's alpha) where it is not torch's default.

    Examples
    --------
    >>> from wsflow.architecture import Architecture, Layer
    >>> layers = [Layer("linear", "in", 4, 3), Layer("leaky_relu", "act", argument=0.2), Layer("linear", "out", 3, 2)]
    >>> Architecture.sequential(layers).names
    ('in.weight', 'in.bias', 'out.weight', 'out.bias')
    """

    kind: str
    name: str
    inputs: int = 0
    outputs: int = 0
    bias: bool = True
    argument: float | None = None


def mlp_layers(widths: Sequence[int], act: str, bias: bool) -> tuple[Layer, ...]:
    """The layers of a multi-layer perceptron, named as in an ``nn.Sequential``.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden widths, outputs.
    act : str
        A key of the activation table.
    bias : bool

    Returns
    -------
    tuple of Layer

    Raises
    ------
    ValueError
        If there are fewer than two widths, or one is not positive.
    """
    if len(widths) < 2 or any(int(width) < 1 for width in widths):
        raise ValueError(
            f"An MLP needs at least two positive widths (inputs, hidden widths, outputs), got {list(widths)}."
        )
    activation(act)
    layers: list[Layer] = []
    for i, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        if i:
            layers.append(Layer(act, str(2 * i - 1)))
        layers.append(Layer(LINEAR, str(2 * i), int(inputs), int(outputs), bias))
    return tuple(layers)


def check_layers(layers: Sequence[Layer]) -> None:
    """Refuse a list of layers whose widths do not fit, or that wsflow cannot run.

    Parameters
    ----------
    layers : sequence of Layer

    Raises
    ------
    ValueError
        Naming the first two layers that do not fit, or the unknown activation.
    """
    linear = [layer for layer in layers if layer.kind == LINEAR]
    if not linear:
        raise ValueError("A sequential network needs at least one Linear layer.")
    for before, after in zip(linear[:-1], linear[1:], strict=True):
        if before.outputs != after.inputs:
            raise ValueError(
                f"Layer {before.name!r} has {before.outputs} outputs, but the next one, {after.name!r}, "
                f"has {after.inputs} inputs."
            )
    unknown = [layer.kind for layer in layers if layer.kind != LINEAR and layer.kind not in ACTIVATIONS]
    if unknown:
        activation(unknown[0])


def parameters_of(layers: Sequence[Layer]) -> tuple[tuple[Parameter, ...], tuple[Wire, ...]]:
    """The parameters and wires of a sequential network.

    Each hidden layer is a neuron group and a wire; the wire's scalings are those that commute with
    every activation between the layer that produces it and the one that consumes it.

    Parameters
    ----------
    layers : sequence of Layer

    Returns
    -------
    parameters : tuple of Parameter
    wires : tuple of Wire
    """
    check_layers(layers)
    linear = [i for i, layer in enumerate(layers) if layer.kind == LINEAR]
    parameters: list[Parameter] = []
    wires: list[Wire] = []
    space: Space = Fixed(layers[linear[0]].inputs)
    consumed: tuple[tuple[str, int, int], ...] = ()
    for depth, i in enumerate(linear):
        layer, before = layers[i], space
        produced: tuple[tuple[str, int, int], ...] = ()
        if depth == len(linear) - 1:
            space = Fixed(layer.outputs)
        else:
            space = NeuronGroup(f"hidden{depth + 1}", layer.outputs)
            between = layers[i + 1 : linear[depth + 1]]
            scalings = frozenset.intersection(
                *(activation(a.kind).scalings for a in between or [Layer("identity", "")])
            )
            wires.append(Wire(space.name, space, scalings))
            produced = ((space.name, 0, 1),)
        parameters.append(
            Parameter(
                f"{layer.name}.weight",
                (layer.outputs, layer.inputs),
                (Block((space, before), wires=produced + consumed),),
            )
        )
        if layer.bias:
            parameters.append(Parameter(f"{layer.name}.bias", (layer.outputs,), (Block((space,), wires=produced),)))
        consumed = ((space.name, 1, -1),) if isinstance(space, NeuronGroup) else ()
    return tuple(parameters), tuple(wires)
