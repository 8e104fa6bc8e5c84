"""What a network computes, as data: a list of operations of a closed set, with their operands and constants.

An operation is one of torch's ATen operators, by name and overload (``add.Tensor``), an integer operation on sizes, or
``getitem``. Operands are earlier values, inputs, parameters, constants, and plain numbers and strings. Nothing in a
program is evaluated but these operations, so a program from a file runs no code of the file's author.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wsflow.architecture.checks import check_names
from wsflow.architecture.operations import OPERATIONS

# bytes of each number, by type
_WIDTHS = {"weights": 8, "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex64": 8, "complex128": 16}
_WIDTHS |= {"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}


@dataclass(frozen=True)
class Reference:
    """An operand that stands for something else, by name; those of two kinds are never equal."""

    name: str


class Value(Reference):
    """The result of an earlier operation, or an input."""


class ParameterValue(Reference):
    """A parameter of the network."""


class ConstantValue(Reference):
    """A constant of the program."""


class Dtype(Reference):
    """A type of torch; ``weights`` is that of the weights."""


@dataclass(frozen=True)
class Constant:
    """A tensor that is no weight; a float64 one takes the type of the weights when it is used."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        width = _WIDTHS.get(self.dtype)
        if width is None or width * math.prod(self.shape) != len(self.data):
            raise ValueError(
                f"The constant {self.name!r}, {self.dtype} of shape {self.shape}, cannot have {len(self.data)} bytes."
            )


@dataclass(frozen=True)
class Input:
    """The example input from which the program was read."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One operation: the value that it computes, its function, its operands, and the layer that it belongs to."""

    name: str
    function: str
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    layer: str = ""

    @cached_property
    def base(self) -> str:
        """The function without its overload."""
        return self.function.partition(".")[0]

    @property
    def is_size(self) -> bool:
        """Whether the value is a size, not a tensor."""
        return self.base == "sym_size" or self.base.startswith("int_")

    @property
    def operands(self) -> tuple[Any, ...]:
        """All arguments, those with keywords last."""
        return (*self.arguments, *(value for _, value in self.keywords))


@dataclass(frozen=True)
class Program:
    """Compute a network's output from its inputs and parameters.

    Parameters
    ----------
    inputs : tuple of Input
    operations : tuple of Operation
        In the order of computation.
    output : Value, or nested tuples of them
    constants : tuple of Constant
    evaluation_only : str
        Why the program has no training mode; empty where it has one. There, batch norms with a `training` of True
        follow the batch, and what draws random numbers does.

    Raises
    ------
    ValueError
        If an operation is outside the closed set, or an operand is not known where it is used.

    Examples
    --------
    >>> from wsflow.architecture.program import Input, Operation, Program, Value
    >>> relu = Operation("y", "relu.default", (Value("x"),))
    >>> Program((Input("x", "weights", (2, 3)),), (relu,), Value("y")).operations[0].function
    'relu.default'
    """

    inputs: tuple[Input, ...]
    operations: tuple[Operation, ...]
    output: Any
    constants: tuple[Constant, ...] = ()
    evaluation_only: str = ""

    def __post_init__(self) -> None:
        check_names("value of a program", [*(x.name for x in self.inputs), *(o.name for o in self.operations)])
        check_names("constant of a program", [constant.name for constant in self.constants])
        known = {input.name for input in self.inputs}
        constants = {constant.name for constant in self.constants}
        for operation in self.operations:
            if operation.base not in OPERATIONS:
                raise ValueError(f"The operation {operation.function!r} is not one that wsflow runs.")
            for operand in operands(operation.operands):
                self._check(operand, known, constants, operation.name)
            known.add(operation.name)
        for operand in operands(self.output):
            self._check(operand, known, constants, "the output")

    @staticmethod
    def _check(operand: Any, known: set[str], constants: set[str], where: str) -> None:
        unknown = (isinstance(operand, Value) and operand.name not in known) or (
            isinstance(operand, ConstantValue) and operand.name not in constants
        )
        if unknown:
            raise ValueError(f"In the program, {where} uses {operand.name!r} before it is computed.")

    @cached_property
    def last_uses(self) -> tuple[tuple[str, ...], ...]:
        """For each operation the values that nothing uses behind it."""
        needed = {value.name for value in operands(self.output) if isinstance(value, Value)}
        result: list[tuple[str, ...]] = []
        for operation in reversed(self.operations):
            used = {value.name for value in operands(operation.operands) if isinstance(value, Value)}
            unused = {operation.name} - needed
            result.append(tuple(used - needed | unused))
            needed |= used
        return tuple(result[::-1])

    def parameters(self) -> frozenset[str]:
        """Return the names of the parameters that are used."""
        return frozenset(
            operand.name
            for operation in self.operations
            for operand in operands(operation.operands)
            if isinstance(operand, ParameterValue)
        )


def operands(argument: Any) -> Iterator[Any]:
    """Yield the operands in nested tuples of them."""
    if isinstance(argument, tuple):
        for item in argument:
            yield from operands(item)
    else:
        yield argument


_KINDS = {"value": Value, "parameter": ParameterValue, "constant": ConstantValue, "dtype": Dtype}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def describe_program(program: Program) -> dict[str, Any]:
    """Return a program as plain JSON data."""
    return {
        "inputs": [[x.name, x.dtype, list(x.shape)] for x in program.inputs],
        "constants": [
            [c.name, c.dtype, list(c.shape), base64.b64encode(c.data).decode("ascii")] for c in program.constants
        ],
        "operations": [
            [o.name, o.function, _data(o.arguments), {name: _data(value) for name, value in o.keywords}, o.layer]
            for o in program.operations
        ],
        "output": _data(program.output),
        **({"evaluation_only": program.evaluation_only} if program.evaluation_only else {}),
    }


def parse_program(data: Mapping[str, Any]) -> Program:
    """Return the program that `describe_program` described, as data that have been checked."""
    return Program(
        tuple(Input(name, dtype, tuple(shape)) for name, dtype, shape in data["inputs"]),
        tuple(
            Operation(
                name,
                function,
                tuple(_argument(item) for item in arguments),
                tuple((key, _argument(value)) for key, value in keywords.items()),
                layer,
            )
            for name, function, arguments, keywords, layer in data["operations"]
        ),
        _argument(data["output"]),
        tuple(
            Constant(name, dtype, tuple(shape), base64.b64decode(text, validate=True))
            for name, dtype, shape, text in data["constants"]
        ),
        data.get("evaluation_only", ""),
    )


def _data(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return [_data(item) for item in argument]
    if type(argument) in _NAMES:
        return {_NAMES[type(argument)]: argument.name}
    if isinstance(argument, float) and not math.isfinite(argument):
        return {"number": str(argument)}
    return argument


def _argument(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_argument(item) for item in data)
    if isinstance(data, dict):
        ((kind, name),) = data.items()
        return float(name) if kind == "number" else _KINDS[kind](name)
    return data
