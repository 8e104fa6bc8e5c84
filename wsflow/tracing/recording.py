"""From a module's forward pass to a program: the graph of torch.export, free of mutations, for any batch size."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import tree_leaves, tree_map

from wsflow.architecture import Architecture
from wsflow.architecture.operations import BY_KIND, INTEGER, OPERATIONS
from wsflow.architecture.program import (
    Constant,
    ConstantValue,
    Dtype,
    Input,
    Operation,
    ParameterValue,
    Program,
    Value,
    operands,
)
from wsflow.running.execution import restored
from wsflow.running.program import ProgramModule
from wsflow.tracing.deterministic import deterministic
from wsflow.tracing.export import quiet

# operations on sizes: those of Python's operator module and torch's symbolic ones, by their names
_SIZES = {getattr(operator, name): name for name in INTEGER if hasattr(operator, name)}
_SIZES |= {torch.sym_max: "max", torch.sym_min: "min"}
# they compute nothing
_CHECKS = ("_assert_tensor_metadata", "sym_constrain_range", "_assert_async", "_assert_scalar")
# a copy to another type, place or layout in memory: only the type is kept
_COPIES = ("to", "_to_copy")
_PLACES = ("device", "layout", "pin_memory", "memory_format")
# of no effect where nothing is written in place
_SAME = ("clone", "contiguous", "alias", "positive", "lift_fresh_copy")
# views may need a copy where the operation before had another layout in memory
_VIEWS = ("view", "_unsafe_view")
# the momentum of a mean over all batches
CUMULATIVE = math.nan
_FROZEN = "_native_batch_norm_legit_no_training"
# the names of batch norms in a graph without mutations
_BATCH_NORMS = ("_native_batch_norm_legit_functional", "_native_batch_norm_legit", _FROZEN)
_UNIFORM = ("rand", "rand_like")
# operations of which a program has the first result alone
_FIRST = ("native_dropout", *_BATCH_NORMS)


DRAWS = frozenset(BY_KIND["draws"].split())


@torch.library.custom_op("wsflow::alpha_dropout", mutates_args=())
def _alpha_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Stand for alpha dropout, which torch.export would take apart."""
    raise NotImplementedError


@torch.library.custom_op("wsflow::feature_alpha_dropout", mutates_args=())
def _feature_alpha_dropout(x: Tensor, p: float, train: bool) -> Tensor:
    """Stand for alpha dropout of channels."""
    raise NotImplementedError


# they are put in the place of alpha dropouts
_WHOLE = {name: getattr(torch.ops.wsflow, name).default for name in ("alpha_dropout", "feature_alpha_dropout")}
for stand_in in (_alpha_dropout, _feature_alpha_dropout):
    stand_in.register_fake(lambda x, p, train: torch.empty_like(x))


class _NotRecorded(ValueError):
    """A part of a graph that no program expresses."""


def with_program(
    architecture: Architecture, module: nn.Module, inputs: Sequence[Any], chosen: Sequence[Any]
) -> Architecture:
    """Return the architecture of a module in evaluation mode with its program, for inputs in the module's precision.

    The program is that of the module in training mode where it computes the module's outputs in evaluation mode as
    well, on the `chosen` inputs in float64; else it is that of evaluation mode alone. There is none where no program
    expresses the forward pass, or where its output is not the module's.
    """
    names = {alias: p.name for p in architecture.parameters for alias in (p.name, *p.aliases)}
    if not all(isinstance(x, Tensor) for x in inputs):
        return architecture
    why = ""
    for training in (True, False):
        # torch.export fails in many ways, most of them where a size cannot vary
        try:
            program = replace(_recorded(module, inputs, names, training), evaluation_only=why)
            result = replace(architecture, program=program)
            if _agrees(result, module, chosen):
                return result
            drawing = dict.fromkeys(o.layer for o in program.operations if o.base in DRAWS and o.layer)
            where = f"; random numbers are drawn in {', '.join(map(repr, drawing))}" if drawing else ""
            why = f"what the module does in training mode is more than dropout and batch statistics{where}"
        except _NotRecorded as error:
            why = f"in training mode the module uses {error}"
        except Exception as error:
            why = f"the module could not be read in training mode ({type(error).__name__})"
    return architecture


def _recorded(module: nn.Module, inputs: Sequence[Any], names: Mapping[str, str], training: bool) -> Program:
    """Return the program for any number of examples, and sequences of integers of any length."""
    auto = torch.export.Dim.AUTO
    sizes = tuple(dict.fromkeys(range(min(x.dim(), 1) if x.is_floating_point() else x.dim()), auto) for x in inputs)
    # torch.export leaves marks on its inputs, by which their sizes would vary in the next export
    inputs = [x.clone() for x in inputs]
    with quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        with restored(module):
            if training:
                for layer in module.train().modules():
                    if getattr(layer, "momentum", 0.0) is None:
                        # its factor depends on the count of batches, which torch.export cannot follow
                        layer.momentum = CUMULATIVE  # type: ignore[assignment]
            exported = torch.export.export(module, tuple(inputs), dynamic_shapes=sizes, strict=False)
        for node in exported.graph_module.graph.nodes:
            if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
                node.target = _WHOLE.get(str(node.target).removeprefix("aten.").removesuffix(".default"), node.target)
        dtype = next(p.dtype for p in module.parameters() if p.is_floating_point())
        return _Recorder(exported.run_decompositions({}), names, dict(module.named_modules()), dtype).program()


@torch.no_grad()
def _agrees(architecture: Architecture, module: nn.Module, inputs: Sequence[Any]) -> bool:
    known = {name: x for name, x in module.state_dict().items() if name in architecture.names}
    state, inputs = tree_map(lambda x: x.double() if x.is_floating_point() else x, (known, tuple(inputs)))
    runner = ProgramModule(architecture)
    with restored(module), deterministic():
        ours = tree_leaves(torch.func.functional_call(runner, state, inputs))
        theirs = tree_leaves(torch.func.functional_call(module, state, inputs))
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-12, equal_nan=True) for a, b in zip(ours, theirs, strict=True))


class _Recorder:
    def __init__(
        self, exported: Any, parameters: Mapping[str, str], layers: Container[str], dtype: torch.dtype
    ) -> None:
        self.exported, self.parameters, self.layers, self.dtype = exported, parameters, layers, dtype
        self.values: dict[Any, Any] = {}
        self.counts: Counter[str] = Counter()
        self.inputs: list[Input] = []
        self.constants: dict[str, Constant] = {}
        self.operations: list[Operation] = []

    def program(self) -> Program:
        signature = self.exported.graph_signature
        specs = {spec.arg.name: spec for spec in signature.input_specs}
        (end,) = (node for node in self.exported.graph.nodes if node.op == "output")
        results = zip(end.args[0], signature.output_specs, strict=True)
        # without the buffers that are updated
        returned = [node for node, spec in results if spec.kind == OutputKind.USER_OUTPUT]
        needed = _needed(returned)
        for node in self.exported.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node, specs[node.name])
            elif node.op == "call_function" and node in needed:
                self._call(node)
        # a single tensor, or what the module returned as nested tuples
        output = _nested(self.exported.call_spec.out_spec, iter(self._argument(returned)))
        used = {x.name for o in self.operations for x in operands(o.operands) if isinstance(x, ConstantValue)}
        used |= {x.name for x in operands(output) if isinstance(x, ConstantValue)}
        constants = tuple(constant for name, constant in self.constants.items() if name in used)
        return Program(tuple(self.inputs), tuple(self.operations), output, constants)

    def _placeholder(self, node: Any, spec: Any) -> Any:
        if spec.kind == InputKind.USER_INPUT:
            example = node.meta["val"]
            name = self._new("input")
            shape = tuple(int(size) if isinstance(size, int) else size.node.hint for size in example.shape)
            self.inputs.append(Input(name, self._dtype(example.dtype), shape))
            return Value(name)
        if spec.target in self.parameters:
            return ParameterValue(self.parameters[spec.target])
        known = {**self.exported.state_dict, **self.exported.constants}[spec.target]
        if not isinstance(known, Tensor):
            raise _NotRecorded("a constant that is no tensor")
        name = self._new("constant")
        self.constants[name] = Constant(name, self._dtype(known.dtype), tuple(known.shape), self._bytes(known))
        return ConstantValue(name)

    def _call(self, node: Any) -> None:
        if node.target in _SIZES:
            return self._add(node, f"int_{_SIZES[node.target]}", node.args, {})
        if node.target is operator.getitem:
            if node.args[0].op == "call_function" and _base(node.args[0].target) in _FIRST:
                if node.args[1] != 0:
                    raise _NotRecorded(f"the statistics or the mask that {node.args[0].target} used")
                self.values[node] = self.values[node.args[0]]
                return None
            return self._add(node, "getitem", node.args, {})
        base = _base(node.target)
        if base in _CHECKS:
            return None
        if base in _BATCH_NORMS:
            return self._batch_norm(node)
        if base == "native_dropout":
            return self._add(node, "dropout.default", node.args, {})
        if base in ("lt", "le", "floor") and (drawn := _bernoulli(node)):
            return self._add(node, "bernoulli.p", drawn, {})
        given = {
            a.name: value for a, value in zip(node.target._schema.arguments, node.args, strict=False)
        } | node.kwargs
        if base in _COPIES and (dtype := given.get("dtype")) not in (None, node.args[0].meta["val"].dtype):
            return self._add(node, "to.dtype", (node.args[0], dtype), {})
        if base in (*_SAME, *_COPIES):
            self.values[node] = self.values[node.args[0]]
            return None
        if base in _VIEWS and isinstance(node.args[1], list | tuple):
            return self._add(node, "reshape.default", node.args, {})
        if base not in OPERATIONS or node.target._schema.is_mutable:
            raise _NotRecorded(f"the operation {node.target}")
        keywords = {name: value for name, value in node.kwargs.items() if name not in _PLACES}
        return self._add(node, f"{base}.{node.target._overloadname}", node.args, keywords)

    def _batch_norm(self, node: Any) -> None:
        *tensors, momentum, eps = node.args
        follows = _base(node.target) != _FROZEN and tensors.pop()
        # a norm may be one without running statistics
        tensors += [None] * (5 - len(tensors))
        if math.isnan(momentum):
            momentum = None if tensors[3] is not None else 0.0
        self._add(node, "batch_norm.default", (*tensors, follows, momentum, eps, False), {})

    def _add(self, node: Any, function: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        name = self._new(function.partition(".")[0])
        self.values[node] = Value(name)
        self.operations.append(
            Operation(
                name,
                function,
                tuple(self._argument(argument) for argument in arguments),
                tuple((key, self._argument(value)) for key, value in sorted(keywords.items())),
                self._layer(node) if isinstance(node.meta.get("val"), Tensor | list | tuple) else "",
            )
        )

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self.values[argument]
        if isinstance(argument, list | tuple):
            return tuple(self._argument(item) for item in argument)
        if isinstance(argument, torch.dtype):
            return Dtype(self._dtype(argument))
        if argument is not None and not isinstance(argument, bool | int | float | str):
            raise _NotRecorded(f"an operand of type {type(argument).__name__}")
        return argument

    def _layer(self, node: Any) -> str:
        """Return the innermost submodule that computes a node; sizes belong to none."""
        stack = [name.partition("@")[0] for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
        return stack[-1] if stack and stack[-1] in self.layers else ""

    def _dtype(self, dtype: torch.dtype) -> str:
        return "weights" if dtype == self.dtype else str(dtype).removeprefix("torch.")

    def _bytes(self, tensor: Tensor) -> bytes:
        # what has the type of the weights is kept in float64
        known = (tensor.double() if tensor.dtype == self.dtype else tensor).detach().cpu().contiguous()
        return known.view(-1).view(torch.uint8).numpy().tobytes()

    def _new(self, name: str) -> str:
        self.counts[name] += 1
        return f"{name}_{self.counts[name]}"


def _needed(returned: Sequence[Any]) -> set[Any]:
    """Return the nodes on which outputs depend."""
    needed: set[Any] = set()
    waiting = [node for node in returned if isinstance(node, torch.fx.Node)]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    return needed


def _bernoulli(node: Any) -> tuple[Any, float] | None:
    """Return the operands of the draw of zeros and ones that a comparison or a rounding of uniform numbers is."""
    drawn, limit = (*node.args, None)[:2]
    if _base(node.target) == "floor":
        if not isinstance(drawn, torch.fx.Node) or drawn.target != torch.ops.aten.add.Tensor:
            return None
        drawn, limit = drawn.args
    uniform = isinstance(drawn, torch.fx.Node) and drawn.op == "call_function" and _base(drawn.target) in _UNIFORM
    return (drawn, float(limit)) if uniform and isinstance(limit, int | float) else None


def _nested(spec: Any, values: Iterator[Any]) -> Any:
    children = spec.children_specs if hasattr(spec, "children_specs") else spec.children()
    if spec.is_leaf():
        return next(values)
    return tuple(_nested(child, values) for child in children)


def _base(target: Any) -> str:
    if not isinstance(target, torch._ops.OpOverload) or (target.namespace != "aten" and target not in _WHOLE.values()):
        raise _NotRecorded(f"the operation {target}")
    return target._opname
