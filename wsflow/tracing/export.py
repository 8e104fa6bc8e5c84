"""A module as a graph of operations: that of torch.export, with the names of layers and parameters.

References
----------
https://docs.pytorch.org/docs/stable/export.html
"""

from __future__ import annotations

import copy
import io
import logging
import traceback
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from wsflow.exceptions import InvalidInputError

# what torch raises where a value decides what is computed next
DATA_DEPENDENT = ("GuardOnDataDependentSymNode", "DataDependentOutputException", "DynamicOutputShapeException")


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


def exported_graph(module: nn.Module, inputs: Sequence[Any], known: Container[str]) -> ExportedGraph:
    """Return the graph of a forward pass, with operations decomposed whose names are not known.

    Raises
    ------
    InvalidInputError
        If the forward pass fails, or depends on the values of tensors; the layer is named.
    """
    with quiet(), _named(module):
        exported = _exported(module, inputs)
        targets = {node.target for node in exported.graph.nodes if node.op == "call_function"}
        strange = {target for target in targets if operation(target) not in known}
        table = torch.export.default_decompositions() if strange else {}
        exported = exported.run_decompositions({op: table[op] for op in strange if op in table})
    names = _first_names(module)
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
    layers = {node.name: _layer(node) for node in exported.graph.nodes}
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
    """Let torch export without warnings, logs and fused attention."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    loud = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(loud)
        torch.backends.mha.set_fastpath_enabled(before)


def _exported(module: nn.Module, inputs: Sequence[Any]) -> Any:
    # torch prints the graph of what it cannot export
    with torch.no_grad(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return torch.export.export(module, tuple(inputs), strict=False)


@contextmanager
def _named(module: nn.Module) -> Iterator[None]:
    """Turn what torch.export raises into a sentence that names the layer."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
        if type(error).__name__ in DATA_DEPENDENT:
            reason = "what it does depends on the values of tensors (an if on a tensor, .item())."
        raise InvalidInputError(
            f"{_failing(module, error)} could not be traced: {reason} The forward pass has to run on the example "
            "input, and its course may depend on shapes only. Rewrite that part, or describe the network by hand with "
            "Architecture(parameters=..., wires=...)."
        ) from error


def _failing(module: nn.Module, error: BaseException) -> str:
    """Return the innermost submodule in whose forward pass an error arose, in words."""
    names = {id(child): name for name, child in module.named_modules()}
    found = f"The module itself ({type(module).__name__})"
    chain: BaseException | None = error
    while chain is not None:
        for frame, _ in traceback.walk_tb(chain.__traceback__):
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and names.get(id(owner)):
                found = f"The layer {names[id(owner)]!r} ({type(owner).__name__})"
        chain = chain.__cause__ or chain.__context__
    return found


def _first_names(module: nn.Module) -> dict[str, str]:
    """Return, for each key of the state dict, the first key that holds the same tensor."""
    first: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _layer(node: Any) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    names = [name for name, _ in stack.values()]
    return names[-1] if names else ""


def evaluation_copy(module: nn.Module) -> nn.Module:
    """Return a copy of the module in evaluation mode and float64."""
    copied = copy.deepcopy(module).eval()
    return copied.double() if any(p.is_floating_point() for p in copied.state_dict().values()) else copied
