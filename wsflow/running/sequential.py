"""The program of a sequential network: linear layers, and activations of the table by the operations of torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wsflow.activations import activation
from wsflow.architecture import Architecture
from wsflow.architecture.program import Input, Operation, ParameterValue, Program, Value
from wsflow.architecture.sequential import LINEAR, Layer


@lru_cache(maxsize=256)
def program_of_layers(layers: tuple[Layer, ...]) -> Program:
    """Return the program of linear layers and activations."""
    operations: list[Operation] = []
    current: Any = Value("x")
    for position, layer in enumerate(layers):
        found = [_linear(layer, current)] if layer.kind == LINEAR else _activation(layer, position, current)
        operations += found
        current = Value(found[-1].name) if found else current
    first = next(layer for layer in layers if layer.kind == LINEAR)
    return Program((Input("x", "weights", (1, first.inputs)),), tuple(operations), current)


def _linear(layer: Layer, x: Value) -> Operation:
    bias = (ParameterValue(f"{layer.name}.bias"),) if layer.bias else ()
    return Operation(layer.name, "linear.default", (x, ParameterValue(f"{layer.name}.weight"), *bias), (), layer.name)


def _activation(layer: Layer, position: int, x: Value) -> list[Operation]:
    # the transforms of torch.func belong to a thread: in one of its own they wrap no operand
    with ThreadPoolExecutor(1) as outside:
        return outside.submit(_recorded, layer, position, x).result()


def _recorded(layer: Layer, position: int, x: Value) -> list[Operation]:
    row = activation(layer.kind)
    z = torch.empty(2, 2, device="meta")
    argument = torch.empty(2, device="meta") if row.learned else layer.argument
    recorder = _Recorder(
        layer.name, layer.name or f"#{position}", {id(z): x, id(argument): ParameterValue(f"{layer.name}.weight")}
    )
    with torch.no_grad(), recorder:
        row(z, argument)
    return recorder.operations


class _Recorder(TorchDispatchMode):
    """Writes down the operations that are run, on operands that are known by their id."""

    def __init__(self, layer: str, prefix: str, known: dict[int, Any]) -> None:
        super().__init__()
        self.layer, self.prefix, self.known = layer, prefix, known
        self.kept: list[Any] = []
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = f"{self.prefix}:{len(self.operations)}"
        arguments = tuple(self.known.get(id(x), x) if isinstance(x, Tensor) else x for x in args)
        function = f"{func._opname}.{func._overloadname}"
        self.operations.append(Operation(name, function, arguments, tuple((kwargs or {}).items()), self.layer))
        self._keep(name, result)
        return result

    def _keep(self, name: str, result: Any) -> None:
        """Name a result, or the first of several."""
        # an object that is gone could leave its id to another
        self.kept.append(result)
        if isinstance(result, Tensor):
            self.known[id(result)] = Value(name)
            return
        self.known[id(result[0])] = Value(f"{name}:first")
        self.operations.append(Operation(f"{name}:first", "getitem", (Value(name), 0), (), self.layer))


def program_of(architecture: Architecture) -> Program | None:
    """Return the program that runs an architecture's networks: its own, or that of its layers; None without both."""
    return program_of_layers(architecture.layers) if architecture.layers else architecture.program
