"""The architecture of a plain MLP or CNN, from the names and shapes in its state dict; all else is refused by name.

Layers that follow one another are read: linear layers, convolutions and batch norms. Shapes show neither strides nor
pooling, but these move no channel. They do not show skip connections either, so networks whose names suggest blocks
are refused, and between convolutions only positive scalings are taken: signs do not commute with max-pooling.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsflow.activations import POSITIVE, activation
from wsflow.architecture.parameters import ActivationSite, Block, Parameter, fixed_parameter
from wsflow.architecture.sequential import LINEAR, Layer, parameters_of
from wsflow.architecture.spaces import Fixed, NeuronGroup, Space, Wire

MAXIMUM_STEPS = 10_000  # of the search for an order
REMEDY = "Pass module= (what the tensors belong to) or architecture=."
SUSPECT = re.compile(
    r"block|resid|skip|shortcut|downsample|bottleneck|stage|attn|attention|embed|transpose|deconv|upconv|recurrent|"
    r"lstm|gru|gate|qkv|(?<![a-z])[qkv]_|query|key|value|(^|\.)(res\d*|[qkv])(\.|$)",
    re.IGNORECASE,
)
STATISTICS = ("running_mean", "running_var")

Shape = tuple[int, ...]
Fields = dict[str, Any]  # keywords of an Architecture


@dataclass(frozen=True)
class WeightLayer:
    """A linear layer or convolution with a weight of shape (outputs, inputs, ...), and the batch norm behind it.

    `name` and `norm` are the prefixes of their tensors; `affine` says whether the norm has a weight and a bias, and
    `counted` whether it has ``num_batches_tracked``. `scalings` commute with all that lies before the next layer.
    """

    name: str
    shape: Shape
    bias: bool
    norm: str | None = None
    affine: bool = True
    counted: bool = True
    scalings: frozenset[str] = frozenset()


def fields_of_shapes(shapes: Mapping[str, Shape], act: str, ordered: bool = True) -> Fields:
    """Return the fields of the architecture whose state dict has tensors of these shapes, with one activation.

    Where the mapping is not in the order of the forward pass (`ordered` is False), the only order that fits is found.
    """
    if activation(act).learned:
        raise ValueError(f"The activation {act!r} has weights of its own, so this is no plain MLP or CNN. {REMEDY}")
    scalings = plain_scalings([act])
    weights = (name for name, shape in shapes.items() if name.endswith(".weight") and 2 <= len(shape) <= 5)
    names = [name.removesuffix(".weight") for name in weights]
    norms = [name.removesuffix(".running_mean") for name in shapes if name.endswith(".running_mean")]
    _check_names(shapes, names, norms)
    layers = [
        WeightLayer(name, shapes[f"{name}.weight"], f"{name}.bias" in shapes, scalings=scalings) for name in names
    ]
    if not ordered:
        layers = _only_order(layers)
    _check_chain(layers)
    layers = _with_norms(layers, norms, shapes)
    if all(len(layer.shape) == 2 and layer.norm is None for layer in layers):
        return fields_of_mlp(layers, [[Layer(act, "")]] * (len(layers) - 1))
    return fields_of_cnn(layers)


def plain_scalings(acts: Sequence[str]) -> frozenset[str]:
    """Return what commutes with the activations and with any pooling: positive scalings, or nothing."""
    # a degree of 2 would turn a scale s into s^2 behind the activation
    positive = all(POSITIVE in activation(act).scalings and activation(act).degree == 1 for act in acts)
    return frozenset({POSITIVE}) if positive else frozenset()


def fields_of_mlp(linear: Sequence[WeightLayer], between: Sequence[Sequence[Layer]]) -> Fields:
    """Return the fields of a chain of linear layers, with the activations behind each of them but the last."""
    layers: list[Layer] = []
    for layer, activations in zip(linear, [*between, []], strict=True):
        layers += [Layer(LINEAR, layer.name, layer.shape[1], layer.shape[0], layer.bias), *activations]
    parameters, wires = parameters_of(layers)
    return {"parameters": parameters, "wires": wires, "layers": tuple(layers), "outputs": _tensors(linear[-1])}


def fields_of_cnn(layers: Sequence[WeightLayer]) -> Fields:
    """Return the fields of a chain with convolutions or batch norms; nothing in them runs the networks.

    Each hidden layer is a neuron group. Behind a batch norm there is a second wire: its weight compensates the scale
    of its input, which is exact for any eps, whether the activation is before or behind the norm.
    """
    parameters: list[Parameter] = []
    wires: list[Wire] = []
    sites: list[ActivationSite] = []
    inputs: Space = Fixed(layers[0].shape[1])
    consumed = ""
    for depth, layer in enumerate(layers[:-1]):
        group = NeuronGroup(f"hidden{depth + 1}", layer.shape[0])
        produced = [group.name] if layer.norm is None else [f"{group.name}.linear", group.name]
        # a norm without a weight compensates no scale before it, and makes none behind
        scalings = layer.scalings if layer.norm is None or layer.affine else frozenset()
        wires += [Wire(name, group, scalings) for name in produced]
        sites.append(ActivationSite(group.name, layer.name, 1))
        parameters += _layer_parameters(layer, group, inputs, consumed, produced[0], produced[-1])
        inputs, consumed = group, group.name
    last = layers[-1]
    parameters += _layer_parameters(last, Fixed(last.shape[0]), inputs, consumed, "", "")
    return {
        "parameters": tuple(parameters),
        "wires": tuple(wires),
        "outputs": _tensors(last),
        "activation_sites": tuple(sites),
    }


def _tensors(layer: WeightLayer) -> tuple[str, ...]:
    return (f"{layer.name}.weight", *([f"{layer.name}.bias"] if layer.bias else []))


def _layer_parameters(
    layer: WeightLayer, outputs: Space, inputs: Space, consumed: str, produced: str, normed: str
) -> Iterator[Parameter]:
    """Yield the parameters of a layer and its norm, by the names of the wires before, behind and behind the norm."""
    out = ((produced, 0, 1),) if produced else ()
    used = ((consumed, 1, -1),) if consumed else ()
    size, kernel = layer.shape[1], layer.shape[2:]
    if not kernel and size != inputs.total:
        kernel = (size // inputs.total,)  # channels times pixels
    axes = (outputs, inputs, *(Fixed(n) for n in kernel))
    view = (layer.shape[0], inputs.total, *kernel)
    weight = Block(axes, None if view == layer.shape else view, wires=out + used)
    yield Parameter(f"{layer.name}.weight", layer.shape, (weight,))
    if layer.bias:
        yield Parameter(f"{layer.name}.bias", layer.shape[:1], (Block((outputs,), wires=out),))
    if layer.norm is not None:
        yield from _norm_parameters(layer, outputs, produced, normed)


def _norm_parameters(layer: WeightLayer, space: Space, before: str, behind: str) -> Iterator[Parameter]:
    shape = layer.shape[:1]
    if layer.affine:
        weight = ((behind, 0, 1), (before, 0, -1)) if before else ()
        yield Parameter(f"{layer.norm}.weight", shape, (Block((space,), wires=weight),))
        yield Parameter(f"{layer.norm}.bias", shape, (Block((space,), wires=weight[:1]),))
    mean = ((before, 0, 1),) if before else ()
    yield Parameter(f"{layer.norm}.running_mean", shape, (Block((space,), wires=mean),), "statistic")
    yield Parameter(f"{layer.norm}.running_var", shape, (Block((space,)),), "statistic")
    if layer.counted:
        yield fixed_parameter(f"{layer.norm}.num_batches_tracked", (), "statistic")


def _check_names(shapes: Mapping[str, Shape], layers: Sequence[str], norms: Sequence[str]) -> None:
    known = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    known |= {f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias", *STATISTICS, "num_batches_tracked")}
    strange = [name for name in shapes if name not in known]
    if strange or not layers:
        raise ValueError(
            "The architecture of this state dict is not that of a plain MLP or CNN"
            + (f" (what is {strange[0]!r}, of shape {shapes[strange[0]]}?)" if strange else " (it has no 2-d weights)")
            + f". {REMEDY}"
        )
    nested = [name for name in (*layers, *norms) if SUSPECT.search(name) or re.search(r"(^|\.)\d+\.", name)]
    if nested:
        raise ValueError(
            f"The name {nested[0]!r} speaks of a block: shapes do not show whether anything leads around it, so the "
            f"architecture cannot be inferred. {REMEDY}"
        )


def _check_chain(layers: Sequence[WeightLayer]) -> None:
    for before, after in itertools.pairwise(layers):
        if not _follows(before, after):
            raise ValueError(
                f"{after.name + '.weight'!r} of shape {after.shape} does not follow {before.name + '.weight'!r} of "
                f"shape {before.shape}, so this is no plain MLP or CNN, or its tensors are in another order. {REMEDY}"
            )
    if len(layers[-1].shape) > 2:
        raise ValueError(
            f"The last layer, {layers[-1].name + '.weight'!r}, is a convolution, and shapes do not show what follows. "
            f"{REMEDY}"
        )


def _follows(before: WeightLayer, after: WeightLayer) -> bool:
    outputs, inputs = before.shape[0], after.shape[1]
    if len(before.shape) == len(after.shape):
        return outputs == inputs
    # conv -> flatten -> linear: channels times pixels
    return len(after.shape) == 2 and outputs > 0 and inputs % outputs == 0


def _only_order(layers: Sequence[WeightLayer]) -> list[WeightLayer]:
    """Return the only order in which the widths fit and numbered names keep their order."""
    families: dict[str, list[WeightLayer]] = {}
    for layer in sorted(layers, key=lambda layer: [int(n) for n in re.findall(r"\d+", layer.name)]):
        families.setdefault(re.sub(r"\d+", "#", layer.name), []).append(layer)
    orders = _orders(list(families.values()), [], itertools.count())
    first, second = next(orders, None), next(orders, None)
    if first is None or second is not None:
        reason = "no order of its layers fits" if first is None else "several orders of its layers fit"
        raise ValueError(f"This format does not keep the order of tensors, and {reason}. {REMEDY}")
    return first


def _orders(
    families: list[list[WeightLayer]], done: list[WeightLayer], steps: Iterator[int]
) -> Iterator[list[WeightLayer]]:
    if next(steps) > MAXIMUM_STEPS:
        raise ValueError(f"This format does not keep the order of tensors, and the layers are too many. {REMEDY}")
    if not any(families):
        # convolutions come before linear layers, so that the last one is linear
        if len(done[-1].shape) == 2:
            yield done
        return
    for i, family in enumerate(families):
        if family and (not done or _follows(done[-1], family[0])):
            yield from _orders([*families[:i], family[1:], *families[i + 1 :]], [*done, family[0]], steps)


def _with_norms(layers: Sequence[WeightLayer], norms: Sequence[str], shapes: Mapping[str, Shape]) -> list[WeightLayer]:
    found = list(layers)
    for norm in norms:
        i = _layer_of_norm(found, norm, shapes[f"{norm}.running_mean"])
        counted = f"{norm}.num_batches_tracked" in shapes
        found[i] = replace(found[i], norm=norm, affine=f"{norm}.weight" in shapes, counted=counted)
    return found


def _layer_of_norm(layers: Sequence[WeightLayer], norm: str, shape: Shape) -> int:
    """Return the index of the layer before a batch norm, by its place in a Sequential, its number or its size."""
    parent, leaf, number = _split(norm)
    fitting = [i for i, layer in enumerate(layers) if layer.shape[:1] == shape]
    if leaf:
        chosen = [i for i in fitting if number >= 0 and _split(layers[i].name)[2] == number] or fitting
    else:
        siblings = [(_split(layer.name), i) for i, layer in enumerate(layers)]
        earlier = [(n, i) for (*where, n), i in siblings if where == [parent, ""] and n < number]
        chosen = [i for _, i in [max(earlier, default=(0, -1))] if i in fitting]
    if len(chosen) != 1 or layers[chosen[0]].norm is not None:
        raise ValueError(f"It is not clear behind which layer the norm {norm!r} of {shape[0]} channels is. {REMEDY}")
    return chosen[0]


def _split(name: str) -> tuple[str, str, int]:
    """Return a name's parent, its leaf without the number at the end, and that number."""
    parent, _, leaf = name.rpartition(".")
    digits = re.search(r"\d*$", leaf)
    number = digits.group() if digits else ""
    return parent, leaf.removesuffix(number), int(number) if number else -1
