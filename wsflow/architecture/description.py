"""What the JSON data of an architecture and of its program look like."""

from __future__ import annotations

from typing import Any

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
