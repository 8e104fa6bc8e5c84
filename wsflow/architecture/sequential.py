"""Sequential networks: a list of layers, and the table of parameters and wires that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

from wsflow.activations import FLIP, PHASE, POSITIVE, SIGN, activation
from wsflow.architecture.parameters import Block, Parameter, Shear
from wsflow.architecture.spaces import Fixed, NeuronGroup, Space, Wire

LINEAR = "linear"
# widths in a line
SHOWN = 10


@dataclass(frozen=True)
class Layer:
    """Describe one step of a sequential network.

    Parameters
    ----------
    kind : str
        ``"linear"`` or a key of the activation table.
    name : str
        Prefix of the layer's parameters in the state dict.
    inputs, outputs : int
        Widths of a linear layer. Of an activation that learns its argument (PReLU), outputs are the numbers that
        it learns: one for each neuron, or one for all (0 or 1).
    bias : bool
        Whether a linear layer has one.
    argument : float, optional
        The activation's parameter (LeakyReLU's slope, ELU's alpha) where it is not the table's default.

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
    """Return the layers of a multi-layer perceptron (inputs, hidden widths, outputs), named as in an nn.Sequential."""
    if len(widths) < 2 or any(int(width) < 1 for width in widths):
        raise ValueError(
            f"An MLP needs at least two positive widths (inputs, hidden widths, outputs), got {list(widths)}."
        )
    activation(act)
    layers: list[Layer] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        if i:
            layers.append(Layer(act, str(2 * i - 1)))
        layers.append(Layer(LINEAR, str(2 * i), int(inputs), int(outputs), bias))
    return tuple(layers)


def described(layers: Sequence[Layer]) -> str:
    """Return widths and activations in a line, such as ``4-3-2 relu``."""
    linear = [layer for layer in layers if layer.kind == LINEAR]
    sizes = [str(layer.inputs) for layer in linear[:1]] + [str(layer.outputs) for layer in linear]
    widths = "-".join(sizes if len(sizes) <= SHOWN else [*sizes[: SHOWN // 2], "...", *sizes[-SHOWN // 2 :]])
    kinds = dict.fromkeys(layer.kind for layer in layers if layer.kind != LINEAR)
    return f"{widths} {'/'.join(kinds)}".strip()


def check_shapes(layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse layers whose parameters are missing, or have other shapes."""
    needed = parameters_of(layers)[0] if layers else ()
    if wrong := next((p for p in needed if shapes.get(p.name) != p.shape), None):
        raise ValueError(
            f"The layers need a parameter {wrong.name!r} of shape {wrong.shape}, and this architecture has "
            f"{shapes.get(wrong.name, 'none')}."
        )


def with_widths(layers: Sequence[Layer], sizes: Mapping[str, int]) -> tuple[Layer, ...]:
    """Return the layers with other hidden widths, by the names of the neuron groups."""
    linear = [layer for layer in layers if layer.kind == LINEAR]
    widths = [sizes.get(f"hidden{depth + 1}", layer.outputs) for depth, layer in enumerate(linear)]
    result, depth = [], 0
    for layer in layers:
        if layer.kind == LINEAR:
            inputs = layer.inputs if depth == 0 else widths[depth - 1]
            result.append(replace(layer, inputs=inputs, outputs=widths[depth]))
            depth += 1
        elif depth and layer.outputs > 1:
            # slopes, one for each neuron
            result.append(replace(layer, outputs=widths[depth - 1]))
        else:
            result.append(layer)
    return tuple(result)


def check_layers(layers: Sequence[Layer]) -> None:
    """Raise a ValueError that names the layers whose widths do not fit, or an activation that is unknown."""
    linear = [layer for layer in layers if layer.kind == LINEAR]
    if not linear:
        raise ValueError("A sequential network needs at least one Linear layer.")
    for before, after in pairwise(linear):
        if before.outputs != after.inputs:
            raise ValueError(
                f"Layer {before.name!r} has {before.outputs} outputs, but the next one, {after.name!r}, "
                f"has {after.inputs} inputs."
            )
    width = linear[0].inputs
    for layer in layers:
        if layer.kind == LINEAR:
            width = layer.outputs
        elif activation(layer.kind).learned and layer.outputs not in (0, 1, width):
            raise ValueError(
                f"Layer {layer.name!r} learns {layer.outputs} numbers for {width} neurons: it is one for each, or 1."
            )
        elif layer.argument is not None and not activation(layer.kind).argument:
            raise ValueError(f"Layer {layer.name!r}, {layer.kind}, takes no argument, and has {layer.argument}.")
        else:
            activation(layer.kind).exponent(layer.argument)


def parameters_of(layers: Sequence[Layer]) -> tuple[tuple[Parameter, ...], tuple[Wire, ...]]:
    """Return the parameters and wires of a sequential network.

    Each hidden layer is a neuron group and a wire; the wire's scalings are those that commute with
    every activation between the layer that produces it and the one that consumes it.
    """
    check_layers(layers)
    linear = [i for i, layer in enumerate(layers) if layer.kind == LINEAR]
    space: Space = Fixed(layers[linear[0]].inputs)
    parameters = _learned(layers[: linear[0]], space)
    wires: list[Wire] = []
    before: Intertwiners | None = None
    for depth, i in enumerate(linear):
        layer, inputs = layers[i], space
        last = depth == len(linear) - 1
        space = Fixed(layer.outputs) if last else NeuronGroup(f"hidden{depth + 1}", layer.outputs)
        between = layers[i + 1 :] if last else layers[i + 1 : linear[depth + 1]]
        behind = None if last else intertwiners(between, layer.bias, layers[linear[depth + 1]].bias)
        if behind is not None:
            wires.append(Wire(f"hidden{depth + 1}", space, behind.scalings))
        parameters += _affine(layer, space, inputs, before, behind, depth)
        parameters += _learned(between, space)
        before = behind
    return tuple(parameters), tuple(wires)


@dataclass(frozen=True)
class Intertwiners:
    """The changes that commute with the activations between two linear layers (Godfrey et al. 2022).

    A scale s before is s^degree behind; a flip adds `flip` behind, a(-z) = flip - a(z); a phase of one adds
    `half_period` before.
    """

    scalings: frozenset[str]
    degree: int = 1
    flip: float = 0.0
    half_period: float = 0.0


def intertwiners(between: Sequence[Layer], bias_before: bool, bias_behind: bool) -> Intertwiners:
    """Return what commutes with the activations between two linear layers, given whether these have biases.

    Scalings and signs commute where they do with all activations. A flip is a sign before one activation that has
    flips, with nothing but the identity behind it, and needs the bias behind; a phase is a shift of the bias before the
    first activation, and a sign behind.
    """
    active = [(activation(layer.kind), layer.argument) for layer in between if layer.kind != "identity"]
    rows = [row for row, _ in active]
    degree = prod(row.exponent(argument) for row, argument in active)
    scalings = {kind for kind in (POSITIVE, SIGN) if all(kind in row.scalings for row in rows)}
    if rows and bias_behind and FLIP in rows[-1].scalings and all(SIGN in row.scalings for row in rows[:-1]):
        return Intertwiners(frozenset({FLIP}), degree, flip=rows[-1].flip)
    if rows and bias_before and PHASE in rows[0].scalings and all(SIGN in row.scalings for row in rows[1:]):
        return Intertwiners(frozenset({*scalings, PHASE}), degree, half_period=rows[0].half_period(active[0][1]))
    return Intertwiners(frozenset(scalings), degree)


def _affine(
    layer: Layer, space: Space, inputs: Space, before: Intertwiners | None, behind: Intertwiners | None, depth: int
) -> list[Parameter]:
    """Return weight and bias of a linear layer: it consumes the wire of its inputs, and produces the next one."""
    bias = f"{layer.name}.bias"
    produced = ((f"hidden{depth + 1}", 0, 1),) if behind else ()
    consumed = ((f"hidden{depth}", 1, -before.degree),) if before else ()
    shears = (Shear(f"hidden{depth}", 1, bias, amount=before.flip),) if before and before.flip else ()
    shifts = ((f"hidden{depth + 1}", 0, behind.half_period),) if behind and behind.half_period else ()
    weight = Block((space, inputs), wires=produced + consumed, shears=shears)
    parameters = [Parameter(f"{layer.name}.weight", (layer.outputs, layer.inputs), (weight,))]
    if layer.bias:
        parameters.append(Parameter(bias, (layer.outputs,), (Block((space,), wires=produced, shifts=shifts),)))
    return parameters


def _learned(between: Sequence[Layer], space: Space) -> list[Parameter]:
    """Return what activations learn, such as the slopes of PReLU: no scaling changes it, and it is permuted along."""
    return [
        Parameter(f"{layer.name}.weight", (size,), (Block((space if size == space.total else Fixed(size),)),))
        for layer in between
        if layer.kind != LINEAR and activation(layer.kind).learned
        for size in [max(1, layer.outputs)]
    ]
