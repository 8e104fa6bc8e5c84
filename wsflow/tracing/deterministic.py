"""How networks are run to be compared: in float64 throughout, and with one number for all that is drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

SHORT = (torch.float32, torch.float16, torch.bfloat16)
# operations that draw independent numbers of one law, and the number that stands for all of them
_DRAWS = """
    rand rand_like randn randn_like uniform normal normal_functional bernoulli exponential log_normal cauchy geometric
    """
DRAWS = frozenset(_DRAWS.split())
DRAWN = 0.7


@contextmanager
def deterministic() -> Iterator[None]:
    """Compute in float64 with constants of any precision, without casts to shorter floats; draws are one number.

    Norms that compute in float32 would round what is compared. Numbers drawn anew in each pass have one law for all
    neurons, so that a symmetry of the network with one number for all of them is one of the law of its outputs.
    """
    with torch.random.fork_rng(devices=[]), _DoubleConvolutions(), _Deterministic():
        yield


class _DoubleConvolutions(TorchFunctionMode):
    """Casts constant kernels, whose type torch compares before operations are dispatched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "").startswith("conv"):
            args, kwargs = tree_map(_doubled, args), tree_map(_doubled, kwargs or {})
        return func(*args, **(kwargs or {}))


class _Deterministic(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given, kwargs = tree_map(_doubled, args), tree_map(_doubled, kwargs or {})
        result = tree_map(_doubled, _run(func, given, kwargs))
        if func._schema.is_mutable and args and isinstance(args[0], Tensor) and args[0] is not given[0]:
            args[0].copy_(result)
        return result


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in SHORT:
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value in SHORT else value


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    name = func._schema.name.partition("::")[2].removesuffix("_")
    tensors = [value for value in args if isinstance(value, Tensor)]
    in_place = func._schema.name.endswith("_")
    if name == "bernoulli" and len(args) == 1 and not in_place:
        # its mean
        return args[0].clone()
    if name == "normal" and len(tensors) and not in_place:
        return args[0] + DRAWN * (args[1] if len(args) > 1 else 1)
    if name == "native_dropout" and args[2]:
        return args[0] * DRAWN, torch.ones_like(args[0], dtype=torch.bool)
    result = func(*args, **kwargs)
    return result.fill_(DRAWN) if name in DRAWS and result.is_floating_point() else result
