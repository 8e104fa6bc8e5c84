"""A second device that every machine has: it computes on the CPU, and refuses what a GPU refuses.

Its tensors are of torch's device "lazy", for which nothing is built, and hold tensors of the CPU. An operation on
tensors of both devices is an error, as is an index on the other device, which a GPU would take, but wait for. What
crosses over is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

NAME = "lazy"
CPU = torch.device("cpu")
# tensors that came from there, and numbers that went there, since they were counted last
crossed: Counter[str] = Counter()


class There(Tensor):
    """A tensor on the second device."""

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        form = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        return Tensor._make_wrapper_subclass(cls, here.shape, device=NAME, **form)

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def tolist(self) -> Any:
        crossed["back"] += 1
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        return _computed(function, arguments, keywords or {})


class SecondDevice(TorchDispatchMode):
    """A context in which the device is there."""

    def __enter__(self) -> Self:
        crossed.clear()
        # the data of a parameter could not be put in its place: a tensor of this device has it as an attribute
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        return _computed(function, arguments, keywords or {})


def _computed(function: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
    name = function.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    device = keywords.get("device")
    goes_there = bool(there) if device is None else torch.device(device).type == NAME
    others = [tensor for tensor in tensors if not isinstance(tensor, There) and tensor.dim()]
    if there and others and name not in ("copy_", "_to_copy"):
        raise RuntimeError(f"{name}: tensors of shapes {[tuple(t.shape) for t in tensors]} are on two devices")
    _count(name, there, tensors, goes_there, arguments)
    given, named = tree_map(_here, (arguments, keywords))
    result = function(*given, **({**named, "device": CPU} if device is not None else named))
    if name == "copy_":
        return arguments[0]
    if not goes_there:
        return result
    return return_and_correct_aliasing(function, arguments, keywords, tree_map(_there, result))


def _count(name: str, there: list[There], tensors: list[Tensor], goes_there: bool, arguments: Any) -> None:
    if name == "_local_scalar_dense" and there:
        crossed["back"] += 1
    elif name == "_to_copy" and bool(there) != goes_there:
        crossed["there" if goes_there else "back"] += 1
    elif name == "copy_" and 0 < len(there) < len(tensors):
        crossed["there" if isinstance(arguments[0], There) else "back"] += 1


def _here(x: Any) -> Any:
    return x.here if isinstance(x, There) else x


def _there(x: Any) -> Any:
    return There(x) if isinstance(x, Tensor) and not isinstance(x, There) else x
