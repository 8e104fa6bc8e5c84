"""Networks whose rate of dropout is an input: what they keep, a number for each network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from wsflow.architecture import Architecture
from wsflow.architecture.program import Input, Operation, Program, Value
from wsflow.exceptions import InvalidInputError
from wsflow.running.activation_sizes import runs_in_one_product
from wsflow.running.kernels import is_drawing
from wsflow.running.sequential import program_of

KEPT = "kept"  # the input


def draws(architecture: Architecture) -> bool:
    """Return whether networks draw random numbers in training."""
    program = program_of(architecture)
    return program is not None and any(is_drawing(operation) for operation in program.operations)


@lru_cache(maxsize=16)
def with_rate(architecture: Architecture) -> Architecture:
    """Return the architecture with a second input, the share that its dropout layers keep.

    Networks of linear layers and activations drop what comes into each linear layer but the first. What attention drops
    of its weights stays as it is.
    """
    program = program_of(architecture)
    operations = () if program is None else program.operations
    found = list(_of_layers(operations) if runs_in_one_product(architecture) else _of_dropout(operations))
    if program is None or len(found) == len(operations):
        raise InvalidInputError(
            "The networks have no layer of dropout whose rate 'dropout' could be: put nn.Dropout layers into the "
            "module, or leave 'dropout' out."
        )
    inputs = (*program.inputs, Input(KEPT, "weights", ()))
    changed = Program(inputs, tuple(found), program.output, program.constants, program.evaluation_only)
    return replace(architecture, layers=(), program=changed, module=None)


def _of_layers(operations: tuple[Operation, ...]) -> Iterator[Operation]:
    first = True
    for operation in operations:
        if operation.base == "linear" and not first:
            name = f"{operation.name}:dropped"
            yield from _dropped(operation.arguments[0], name, operation.layer)
            operation = replace(operation, arguments=(Value(name), *operation.arguments[1:]))
        first = first and operation.base != "linear"
        yield operation


def _of_dropout(operations: tuple[Operation, ...]) -> Iterator[Operation]:
    """Yield operations with other ones for dropout, and for what drops channels: a draw that is then rescaled."""
    drawn: dict[str, float] = {}
    for operation in operations:
        first, *rest = operation.arguments or (None,)
        if operation.base == "dropout":
            yield from _dropped(first, operation.name, operation.layer)
        elif operation.function == "bernoulli.p":
            drawn[operation.name] = rest[0]
            yield from _mask(first, operation.name, operation.layer)
        elif operation.base == "div" and isinstance(first, Value) and drawn.get(first.name, 0) == rest[0]:
            yield replace(operation, function="div.Tensor", arguments=(first, Value(KEPT)))
        else:
            yield operation


def _dropped(x: Any, name: str, layer: str) -> Iterator[Operation]:
    mask, scaled = f"{name}:mask", f"{name}:scaled"
    yield from _mask(x, mask, layer)
    yield Operation(scaled, "div.Tensor", (Value(mask), Value(KEPT)), (), layer)
    yield Operation(name, "mul.Tensor", (x, Value(scaled)), (), layer)


def _mask(x: Any, name: str, layer: str) -> Iterator[Operation]:
    """Yield what draws ones with the probability of the input, in the shape of a value, else zeros."""
    ones, shares = f"{name}:ones", f"{name}:shares"
    yield Operation(ones, "ones_like.default", (x,), (), layer)
    yield Operation(shares, "mul.Tensor", (Value(ones), Value(KEPT)), (), layer)
    yield Operation(name, "bernoulli.default", (Value(shares),), (), layer)
