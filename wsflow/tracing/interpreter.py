"""Abstract interpretation: an exported graph is run on abstract tensors instead of numbers."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from wsflow.activations import POSITIVE, SIGN
from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, constant_of
from wsflow.tracing.export import ExportedGraph, operation
from wsflow.tracing.rules import HANDLE_FLIPS, MATRIX_FUNCTIONS, RULES
from wsflow.tracing.trace import Trace, UnknownOperation

# torch's names of arguments -> those of the rules
ARGUMENTS = {"self": "input", "A": "input", "mat2": "other", "vec": "other", "vec2": "other", "tensor": "other"}
ARGUMENTS |= {"axis0": "dim0", "axis1": "dim1", "batch1": "mat1", "batch2": "other"}

# operations that take rows of a parameter before it is used: these are like parameters of their own
SLICING: tuple[str, ...] = ("split", "split_with_sizes", "chunk", "slice", "select", "unbind")
SLICING += ("unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk")

# elements of the largest constant that is computed
MANY = 2**24

# norms with running statistics: their arguments behind the input are weight, bias, mean and variance
NORMS = ("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
NORM_ARGUMENTS = slice(1, 5)


class UnknownLayer(Exception):
    """A node of a graph, and its layer, whose symmetries are not known."""

    def __init__(self, node: Any, layer: str, what: str) -> None:
        super().__init__(what)
        self.node, self.layer, self.what = node, layer, what


@dataclass
class Interpreter:
    """A graph, run on abstract tensors, with the shapes of parameters and buffers by name.

    Tensors that are not in `weights` are constants, unless they are `moving` buffers (names, and how these may be
    scaled) or a norm takes them as its statistics. `frozen` and `leaves` are names of submodules: those without
    symmetries, and those without submodules of their own. No symmetry acts on what the nodes in `opaque` compute.
    `separate` and `nested` are those of a `Trace`.
    """

    graph: ExportedGraph
    shapes: Mapping[str, tuple[int, ...]]
    weights: Collection[str]
    frozen: Collection[str]
    leaves: Collection[str] = ()
    separate: Collection[str] = ()
    nested: Collection[str] = ()
    moving: Mapping[str, Collection[str]] = field(default_factory=dict)
    opaque: Collection[Any] = ()
    trace: Trace = field(init=False)
    layer_outputs: dict[str, AbstractTensor] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    returned: list[AbstractTensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trace = Trace(dict(self.shapes), self.separate, self.nested)
        self.values: dict[Any, Any] = {}
        self.norms: set[str] = {
            name
            for node in self.graph.nodes
            if node.op == "call_function" and operation(node.target) in NORMS
            for arg in node.args[NORM_ARGUMENTS]
            if isinstance(arg, torch.fx.Node) and (name := self.graph.tensors.get(arg.name)) is not None
        }

    def run(self) -> None:
        """Find the abstract tensor of every value, and what constraints the operations put on them."""
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._known(node)
            elif node.op == "output":
                for output in node.all_input_nodes:
                    for tensor in _tensors(self._value(output)):
                        self.trace.constraints.freeze(tensor)
                        self.returned.append(tensor)
                    self.outputs = self.outputs or self._producers(output)

    def _placeholder(self, node: Any) -> Any:
        """Return the name of a parameter, whose tensor is made when it is used, or the tensor of anything else."""
        name = self.graph.tensors.get(node.name)
        if name is not None and (name in self.weights or name in self.norms or name in self.moving):
            return name
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        known = self.graph.constants.get(node.name)
        return AbstractTensor(tuple(value.shape)) if known is None else constant_of(known)

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            known = self.values[argument]
            return self._parameter(known) if isinstance(known, str) else known
        if isinstance(argument, list | tuple):
            return [self._value(item) for item in argument]
        return argument

    def _parameter(self, name: str) -> AbstractTensor:
        tensor = self.trace.parameter(name)
        if name in self.moving:
            kinds = self.moving[name]
            self.trace.constraints.forbid_scaling(tensor, positive=POSITIVE not in kinds, sign=SIGN not in kinds)
        if not self._is_frozen(name):
            return tensor
        self.trace.constraints.freeze(tensor)
        return AbstractTensor(tensor.shape)

    def _is_frozen(self, name: str) -> bool:
        return any(name == layer or name.startswith(f"{layer}.") for layer in self.frozen)

    def _known(self, node: Any) -> Any:
        """Return the value of a node, or say that its operation is not known, or not in this form."""
        try:
            return self._call(node)
        except Exception as error:
            what = f"the operation {operation(node.target)} in an unusual form"
            what = str(error) if isinstance(error, UnknownOperation) else what
            raise UnknownLayer(node, self.graph.layers[node.name], what) from error

    def _call(self, node: Any) -> Any:
        result = node.meta.get("val")
        many = isinstance(result, list | tuple)
        first = result[0] if many and len(result) else result
        if first is None and node.target is not operator.getitem:
            return None
        if not isinstance(first, Tensor):
            return first
        self.trace.shape, self.trace.n_results = tuple(first.shape), len(result) if many else 1
        name, layer = operation(node.target), self.graph.layers[node.name]
        if name in SLICING and (rows := self._rows(node)) is not None:
            return rows
        arguments = self._arguments(node)
        if self._is_constant(node, arguments):
            return self._computed(node)
        # an unknown operation on numbers that no symmetry moves may do whatever it does
        unmoved = name not in RULES and not any(tensor.axes for tensor in _tensors(arguments))
        if unmoved or name in MATRIX_FUNCTIONS or self._is_frozen(layer) or node in self.opaque:
            return self._frozen(arguments, result)
        if self._is_summed(node):
            return list(_tensors(arguments))
        value = tree_map(
            lambda x: replace(x, value=None) if isinstance(x, AbstractTensor) else x, self._applied(name, arguments)
        )
        for tensor in _tensors(value):
            for axis in tensor.axes:
                self.trace.constraints.mark(axis.atoms)
        if isinstance(value, AbstractTensor) and layer in self.leaves:
            # the last operation of a layer without sublayers is its output
            self.layer_outputs[layer] = value
        return value

    def _is_constant(self, node: Any, arguments: Mapping[str, Any]) -> bool:
        """Whether all operands of an operation are constants, such as masks, so that its result is one."""
        drawn = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if drawn or operation(node.target).startswith(("empty", "new_empty")) or prod(self.trace.shape) > MANY:
            return False
        return all(tensor.value is not None for tensor in _tensors(arguments))

    def _is_summed(self, node: Any) -> bool:
        """Whether a node is a product of two tensors that is summed up, and no more: both are one contraction."""
        if operation(node.target) != "mul" or len(node.users) != 1 or len(node.all_input_nodes) != 2:
            return False
        (user,) = node.users
        layers = self.graph.layers
        return operation(user.target) == "sum" and layers[user.name] == layers[node.name] and user not in self.opaque

    def _computed(self, node: Any) -> Any:
        def value(argument: Any) -> Any:
            known = self.values[argument]
            return tree_map(lambda x: x.value if isinstance(x, AbstractTensor) else x, known)

        arguments, keywords = torch.fx.node.map_arg((node.args, dict(node.kwargs)), value)
        with torch.no_grad():
            result = node.target(*arguments, **keywords)
        return tree_map(lambda x: constant_of(x) if isinstance(x, Tensor) else x, result)

    def _applied(self, name: str, arguments: dict[str, Any]) -> Any:
        if name not in RULES:
            raise UnknownOperation(f"the operation {name}")
        rule = RULES[name]
        if rule not in HANDLE_FLIPS:
            arguments = {key: self._without_flips(value) for key, value in arguments.items()}
        return rule(self.trace, **arguments)

    def _without_flips(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._without_flips(item) for item in value]
        return self.trace.constraints.without_flips(value) if isinstance(value, AbstractTensor) else value

    def _arguments(self, node: Any) -> dict[str, Any]:
        if node.target is operator.getitem:
            return {"tensors": self._value(node.args[0]), "index": node.args[1]}
        schema = node.target._schema.arguments
        given = {argument.name: value for argument, value in zip(schema, node.args, strict=False)}
        given.update(node.kwargs)
        return {ARGUMENTS.get(k, k): self._value(v) for k, v in given.items() if k not in ("dtype", "memory_format")}

    def _rows(self, node: Any) -> Any:
        """Return the rows of a parameter that an operation takes, or None if it takes something else."""
        source = node.args[0]
        name = self.values.get(source) if isinstance(source, torch.fx.Node) else None
        arguments = {a.name: v for a, v in zip(node.target._schema.arguments, node.args, strict=False)}
        if not isinstance(name, str) or arguments.get("dim", 0) != 0 or self._is_frozen(name):
            return None
        if any(operation(user.target) not in SLICING for user in source.users):
            return None
        results = node.meta["val"]
        if operation(node.target) == "slice":
            start, step = arguments.get("start") or 0, arguments.get("step", 1)
            start = start + self.shapes[name][0] if start < 0 else start
            return self.trace.rows(name, start, start + results.shape[0]) if step == 1 else None
        if operation(node.target) == "select":
            return self._row(name, arguments["index"] % self.shapes[name][0])
        if operation(node.target) == "unbind":
            return [self._row(name, i) for i in range(len(results))]
        tensors, start = [], 0
        for result in results:
            tensors.append(self.trace.rows(name, start, start + result.shape[0]))
            start += result.shape[0]
        return tensors

    def _row(self, name: str, index: int) -> AbstractTensor:
        return reshaping.drop(self.trace.rows(name, index, index + 1), 0)

    def _frozen(self, arguments: Mapping[str, Any], result: Any) -> Any:
        for tensor in _tensors(arguments):
            self.trace.constraints.freeze(tensor)
        if isinstance(result, list | tuple):
            return [AbstractTensor(tuple(item.shape)) if isinstance(item, Tensor) else item for item in result]
        return AbstractTensor(tuple(result.shape))

    def _producers(self, node: Any) -> tuple[str, ...]:
        """Return the names of the parameters of the last linear map before an output."""
        while node.op == "call_function":
            inputs = [arg for arg in node.args if isinstance(arg, torch.fx.Node)]
            found = tuple(name for arg in inputs if isinstance(name := self.values.get(arg), str))
            if found or len(inputs) != 1:
                return found
            node = inputs[0]
        return ()


def _tensors(value: Any) -> Iterator[AbstractTensor]:
    """Yield the abstract tensors in a value, or in nested lists and dicts of values."""
    if isinstance(value, AbstractTensor):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _tensors(item)
