"""To which type of layer each parameter belongs, by the operation that uses it; its first values follow from that.

Attention and recurrent layers are known by the names that torch gives their parameters, everything else by operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from wsflow.architecture import Architecture
from wsflow.architecture.program import Operation, ParameterValue, Program, Value, operands
from wsflow.architecture.sequential import LINEAR

# where an operation has its parameters, and what they are
LAYERS: dict[str, tuple[tuple[int, str], ...]] = {
    "linear": ((1, "weight"), (2, "bias")),
    **{f"conv{n}d": ((1, "weight"), (2, "bias")) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": ((1, "weight"), (2, "bias")) for n in (1, 2, 3)},
    "convolution": ((1, "weight"), (2, "bias")),
    "bilinear": ((2, "weight"), (3, "bias")),
    "matmul": ((0, "factor"), (1, "factor")),
    "mm": ((0, "factor"), (1, "factor")),
    "bmm": ((0, "factor"), (1, "factor")),
    "addmm": ((0, "bias"), (2, "factor")),
    "embedding": ((0, "embedding"),),
    "embedding_bag": ((0, "embedding"),),
    "_embedding_bag_forward_only": ((0, "embedding"),),
    "batch_norm": ((1, "one"), (2, "zero"), (3, "zero"), (4, "one")),
    "instance_norm": ((1, "one"), (2, "zero"), (3, "zero"), (4, "one")),
    "layer_norm": ((2, "one"), (3, "zero")),
    "native_layer_norm": ((2, "one"), (3, "zero")),
    "group_norm": ((2, "one"), (3, "zero")),
    "native_group_norm": ((1, "one"), (2, "zero")),
    "rms_norm": ((2, "one"),),
    "prelu": ((1, "slope"),),
    # of a parameter and activations: a gain, or a position or token
    "mul": ((0, "one"), (1, "one")),
    **dict.fromkeys(("add", "sub"), ((0, "token"), (1, "token"))),
    **dict.fromkeys(("cat", "stack"), ((0, "token"),)),
}
# what has the numbers of its first operand
_VIEWS = """
    getitem split split_with_sizes chunk unbind select slice narrow reshape view_as flatten unflatten expand expand_as
    repeat tile unsqueeze squeeze permute transpose t swapaxes movedim to
    """
VIEWS = frozenset(_VIEWS.split())
TRANSPOSED = frozenset(("t", "transpose", "swapaxes", "permute"))
# where a parameter alone says nothing
BESIDE_ACTIVATIONS = frozenset(("mul", "add", "sub", "cat", "stack"))
# in which order the uses of a parameter that has several count
RANK = ("embedding", "weight", "factor", "bias", "one", "zero", "slope", "token")


@dataclass(frozen=True)
class LayerType:
    """What a parameter is in its layer.

    `part` is "weight" (of a linear layer or convolution), "bias", "attention", "attention_bias", "attention_token",
    "recurrent", "embedding", "slope", "token", "unused", or "one" or "zero" after its first values. `fan_in` counts the
    inputs of each unit, of a recurrent layer the hidden units; `padding` is the row of an embedding that is zero.
    """

    part: str
    fan_in: int = 1
    padding: int | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether torch draws its first values, or could: norms, statistics and slopes begin at a constant."""
        return self.part not in ("one", "zero", "slope", "unused")


def layer_types(architecture: Architecture) -> dict[str, LayerType]:
    """Return the type of each parameter by name; those whose use says nothing of it are missing."""
    shapes = {parameter.name: parameter.shape for parameter in architecture.parameters}
    found = _of_layers(architecture)
    if architecture.program is not None:
        # what nothing uses may be anything
        found |= dict.fromkeys(shapes.keys() - architecture.program.parameters(), LayerType("unused"))
        found |= _of_program(architecture.program, shapes)
    found |= dict(_by_name(shapes))
    statistics = [parameter.name for parameter in architecture.parameters if parameter.role == "statistic"]
    return found | {name: LayerType("one" if name.endswith("running_var") else "zero") for name in statistics}


def _of_layers(architecture: Architecture) -> dict[str, LayerType]:
    found = {}
    for layer in architecture.layers:
        found[f"{layer.name}.weight"] = (
            LayerType("weight", layer.inputs) if layer.kind == LINEAR else LayerType("slope")
        )
        found[f"{layer.name}.bias"] = LayerType("bias", layer.inputs)
    return {name: found[name] for name in architecture.names if name in found}


def _of_program(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, LayerType]:
    sources = _Sources(program)
    found: dict[str, LayerType] = {}
    for operation in program.operations:
        for name, kind in _uses(operation, sources, shapes):
            if name not in found or RANK.index(kind.part) < RANK.index(found[name].part):
                found[name] = kind
    return found


class _Sources:
    """Which parameter a value is a view of, and whether it is transposed; and which values are activations."""

    def __init__(self, program: Program) -> None:
        self.known: dict[str, tuple[str, bool]] = {}
        self.activations = {known.name for known in program.inputs}
        for operation in program.operations:
            if self.has_activations(operation):
                self.activations.add(operation.name)
            source = self(operation.arguments[0]) if operation.base in VIEWS and operation.arguments else None
            if operation.base == "where" and operation.name not in self.activations:
                # a weight with constants in some places
                source = next(filter(None, map(self, operation.arguments[1:])), None)
            if source is not None:
                self.known[operation.name] = source[0], source[1] ^ (operation.base in TRANSPOSED)

    def has_activations(self, operation: Operation) -> bool:
        return any(isinstance(x, Value) and x.name in self.activations for x in operands(operation.operands))

    def __call__(self, operand: Any) -> tuple[str, bool] | None:
        if isinstance(operand, ParameterValue):
            return operand.name, False
        return self.known.get(operand.name) if isinstance(operand, Value) else None


def _uses(
    operation: Operation, sources: _Sources, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, LayerType]]:
    """Yield the parameters of a layer with their types."""
    fan_in = 1
    if operation.base in BESIDE_ACTIVATIONS and not sources.has_activations(operation):
        return
    for place, part in sorted(LAYERS.get(operation.base, ()), key=lambda pair: pair[1] == "bias"):
        given = operation.arguments[place] if place < len(operation.arguments) else None
        for source in filter(None, map(sources, operands(given))):
            name, transposed = source
            if part in ("weight", "factor"):
                fan_in = _fan_in(operation, part, shapes[name], transposed)
            padding = _padding(operation) if part == "embedding" else None
            yield name, LayerType("weight" if part == "factor" else part, fan_in, padding)


def _fan_in(operation: Operation, part: str, shape: tuple[int, ...], transposed: bool) -> int:
    if part == "factor":
        return shape[-1 if transposed or len(shape) < 2 else -2]
    # as torch counts: the second axis, also where it is that of the outputs, as in transposed convolutions
    return shape[1] if operation.base == "bilinear" else prod(shape[1:])


def _padding(operation: Operation) -> int | None:
    """Return the row of an embedding that stays zero."""
    index = dict(operation.keywords).get("padding_idx", -1)
    if operation.base == "embedding" and len(operation.arguments) > 2:
        index = operation.arguments[2]
    return index if isinstance(index, int) and index >= 0 else None


def _by_name(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, LayerType]]:
    """Yield the parameters of torch's attention and recurrent layers."""
    for name, shape in shapes.items():
        layer, _, key = name.rpartition(".")
        dot = f"{layer}." if layer else ""
        if key == "in_proj_weight" or (key in _PROJECTIONS and f"{dot}out_proj.weight" in shapes):
            yield name, LayerType("attention", shape[1])
            yield f"{dot}out_proj.bias", LayerType("attention_bias")
        elif key == "in_proj_bias":
            yield name, LayerType("attention_bias")
        elif key in ("bias_k", "bias_v") and f"{dot}out_proj.weight" in shapes:
            yield name, LayerType("attention_token", shape[-1])
        elif key.startswith(("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")):
            hidden = _hidden_size(dot, shapes)
            if hidden is not None:
                yield name, LayerType("recurrent", hidden)


_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def _hidden_size(dot: str, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the hidden units of a recurrent layer, of whose gates the rows of its weights are."""
    pairs = ((shapes.get(f"{dot}weight_ih{end}"), shapes.get(f"{dot}weight_hh{end}")) for end in ("_l0", ""))
    found = next(((ih, hh) for ih, hh in pairs if ih and hh), None)
    if found is None:
        return None
    rows, columns = found[1]
    # with a projection (LSTM), the columns are the projection's
    return rows // 4 if f"{dot}weight_hr_l0" in shapes else columns
