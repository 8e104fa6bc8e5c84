"""Running a program on labels instead of numbers."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wsflow.exceptions import InvalidInputError
from wsflow.tracing.building import Reading
from wsflow.tracing.labels import Label
from wsflow.tracing.program import Program, operation
from wsflow.tracing.recording import Recorder, Refused, frozen
from wsflow.tracing.table import KNOW_FLIPS, RULES

# torch's names of arguments -> those of the rules
ARGUMENTS = {"self": "input", "A": "input", "mat2": "other", "vec": "other", "vec2": "other", "tensor": "other"}
ARGUMENTS |= {"axis0": "dim0", "axis1": "dim1"}

# operations that take rows of a parameter before it is used: each part is as a parameter of its own
PARTS = ("split", "split_with_sizes", "chunk", "slice")


@dataclass
class Interpreter:
    """A program, run on labels.

    Parameters
    ----------
    program : Program
    shapes : mapping from str to tuple of int
        Of the parameters and buffers, by name.
    weights : collection of str
        Names of parameters; other tensors are constants unless a norm takes them as its statistics.
    frozen : collection of str
        Layers without symmetries.
    module : str
        The name of the module's class, for messages.
    leaves : collection of str
        Layers without sublayers.
    """

    program: Program
    shapes: Mapping[str, tuple[int, ...]]
    weights: Collection[str]
    frozen: Collection[str]
    module: str
    leaves: Collection[str] = ()
    recorder: Recorder = field(init=False)
    readings: dict[str, Reading] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.recorder = Recorder(dict(self.shapes))
        self.values: dict[Any, Any] = {}
        self.statistics = {
            self.program.tensors.get(arg.name)
            for node in self.program.graph.nodes
            if node.op == "call_function" and operation(node.target) in STATISTICS
            for arg in STATISTICS[operation(node.target)](node.args)
            if arg is not None
        }

    def run(self) -> None:
        """Label every tensor, and write what operations demand into the ledger."""
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "output":
                self._end(node)

    def _placeholder(self, node: Any) -> Any:
        name = self.program.tensors.get(node.name)
        if name is not None and (name in self.weights or name in self.statistics):
            return name
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        known = self.program.constants.get(node.name)
        constant = {dim for dim, size in enumerate(value.shape) if size == 1}
        if known is not None:
            constant |= {d for d in range(known.dim()) if bool((known == known.select(d, 0).unsqueeze(d)).all())}
        return Label(tuple(value.shape), constant=frozenset(constant), zero=known is not None and not bool(known.any()))

    def _label(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            known = self.values[value]
            return self._parameter(known) if isinstance(known, str) else known
        if isinstance(value, list | tuple):
            return [self._label(item) for item in value]
        return value

    def _parameter(self, name: str) -> Label:
        label = self.recorder.parameter(name)
        return frozen(label, self.recorder.ledger) if self._is_frozen(name) else label

    def _is_frozen(self, name: str) -> bool:
        return any(name == layer or name.startswith(f"{layer}.") for layer in self.frozen)

    def _call(self, node: Any) -> Any:
        name = operation(node.target)
        layer = self.program.layers[node.name]
        result = node.meta.get("val")
        many = isinstance(result, list | tuple)
        first = result[0] if many and len(result) else result
        if first is None and node.target is not operator.getitem:
            return None
        self.recorder.shape = tuple(first.shape) if isinstance(first, Tensor) else ()
        self.recorder.n_results = len(result) if many else 1
        if not isinstance(first, Tensor):
            return first
        if name in PARTS and (rows := self._rows(node)) is not None:
            return rows
        arguments = self._arguments(node)
        if self._is_frozen(layer) or (layer in self.frozen):
            return self._frozen(arguments, result)
        labels = [value for value in _flat(arguments.values()) if isinstance(value, Label)]
        if name not in RULES and not any(label.legs for label in labels):
            # whatever it does, it does it to numbers that no symmetry moves
            return self._frozen(arguments, result)
        try:
            if name not in RULES:
                raise Refused(f"the operation {name}")
            rule = RULES[name]
            if rule not in KNOW_FLIPS:
                arguments = {key: self._settled(value) for key, value in arguments.items()}
            value = rule(self.recorder, **arguments)
        except Refused as error:
            raise InvalidInputError(self._refusal(node, str(error))) from error
        self._see(value)
        if isinstance(value, Label) and layer in self.leaves:
            # the last operation of a layer without sublayers is its output
            self.readings[layer] = Reading(layer, value)
        return value

    def _settled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._settled(item) for item in value]
        return self.recorder.ledger.settled(value) if isinstance(value, Label) else value

    def _arguments(self, node: Any) -> dict[str, Any]:
        if node.target is operator.getitem:
            return {"labels": self._label(node.args[0]), "index": node.args[1]}
        schema = node.target._schema.arguments
        given = {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
        given.update(node.kwargs)
        return {ARGUMENTS.get(k, k): self._label(v) for k, v in given.items() if k not in ("dtype", "memory_format")}

    def _rows(self, node: Any) -> Any:
        """Parts of a parameter along its first axis, if that is what an operation takes."""
        source = node.args[0]
        name = self.values.get(source) if isinstance(source, torch.fx.Node) else None
        arguments = {a.name: v for a, v in zip(node.target._schema.arguments, node.args, strict=False)}
        if not isinstance(name, str) or arguments.get("dim", 0) != 0 or self._is_frozen(name):
            return None
        if any(operation(user.target) not in PARTS for user in source.users):
            return None
        results = node.meta["val"]
        if operation(node.target) == "slice":
            start, step = arguments.get("start") or 0, arguments.get("step", 1)
            start = start + self.shapes[name][0] if start < 0 else start
            return self.recorder.rows(name, start, start + results.shape[0]) if step == 1 else None
        labels, start = [], 0
        for part in results:
            labels.append(self.recorder.rows(name, start, start + part.shape[0]))
            start += part.shape[0]
        return labels

    def _frozen(self, arguments: Mapping[str, Any], result: Any) -> Any:
        labels = [value for value in _flat(arguments.values()) if isinstance(value, Label)]
        for label in labels:
            self.recorder.ledger.freeze(label)
        if isinstance(result, list | tuple):
            return [Label(tuple(part.shape)) if isinstance(part, Tensor) else part for part in result]
        return Label(tuple(result.shape))

    def _see(self, value: Any) -> None:
        for label in _flat([value]):
            if isinstance(label, Label):
                for leg in label.legs:
                    self.recorder.ledger.see(leg.atoms)

    def _end(self, node: Any) -> None:
        for value in _flat(node.args):
            if isinstance(value, torch.fx.Node):
                label = self._label(value)
                if isinstance(label, Label):
                    self.recorder.ledger.freeze(label)
                self.outputs = self.outputs or self._producers(value)

    def _producers(self, node: Any) -> tuple[str, ...]:
        """The parameters of the last linear map before an output."""
        while isinstance(node, torch.fx.Node) and node.op == "call_function":
            names = [self.values.get(arg) for arg in node.args if isinstance(arg, torch.fx.Node)]
            found = tuple(name for name in names if isinstance(name, str))
            if found:
                return found
            inputs = [arg for arg in node.args if isinstance(arg, torch.fx.Node)]
            if len(inputs) != 1:
                return ()
            node = inputs[0]
        return ()

    def _refusal(self, node: Any, what: str) -> str:
        layer = self.program.layers[node.name]
        stack = node.meta.get("nn_module_stack") or {}
        kinds = [kind if isinstance(kind, str) else kind.__name__ for _, kind in stack.values()]
        kind = kinds[-1].rpartition(".")[2] if kinds else self.module
        where = f"The layer {layer!r} ({kind})" if layer else f"The module itself ({self.module})"
        remedy = f"Freeze it with frozen=({layer!r},)" if layer else "Put it into a submodule, and freeze that"
        return (
            f"{where} uses {what}, whose symmetries wsflow does not know. {remedy}, so that no symmetry acts there; or "
            "describe the network by hand with Architecture(parameters=..., wires=...)."
        )


def _flat(values: Any) -> list[Any]:
    result = []
    for value in values:
        result += _flat(value) if isinstance(value, list | tuple) else [value]
    return result


STATISTICS = {
    "batch_norm": lambda args: args[3:5],
    "_native_batch_norm_legit_no_training": lambda args: args[3:5],
    "instance_norm": lambda args: args[3:5],
}
