"""The fields of an architecture as plain JSON data and back, and what the data of it and of its program look like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from wsflow.architecture.parameters import ActivationSite, Block, Parameter, Shear
from wsflow.architecture.program import Program, describe_program, parse_program
from wsflow.architecture.sequential import Layer
from wsflow.architecture.spaces import DirectSum, Fixed, NeuronGroup, Space, Wire
from wsflow.exceptions import InvalidInputError
from wsflow.schema import (
    Check,
    either,
    expect,
    flag,
    list_of,
    mapping,
    nullable,
    number,
    one_of,
    record,
    row,
    tagged,
    text,
    whole,
)

VERSION = 1
SCALINGS = ("positive", "sign", "flip", "phase")
NUMBERS = ("weights", "float64", "float32", "float16", "bfloat16", "complex64", "complex128")
DTYPES = (*NUMBERS, "int64", "int32", "int16", "int8", "uint8", "bool")
SIZES = list_of(whole())
AXIS, EXPONENT = whole(0, 63), whole(-64, 64)

FIXED = record({"fixed": whole()}, {"name": text})
PART = tagged({"fixed": FIXED, "group": record({"group": text})})
SPACE = tagged({"sum": record({"sum": list_of(PART)}), "fixed": PART, "group": PART})

BLOCK = record(
    {
        "axes": list_of(SPACE),
        "view": nullable(SIZES),
        "slices": nullable(list_of(row(whole(), whole()))),
        "wires": list_of(row(text, AXIS, EXPONENT)),
    },
    {
        "index": list_of(nullable(SIZES)),
        "shifts": list_of(row(text, AXIS, number)),
        "shears": list_of(
            record({"wire": text, "axis": AXIS, "bias": text}, {"outputs": whole(0, 1), "amount": number})
        ),
    },
)
PARAMETER = record(
    {"name": text, "shape": SIZES, "role": one_of("weight", "statistic"), "blocks": list_of(BLOCK)},
    {"aliases": list_of(text)},
)
LAYER = record(
    {"kind": text, "name": text},
    {"inputs": whole(), "outputs": whole(), "bias": flag, "argument": nullable(number)},
)


def operand(value: Any, field: str) -> None:
    """Check an operand of an operation: a number, a string, null, a reference by name, or a list of operands."""
    if isinstance(value, list):
        list_of(operand)(value, field)
    elif isinstance(value, dict):
        REFERENCE(value, field)
    else:
        PLAIN(value, field)


PLAIN: Check = expect(
    "a number, a string, true, false or null",
    lambda v: v is None or isinstance(v, str | float) or (isinstance(v, int) and abs(v) < 2**63),
)
REFERENCE = tagged(
    {
        **{kind: record({kind: text}) for kind in ("value", "parameter", "constant")},
        "dtype": record({"dtype": one_of(*DTYPES)}),
        "number": record({"number": one_of("inf", "-inf", "nan")}),
    }
)
PROGRAM = record(
    {
        "inputs": list_of(row(text, one_of(*DTYPES), SIZES)),
        "constants": list_of(row(text, one_of(*DTYPES), SIZES, text)),
        "operations": list_of(row(text, text, list_of(operand), mapping(operand), text)),
        "output": operand,
    },
    {"evaluation_only": text},
)
ARCHITECTURE = record(
    {
        "version": whole(1),
        "groups": list_of(record({"name": text, "size": whole(), "parent": nullable(either(text, FIXED))})),
        "wires": list_of(record({"name": text, "space": SPACE, "scalings": list_of(one_of(*SCALINGS))})),
        "parameters": list_of(PARAMETER, 1),
        "layers": list_of(LAYER),
        "outputs": list_of(text),
    },
    {
        "taps": list_of(record({"group": text, "layer": text, "axis": whole(-64, 63)})),
        "constants": list_of(text),
        "program": nullable(PROGRAM),
    },
)
# what must be known before the schema of a version is
VERSIONED = record({"version": whole(1)}, further=True)


def describe(
    groups: Iterable[NeuronGroup],
    wires: Iterable[Wire],
    parameters: Iterable[Parameter],
    layers: Iterable[Layer],
    outputs: Iterable[str],
    activation_sites: Iterable[ActivationSite],
    constants: Iterable[str],
    program: Program | None = None,
) -> str:
    """Return the JSON text of an architecture's fields, with sorted keys; parents come first in `groups`."""
    data = {
        "version": VERSION,
        "groups": [{"name": g.name, "size": g.size, "parent": _parent_data(g.parent)} for g in groups],
        "wires": [{"name": w.name, "space": _space_data(w.space), "scalings": sorted(w.scalings)} for w in wires],
        "parameters": [
            {
                "name": p.name,
                "shape": list(p.shape),
                "role": p.role,
                "aliases": list(p.aliases),
                "blocks": [_block_data(block) for block in p.blocks],
            }
            for p in parameters
        ],
        "layers": [asdict(layer) for layer in layers],
        "outputs": list(outputs),
        "taps": [asdict(site) for site in activation_sites],
        "constants": list(constants),
    }
    if program is not None:
        data["program"] = describe_program(program)
    return json.dumps(data, sort_keys=True)


def parse(text: str) -> dict[str, Any]:
    """Return the fields that a JSON text describes; a text that describes no architecture is an InvalidInputError."""
    try:
        data = json.loads(text)
        VERSIONED(data, "")
        if data["version"] > VERSION:
            raise ValueError(
                f"The description has version {data['version']}, and this wsflow reads versions up to {VERSION}. "
                "Install a newer wsflow."
            )
        ARCHITECTURE(data, "")
        return _parse(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"This is no description of an architecture: {error}") from error


def _parse(data: Mapping[str, Any]) -> dict[str, Any]:
    groups: dict[str, NeuronGroup] = {}
    for g in data["groups"]:
        parent = g["parent"]
        parent = _space(parent, groups) if isinstance(parent, dict) else _group(parent, groups) if parent else None
        groups[g["name"]] = NeuronGroup(g["name"], g["size"], parent)
    return {
        "wires": [Wire(w["name"], _space(w["space"], groups), frozenset(w["scalings"])) for w in data["wires"]],
        "parameters": [
            Parameter(
                p["name"],
                tuple(p["shape"]),
                tuple(_block(block, groups) for block in p["blocks"]),
                p["role"],
                tuple(p.get("aliases", ())),
            )
            for p in data["parameters"]
        ],
        "layers": [Layer(**layer) for layer in data["layers"]],
        "outputs": tuple(data["outputs"]),
        "activation_sites": [ActivationSite(**site) for site in data.get("taps", ())],
        "constants": tuple(data.get("constants", ())),
        "program": parse_program(data["program"]) if data.get("program") else None,
    }


def _parent_data(parent: NeuronGroup | Fixed | None) -> Any:
    return _space_data(parent) if isinstance(parent, Fixed) else parent.name if parent else None


def _space_data(space: Space) -> dict[str, Any]:
    if isinstance(space, Fixed):
        return {"fixed": space.size, **({"name": space.name} if space.name else {})}
    if isinstance(space, NeuronGroup):
        return {"group": space.name}
    return {"sum": [_space_data(part) for part in space.parts]}


def _space(data: Mapping[str, Any], groups: Mapping[str, NeuronGroup]) -> Any:
    if "fixed" in data:
        return Fixed(data["fixed"], data.get("name", ""))
    if "group" in data:
        return _group(data["group"], groups)
    return DirectSum(tuple(_space(part, groups) for part in data["sum"]))


def _group(name: str, groups: Mapping[str, NeuronGroup]) -> NeuronGroup:
    if name not in groups:
        raise ValueError(f"The neuron group {name!r} is not declared where it is used.")
    return groups[name]


def _block_data(block: Block) -> dict[str, Any]:
    optional = {
        "index": [index if index is None else list(index) for index in block.index or ()],
        "shifts": [list(shift) for shift in block.shifts],
        "shears": [asdict(shear) for shear in block.shears],
    }
    return {
        "axes": [_space_data(space) for space in block.axes],
        "view": list(block.view) if block.view else None,
        "slices": [list(bounds) for bounds in block.slices] if block.slices else None,
        "wires": [list(wire) for wire in block.wires],
        **{name: value for name, value in optional.items() if value},
    }


def _block(data: Mapping[str, Any], groups: Mapping[str, NeuronGroup]) -> Block:
    index = tuple(None if i is None else tuple(i) for i in data.get("index", ()))
    return Block(
        tuple(_space(space, groups) for space in data["axes"]),
        tuple(data["view"]) if data["view"] else None,
        tuple(map(tuple, data["slices"])) if data["slices"] else None,
        tuple(map(tuple, data["wires"])),
        index or None,
        tuple((name, axis, float(unit)) for name, axis, unit in data.get("shifts", ())),
        tuple(Shear(**shear) for shear in data.get("shears", ())),
    )
