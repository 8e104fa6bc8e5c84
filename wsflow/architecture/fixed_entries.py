"""Entries of weights in whose places a program puts constants, and by which layers two programs' constants differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from wsflow.architecture.program import Constant, ConstantValue, Operation, ParameterValue, Program, operands


class FixedEntries(NamedTuple):
    """Of a parameter: which entries have no effect, and the constants in their places (zero elsewhere)."""

    fixed: np.ndarray
    values: np.ndarray


def fixed_entries(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FixedEntries]:
    """Return the fixed entries of each parameter of these shapes that has some, by name.

    Those are entries of a parameter that the program uses in one place, a choice by a mask between it and constants.
    """
    constants = {constant.name: constant for constant in program.constants}
    used = [x.name for o in program.operations for x in operands(o.operands) if isinstance(x, ParameterValue)]
    found = {}
    for operation in program.operations:
        mask, *choices = (*operation.arguments, None)[:3] if operation.base == "where" else (None,)
        own = [i for i, x in enumerate(choices) if isinstance(x, ParameterValue) and used.count(x.name) == 1]
        if not isinstance(mask, ConstantValue) or len(own) != 1:
            continue
        name, other = choices[own[0]].name, choices[1 - own[0]]
        if not isinstance(other, ConstantValue | int | float):
            continue
        chosen = array_of(constants[mask.name])
        fixed = np.broadcast_to(chosen if own[0] == 1 else ~chosen, shapes[name])
        values = array_of(constants[other.name]) if isinstance(other, ConstantValue) else np.asarray(other, np.float64)
        found[name] = FixedEntries(fixed, np.where(fixed, values, 0.0))
    return found


def array_of(constant: Constant) -> np.ndarray:
    """Return the numbers of a constant."""
    if constant.dtype == "bfloat16":
        # the upper half of the bits of a float32
        bits = np.frombuffer(constant.data, dtype=np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(constant.shape)
    dtype = "float64" if constant.dtype == "weights" else constant.dtype
    return np.frombuffer(constant.data, dtype=dtype).reshape(constant.shape)


def _used(operations: Sequence[Operation]) -> Iterator[tuple[Operation, str]]:
    for operation in operations:
        for operand in operands(operation.operands):
            if isinstance(operand, ConstantValue):
                yield operation, operand.name


def layers_that_differ(a: Any, b: Any) -> tuple[str, ...]:
    """Return the layers whose constants are all that differs between two architectures; none where more differs."""
    if a.program is None or b.program is None or a == b:
        return ()
    constants = {constant.name: constant for constant in b.program.constants}
    if [c.name for c in a.program.constants] != list(constants):
        return ()
    if replace(b, program=replace(b.program, constants=a.program.constants)) != a:
        return ()
    other = {constant.name for constant in a.program.constants if constant != constants[constant.name]}
    return tuple(dict.fromkeys(operation.layer for operation, name in _used(a.program.operations) if name in other))


def difference(a: Any, b: Any) -> str:
    """Describe in a sentence how the constants of two architectures differ; nothing where they differ in more."""
    layers = layers_that_differ(a, b)
    if not layers:
        return ""
    named = f"the layer{'s' * (len(layers) > 1)} {', '.join(map(repr, layers))}" if any(layers) else "their operations"
    return (
        f" They are of one shape, but have different constants in {named}: such networks are not comparable. Build all "
        "of them with one seed of the constants."
    )


def other_constants(architecture: Any, state: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a state dict of arrays whose constants are not those of an architecture."""
    layers: dict[str, list[Constant]] = {}
    if (program := architecture.program) is not None:
        constants = {constant.name: constant for constant in program.constants}
        for operation, name in _used(program.operations):
            layers.setdefault(operation.layer, []).append(constants[name])
    for key in architecture.constants:
        layer = key.rpartition(".")[0]
        if key not in state or not layers.get(layer):
            continue
        array = np.asarray(state[key])
        alike = (c for c in layers[layer] if c.shape == array.shape and (c.dtype == "bool") == (array.dtype == bool))
        known = [array_of(constant) for constant in alike]
        # what has the type of the weights may have been narrowed in a file
        if known and array.size > 1 and not any(np.allclose(array, one, rtol=1e-6, atol=0) for one in known):
            yield key
