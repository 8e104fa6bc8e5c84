"""A module as a graph of operations: that of torch.export, with the names of layers and parameters.

Packed sequences are traced as if all were as long as the longest: what neurons do does not depend on the lengths, and
torch.export cannot follow them. The certificate runs the module as it is.

References
----------
https://docs.pytorch.org/docs/stable/export.html
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.nn.modules import transformer
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from wsflow.exceptions import InvalidInputError
from wsflow.running.execution import restored
from wsflow.tracing.hidden import check_hidden
from wsflow.tracing.working_copy import check_example, failing

# what torch raises, or says, where it cannot follow a forward pass -> why, and what to do
DATA_DEPENDENT = "what it does depends on the values of tensors (an if on a tensor, .item()). Compute with tensors only"
REASONS = {
    "GuardOnDataDependentSymNode": DATA_DEPENDENT,
    "DataDependentOutputException": DATA_DEPENDENT,
    "DynamicOutputShapeException": DATA_DEPENDENT,
    ".numpy() is not supported": "it leaves torch (.numpy()). Write that part with operations of torch",
    "ScriptModule": "part of it is compiled to TorchScript. Pass the Python module",
    "not an instance of torch.nn.Parameter": "part of it is compiled to TorchScript. Pass the Python module",
    "__obj_flatten__": "part of it is quantized. Pass the network from before",
    "too many positional arguments": "it takes fewer inputs. Pass a tuple of what it takes as example_input",
    "missing a required argument": "it takes more inputs. Pass a tuple of what it takes as example_input",
}
# operations whose result is no tensor, or a tensor whose shape only its values give
VALUES = {"item": ".item()", "_local_scalar_dense": ".item()", "nonzero": "nonzero, or a mask as an index"}
VALUES |= {"index": "a mask as an index", "masked_select": "masked_select", "unique": "unique", "_unique2": "unique"}


@dataclass(frozen=True)
class ExportedGraph:
    """The operations of a network (nodes of torch.fx, in the order of the forward pass), and its tensors by name.

    For placeholders, `tensors` has the first name in the state dict of a parameter or buffer, and `constants` the
    numbers written into the code, and those of buffers that are no statistics. `aliases` are the other names of a
    tensor; `layers` has the innermost submodule that computes each node.
    """

    nodes: tuple[Any, ...]
    tensors: dict[str, str]
    constants: dict[str, Tensor]
    aliases: dict[str, tuple[str, ...]]
    layers: dict[str, str]

    def with_named_constants(self, moving: Container[str]) -> tuple[ExportedGraph, dict[str, Tensor]]:
        """Return the graph with names for all constants, and by these the masks and reals with more than one number.

        Those that `moving` names are none.
        """
        tensors = {**{node: node for node in self.constants}, **self.tensors}
        constants = {
            tensors[node]: constant
            for node, constant in self.constants.items()
            if constant.numel() > 1 and (constant.is_floating_point() or constant.dtype == torch.bool)
        }
        return replace(self, tensors=tensors), {name: x for name, x in constants.items() if name not in moving}

    @property
    def unused(self) -> set[str]:
        """The names of parameters and buffers on which the outputs do not depend."""
        used = {self.tensors.get(node.name) for node in self.nodes if node.op == "placeholder" and node.users}
        return set(self.tensors.values()) - used


def exported_graph(module: nn.Module, inputs: Sequence[Any], known: Container[str]) -> ExportedGraph:
    """Return the graph of a forward pass, with operations decomposed whose names are not known.

    Raises
    ------
    InvalidInputError
        If the forward pass fails, or depends on the values of tensors, or uses weights that the state dict lacks.
    """
    inputs = [
        PackedSequence(*_packed(pad_packed_sequence(x)[0], None, False)) if isinstance(x, PackedSequence) else x
        for x in inputs
    ]
    with quiet(), _named(module, inputs), restored(module), torch.random.fork_rng(devices=[]), _unpacked(module):
        # torch prints the graph of what it cannot export
        with torch.no_grad(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            exported = torch.export.export(module, tuple(inputs), strict=False)
        _refuse_values(module, exported.graph.nodes)
        targets = {node.target for node in exported.graph.nodes if node.op == "call_function"}
        strange = {target for target in targets if operation(target) not in known}
        table = torch.export.default_decompositions() if strange else {}
        exported = exported.run_decompositions({op: table[op] for op in strange if op in table})
    check_hidden(module, [constant for constant in exported.constants.values() if isinstance(constant, Tensor)])
    state = {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)}
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    buffers = {name: buffer for name, buffer in module.named_buffers() if _is_design(buffer)}
    tensors: dict[str, str] = {}
    constants: dict[str, Tensor] = {}
    for spec in exported.graph_signature.input_specs:
        name = spec.arg.name
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in names:
            tensors[name] = names[spec.target]
            constants |= {name: buffers[tensors[name]]} if tensors[name] in buffers else {}
        elif spec.target in exported.constants:
            constants[name] = exported.constants[spec.target]
    aliases: dict[str, list[str]] = {}
    for other, name in names.items():
        if other != name:
            aliases.setdefault(name, []).append(other)
    layers = {node.name: layer_of(node) for node in exported.graph.nodes}
    return ExportedGraph(
        tuple(exported.graph.nodes), tensors, constants, {name: tuple(own) for name, own in aliases.items()}, layers
    )


def _is_design(buffer: Tensor) -> bool:
    """Whether a buffer is a constant of the network: one value for all neurons may be a statistic before training."""
    return not buffer.is_floating_point() or buffer.numel() == 1 or bool((buffer != buffer.flatten()[:1]).any())


def operation(target: Any) -> str:
    """Return the name of an operation, without its overload."""
    name = getattr(target, "__name__", str(target))
    return name.partition(".")[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Let torch export without warnings, logs, fused attention, and a look at the values of masks."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    loud = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # torch else looks at the values of a mask, to choose a kernel of the same function
        said = lambda mask, is_causal=None, size=None: bool(is_causal)  # noqa: E731
        with warnings.catch_warnings(), patch.object(transformer, "_detect_is_causal_mask", said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(loud)
        torch.backends.mha.set_fastpath_enabled(before)


def _refuse_values(module: nn.Module, nodes: Iterable[Any]) -> None:
    """Refuse a graph whose branches, numbers or shapes depend on the values of tensors."""
    for node in nodes:
        if node.op != "call_function":
            continue
        name = operation(node.target)
        what = ""
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            what = f"torch.{name} runs code of its own that is chosen by values. Use torch.where for a choice"
        elif name != "getitem" and any(free_unbacked_symbols(value) for value in tree_leaves(node.meta.get("val"))):
            what = f"its numbers or shapes depend on the values of tensors ({VALUES.get(name, name)}). "
            what += "Keep numbers in tensors, and multiply by a mask where rows are chosen"
        if what:
            layer, kind = layer_of(node), type(module).__name__
            where = f"The layer {layer!r} ({kind_of(node)})" if layer else f"The module itself ({kind})"
            raise InvalidInputError(_could_not(where, what))


@contextmanager
def _named(module: nn.Module, inputs: Sequence[Any]) -> Iterator[None]:
    """Turn what torch.export raises into a sentence that names the layer."""
    try:
        yield
    except InvalidInputError:
        raise
    except Exception as error:
        check_example(module, inputs, _plain_error(module, inputs))
        said = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
        reason = next((reason for part, reason in REASONS.items() if part in f"{type(error).__name__} {error}"), said)
        raise InvalidInputError(_could_not(failing(module, error), reason.rstrip("."))) from error


def _plain_error(module: nn.Module, inputs: Sequence[Any]) -> Exception | None:
    """Return what the forward pass raises by itself."""
    try:
        with torch.no_grad():
            module(*inputs)
    except Exception as error:
        return error
    return None


def _could_not(where: str, reason: str) -> str:
    return (
        f"{where} could not be traced: {reason}. The forward pass has to run on the example input, and its course may "
        "depend on shapes only. Rewrite that part, or describe the network by hand with "
        "Architecture(parameters=..., wires=...)."
    )


def layer_of(node: Any) -> str:
    """Return the name of the innermost submodule that computes a node, and nothing for the module itself."""
    names = [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return names[-1] if names else ""


def kind_of(node: Any) -> str:
    """Return the class of the innermost submodule that computes a node."""
    kinds = [kind for _, kind in (node.meta.get("nn_module_stack") or {}).values()]
    return (kinds[-1] if isinstance(kinds[-1], str) else kinds[-1].__name__).rpartition(".")[2] if kinds else ""


@contextmanager
def _unpacked(module: nn.Module) -> Iterator[None]:
    """Let packing, unpacking and recurrent layers work on sequences of full length."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.RNNBase)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        with _FullLength():
            yield
    finally:
        for layer in layers:
            del layer.forward


class _FullLength(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replacement = REPLACED.get(getattr(func, "__name__", ""), func)
        return replacement(*args, **(kwargs or {}))


def _packed(input: Tensor, lengths: Any, batch_first: bool) -> tuple[Tensor, Tensor]:
    steps = input.transpose(0, 1) if batch_first else input
    return steps.flatten(0, 1), torch.full((steps.shape[0],), steps.shape[1], dtype=torch.int64)


def _padded(data: Tensor, sizes: Tensor, batch_first: bool, padding: Any, total: int) -> tuple[Tensor, Tensor]:
    steps = data.unflatten(0, (sizes.shape[0], -1))
    lengths = torch.full((steps.shape[1],), steps.shape[0], dtype=torch.int64)
    return (steps.transpose(0, 1) if batch_first else steps), lengths


REPLACED: dict[str, Callable[..., Any]] = {"_pack_padded_sequence": _packed, "_pad_packed_sequence": _padded}


def _forward(layer: nn.RNNBase, input: Any, hx: Any = None) -> Any:
    forward = partial(type(layer).forward, layer)
    if not isinstance(input, PackedSequence):
        return forward(input, hx)
    data, sizes, order, back = input
    steps = data.unflatten(0, (sizes.shape[0], -1))
    if hx is not None:
        hx = layer.permute_hidden(hx, order)
    output, hidden = forward(steps.transpose(0, 1) if layer.batch_first else steps, hx)
    output = output.transpose(0, 1) if layer.batch_first else output
    return PackedSequence(output.flatten(0, 1), sizes, order, back), layer.permute_hidden(hidden, back)
