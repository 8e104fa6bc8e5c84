"""Inferring a plain MLP or CNN from the names and shapes in its state dict, or refusing by name.

Layers that follow one another are read: linear layers, convolutions and batch norms. Shapes show neither strides nor
pooling, but these move no channel. They do not show skip connections either, so networks whose names speak of blocks
are refused, and between convolutions only positive scalings are taken: signs do not commute with max-pooling.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsflow.activations import POSITIVE, activation
from wsflow.architecture.layers import LINEAR, Layer, parameters_of
from wsflow.architecture.parameters import Block, Parameter, Tap, plain
from wsflow.architecture.spaces import Fixed, NeuronGroup, Space, Wire

MAXIMUM_STEPS = 10_000  # of the search for an order
REMEDY = "Pass module= (what the tensors belong to) or architecture=."
SUSPECT = re.compile(
    r"block|resid|skip|shortcut|downsample|bottleneck|stage|attn|attention|embed|transpose|deconv|upconv|recurrent|"
    r"lstm|gru|gate|qkv|[qkv]_|query|key|value|(^|\.)(res\d*|[qkv])(\.|$)",
    re.IGNORECASE,
)
STATISTICS = ("running_mean", "running_var")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """A linear layer or convolution, and the batch norm behind it.

    Parameters
    ----------
    name : str
        Prefix of its tensors.
    shape : tuple of int
        Of the weight: (outputs, inputs, ...).
    bias : bool
    norm : str, optional
        Prefix of the batch norm's tensors.
    affine : bool
        Whether the batch norm has a weight and a bias.
    counted : bool
        Whether the batch norm has ``num_batches_tracked``.
    scalings : frozenset of str
        What commutes with whatever is between it and the next layer.
    """

    name: str
    shape: Shape
    bias: bool
    norm: str | None = None
    affine: bool = True
    counted: bool = True
    scalings: frozenset[str] = frozenset()


def parts_of_shapes(shapes: Mapping[str, Shape], act: str, ordered: bool = True) -> dict[str, Any]:
    """What an architecture is made of, for a plain MLP or CNN whose state dict has tensors of these shapes.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
    act : str
        The activation between the layers: a key of the activation table.
    ordered : bool
        Whether the order is that of the forward pass; where it is not, the only order that fits is found.

    Returns
    -------
    dict
        Keywords of an `Architecture`.

    Raises
    ------
    ValueError
        If these are not the tensors of a plain MLP or CNN, or it is not clear; the reason is named.

    Examples
    --------
    >>> from wsflow.architecture.inference import parts_of_shapes
    >>> shapes = {"conv.weight": (8, 3, 5, 5), "conv.bias": (8,), "fc.weight": (10, 128)}
    >>> [block.extents for block in parts_of_shapes(shapes, "relu")["parameters"][2].blocks]
    [(10, 8, 16)]
    """
    if activation(act).learned:
        raise ValueError(f"The activation {act!r} has weights of its own, so this is no plain MLP or CNN. {REMEDY}")
    scalings = plain_scalings([act])
    layers = [name.removesuffix(".weight") for name, shape in shapes.items() if _is_layer(name, shape)]
    norms = [name.removesuffix(".running_mean") for name in shapes if name.endswith(".running_mean")]
    _check_names(shapes, layers, norms)
    stages = [Stage(name, shapes[f"{name}.weight"], f"{name}.bias" in shapes, scalings=scalings) for name in layers]
    if not ordered:
        stages = _only_order(stages)
    _check_chain(stages)
    stages = _with_norms(stages, {name: shapes[f"{name}.running_mean"] for name in norms}, shapes)
    if all(len(stage.shape) == 2 and stage.norm is None for stage in stages):
        return sequential_parts(stages, [[Layer(act, "")]] * (len(stages) - 1))
    return parts_of_stages(stages)


def plain_scalings(acts: Sequence[str]) -> frozenset[str]:
    """What commutes with activations, and with whatever pooling there may be: at most positive scalings.

    Parameters
    ----------
    acts : sequence of str
        Keys of the activation table.

    Returns
    -------
    frozenset of str

    Examples
    --------
    >>> from wsflow.architecture.inference import plain_scalings
    >>> plain_scalings(["relu"]), plain_scalings(["relu", "tanh"])
    (frozenset({'positive'}), frozenset())
    """
    # a degree of 2 would turn a scale s into s^2 behind the activation
    positive = all(POSITIVE in activation(act).scalings and activation(act).degree == 1 for act in acts)
    return frozenset({POSITIVE}) if positive else frozenset()


def sequential_parts(stages: Sequence[Stage], between: Sequence[Sequence[Layer]]) -> dict[str, Any]:
    """What the architecture of a chain of linear layers is made of.

    Parameters
    ----------
    stages : sequence of Stage
    between : sequence of sequence of Layer
        The activations behind each stage but the last.

    Returns
    -------
    dict
        Keywords of an `Architecture`.
    """
    layers: list[Layer] = []
    for stage, after in zip(stages, [*between, []], strict=True):
        layers += [Layer(LINEAR, stage.name, stage.shape[1], stage.shape[0], stage.bias), *after]
    parameters, wires = parameters_of(layers)
    return {"parameters": parameters, "wires": wires, "layers": tuple(layers), "outputs": _tensors(stages[-1])}


def parts_of_stages(stages: Sequence[Stage]) -> dict[str, Any]:
    """What the architecture of a chain with convolutions or batch norms is made of.

    Each hidden stage is a neuron group. Behind a batch norm there is a second wire: its weight makes up for the
    scale of what comes in, which is exact for any eps, and true whether the activation is before or behind the norm.

    Parameters
    ----------
    stages : sequence of Stage

    Returns
    -------
    dict
        Keywords of an `Architecture`; nothing in it runs the networks.
    """
    parameters: list[Parameter] = []
    wires: list[Wire] = []
    taps: list[Tap] = []
    space: Space = Fixed(stages[0].shape[1])
    consumed = ""
    for depth, stage in enumerate(stages):
        before, outputs = space, stage.shape[0]
        if depth == len(stages) - 1:
            parameters += _stage_parameters(stage, Fixed(outputs), before, consumed, "", "")
            break
        space = NeuronGroup(f"hidden{depth + 1}", outputs)
        made = [space.name] if stage.norm is None else [f"{space.name}.linear", space.name]
        # a norm without a weight has nothing that makes up for a scale before it, and nothing that makes one behind
        scalings = stage.scalings if stage.norm is None or stage.affine else frozenset()
        wires += [Wire(name, space, scalings) for name in made]
        taps.append(Tap(space.name, stage.name, 1))
        parameters += _stage_parameters(stage, space, before, consumed, made[0], made[-1])
        consumed = space.name
    return {
        "parameters": tuple(parameters),
        "wires": tuple(wires),
        "outputs": _tensors(stages[-1]),
        "taps": tuple(taps),
    }


def _tensors(stage: Stage) -> tuple[str, ...]:
    return (f"{stage.name}.weight", *([f"{stage.name}.bias"] if stage.bias else []))


def _stage_parameters(
    stage: Stage, space: Space, before: Space, consumed: str, made: str, after: str
) -> Iterator[Parameter]:
    produced = ((made, 0, 1),) if made else ()
    used = ((consumed, 1, -1),) if consumed else ()
    inputs, tail = stage.shape[1], stage.shape[2:]
    if len(tail) == 0 and inputs != before.total:
        tail = (inputs // before.total,)  # channels times pixels
    axes = (space, before, *(Fixed(size) for size in tail))
    view = (stage.shape[0], before.total, *tail)
    weight = Block(axes, None if view == stage.shape else view, wires=produced + used)
    yield Parameter(f"{stage.name}.weight", stage.shape, (weight,))
    if stage.bias:
        yield Parameter(f"{stage.name}.bias", stage.shape[:1], (Block((space,), wires=produced),))
    if stage.norm is not None:
        yield from _norm_parameters(stage, space, made, after)


def _norm_parameters(stage: Stage, space: Space, made: str, after: str) -> Iterator[Parameter]:
    shape = stage.shape[:1]
    if stage.affine:
        weight = ((after, 0, 1), (made, 0, -1)) if made else ()
        yield Parameter(f"{stage.norm}.weight", shape, (Block((space,), wires=weight),))
        yield Parameter(f"{stage.norm}.bias", shape, (Block((space,), wires=weight[:1]),))
    mean = ((made, 0, 1),) if made else ()
    yield Parameter(f"{stage.norm}.running_mean", shape, (Block((space,), wires=mean),), "statistic")
    yield replace(plain(f"{stage.norm}.running_var", shape, "statistic"), blocks=(Block((space,)),))
    if stage.counted:
        yield plain(f"{stage.norm}.num_batches_tracked", (), "statistic")


def _is_layer(name: str, shape: Shape) -> bool:
    return name.endswith(".weight") and 2 <= len(shape) <= 5


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


def _check_chain(stages: Sequence[Stage]) -> None:
    for before, after in zip(stages[:-1], stages[1:], strict=True):
        if not _follows(before, after):
            raise ValueError(
                f"{after.name + '.weight'!r} of shape {after.shape} does not follow {before.name + '.weight'!r} of "
                f"shape {before.shape}, so this is no plain MLP or CNN, or its tensors are in another order. {REMEDY}"
            )
    if len(stages[-1].shape) > 2:
        raise ValueError(
            f"The last layer, {stages[-1].name + '.weight'!r}, is a convolution, and shapes do not show what follows. "
            f"{REMEDY}"
        )


def _follows(before: Stage, after: Stage) -> bool:
    outputs, inputs = before.shape[0], after.shape[1]
    if len(before.shape) == len(after.shape):
        return outputs == inputs
    # conv -> flatten -> linear: channels times pixels
    return len(after.shape) == 2 and inputs % outputs == 0


def _only_order(stages: Sequence[Stage]) -> list[Stage]:
    """The only order in which the widths fit and numbered names keep their order."""
    families: dict[str, list[Stage]] = {}
    for stage in sorted(stages, key=lambda stage: [int(n) for n in re.findall(r"\d+", stage.name)]):
        families.setdefault(re.sub(r"\d+", "#", stage.name), []).append(stage)
    orders = _orders(list(families.values()), [], itertools.count())
    first, second = next(orders, None), next(orders, None)
    if first is None or second is not None:
        reason = "no order of its layers fits" if first is None else "several orders of its layers fit"
        raise ValueError(f"This format does not keep the order of tensors, and {reason}. {REMEDY}")
    return first


def _orders(families: list[list[Stage]], done: list[Stage], steps: Iterator[int]) -> Iterator[list[Stage]]:
    if next(steps) > MAXIMUM_STEPS:
        raise ValueError(f"This format does not keep the order of tensors, and the layers are too many. {REMEDY}")
    if not any(families):
        # convolutions come before linear layers, so that the last stage is linear
        if len(done[-1].shape) == 2:
            yield done
        return
    for i, family in enumerate(families):
        if family and (not done or _follows(done[-1], family[0])):
            yield from _orders([*families[:i], family[1:], *families[i + 1 :]], [*done, family[0]], steps)


def _with_norms(stages: Sequence[Stage], norms: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> list[Stage]:
    found = list(stages)
    for norm, shape in norms.items():
        i = _stage_of_norm(found, norm, shape)
        counted = f"{norm}.num_batches_tracked" in shapes
        found[i] = replace(found[i], norm=norm, affine=f"{norm}.weight" in shapes, counted=counted)
    return found


def _stage_of_norm(stages: Sequence[Stage], norm: str, shape: Shape) -> int:
    """Where a batch norm belongs, by its place in a Sequential, its number or its size."""
    parent, leaf, number = _split(norm)
    fitting = [i for i, stage in enumerate(stages) if stage.shape[:1] == shape]
    if not leaf:
        earlier = [(_split(s.name)[2], i) for i, s in enumerate(stages) if _split(s.name)[:2] == (parent, "")]
        place = max((pair for pair in earlier if pair[0] < number), default=None)
        chosen = [] if place is None or place[1] not in fitting else [place[1]]
    else:
        chosen = [i for i in fitting if number >= 0 and _split(stages[i].name)[2] == number] or fitting
    if len(chosen) != 1 or stages[chosen[0]].norm is not None:
        raise ValueError(f"It is not clear behind which layer the norm {norm!r} of {shape[0]} channels is. {REMEDY}")
    return chosen[0]


def _split(name: str) -> tuple[str, str, int]:
    """A name's parent, its leaf without the number at the end, and that number."""
    parent, _, leaf = name.rpartition(".")
    digits = re.search(r"\d*$", leaf)
    number = digits.group() if digits else ""
    return parent, leaf.removesuffix(number), int(number) if number else -1
