"""Weights that a forward pass uses and a state dict does not have: in plain lists, closures and global variables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from wsflow.exceptions import InvalidInputError

# lists in lists, and objects that hold modules
DEPTH = 4


def check_hidden(module: nn.Module, constants: Collection[Tensor]) -> None:
    """Refuse, by name, weights that are learned and that the module's state dict lacks.

    `constants` are the tensors that its graph has beside parameters and buffers.
    """
    used = {tensor.data_ptr() for tensor in constants}
    known = {tensor.data_ptr() for tensor in module.state_dict(keep_vars=True).values() if isinstance(tensor, Tensor)}
    for where, what, tensor in _found(module) if used else ():
        if tensor.requires_grad and tensor.data_ptr() in used - known:
            raise InvalidInputError(
                f"The forward pass of this {type(module).__name__} uses {what} {where}, where neither its state dict "
                "nor an optimizer finds the weights. Make it an attribute of the module (nn.ModuleList and "
                "nn.ModuleDict hold several, nn.Parameter a tensor); or, if it is a constant, call "
                "requires_grad_(False) on it."
            )


def _found(module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (where, what, tensor) for all tensors within reach of the code of a module."""
    seen: set[int] = {id(layer) for layer in module.modules()}
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        for key, value in vars(layer).items():
            if key not in ("_parameters", "_buffers", "_modules"):
                yield from _within(value, f"in the attribute {prefix + key!r}", seen, DEPTH)
        methods = [value for kind in type(layer).__mro__ if kind is not nn.Module for value in vars(kind).values()]
        for method in methods:
            if isinstance(method, FunctionType):
                yield from _within(method, "", seen, DEPTH)


def _within(value: Any, where: str, seen: set[int], depth: int) -> Iterator[tuple[str, str, Tensor]]:
    if id(value) in seen or not depth:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield where, f"a tensor {tuple(value.shape)}", value
    elif isinstance(value, nn.Module):
        yield from ((where, f"a {type(value).__name__}", tensor) for tensor in value.parameters())
    else:
        for place, item in _items(value, where):
            yield from _within(item, place, seen, depth - 1)


def _items(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((where, item) for item in value.values())
    elif isinstance(value, list | tuple | set):
        yield from ((where, item) for item in value)
    elif isinstance(value, partial):
        yield from ((where, item) for item in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, MethodType):
        yield from ((where, item) for item in (value.__self__, value.__func__))
    elif isinstance(value, FunctionType) and not value.__module__.startswith("torch."):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((f"in the closure variable {name!r}", cell.cell_contents) for name, cell in cells if _is_set(cell))
        names = [name for name in value.__code__.co_names if name in value.__globals__]
        yield from ((f"in the global variable {name!r}", value.__globals__[name]) for name in names)
    elif hasattr(value, "__dict__") and not isinstance(value, type | ModuleType):
        yield from ((where, item) for item in vars(value).values())


def _is_set(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
