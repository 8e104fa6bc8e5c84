"""A module as a list of operations: torch.export's graph, with the names of layers and parameters.

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
from collections.abc import Iterator, Sequence
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
class Program:
    """The operations of a network, and its tensors by name.

    Parameters
    ----------
    graph : torch.fx.Graph
    tensors : dict from str to str
        For each placeholder that is a parameter or buffer: its first name in the state dict.
    constants : dict from str to Tensor
        For each placeholder that is a number or table written into the code.
    aliases : dict from str to tuple of str
        Other names of a tensor.
    layers : dict from str to str
        For each node, the innermost submodule that computes it.
    """

    graph: Any
    tensors: dict[str, str]
    constants: dict[str, Tensor]
    aliases: dict[str, tuple[str, ...]]
    layers: dict[str, str]


def read(module: nn.Module, inputs: Sequence[Any], unknown: Any) -> Program:
    """Export a module, with operations split up that are not known.

    Parameters
    ----------
    module : nn.Module
    inputs : sequence
        Positional arguments of its forward pass.
    unknown : callable from str to bool
        Whether an operation of that name should be split up.

    Returns
    -------
    Program

    Raises
    ------
    InvalidInputError
        If the forward pass fails, or depends on the values of tensors; the layer is named.
    """
    with _quiet(), _named(module):
        exported = _exported(module, inputs)
        targets = {node.target for node in exported.graph.nodes if node.op == "call_function"}
        strange = {target for target in targets if unknown(operation(target))}
        table = torch.export.default_decompositions() if strange else {}
        exported = exported.run_decompositions({op: table[op] for op in strange if op in table})
    names = _first_names(module)
    tensors, constants = {}, {}
    for spec in exported.graph_signature.input_specs:
        name = spec.arg.name
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in names:
            tensors[name] = names[spec.target]
        elif spec.target in exported.constants:
            constants[name] = exported.constants[spec.target]
    aliases: dict[str, list[str]] = {}
    for other, name in names.items():
        if other != name:
            aliases.setdefault(name, []).append(other)
    layers = {node.name: _layer(node) for node in exported.graph.nodes}
    return Program(exported.graph, tensors, constants, {k: tuple(v) for k, v in aliases.items()}, layers)


def operation(target: Any) -> str:
    """The name of an operation, without its overload."""
    name = getattr(target, "__name__", str(target))
    return name.partition(".")[0]


@contextmanager
def _quiet() -> Iterator[None]:
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
    """What torch.export raises as a sentence that names the layer."""
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
    """The innermost submodule in whose forward pass an error arose."""
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
    """For each key of the state dict, the first key that holds the same tensor."""
    first: dict[tuple[Any, ...], str] = {}
    result = {}
    state = module.state_dict(keep_vars=True)
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):
            result[name] = first.setdefault((id(tensor),), name)
    return result


def _layer(node: Any) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    names = [name for name, _ in stack.values()]
    return names[-1] if names else ""


def evaluation_copy(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, in float64, with tensors of its own."""
    copied = copy.deepcopy(module).eval()
    return copied.double() if any(p.is_floating_point() for p in copied.state_dict().values()) else copied
