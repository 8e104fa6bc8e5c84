"""Where in a module a forward pass failed, and whether the example input is the cause."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def check_example(module: nn.Module, inputs: Sequence[Any], error: Exception | None) -> None:
    """Refuse an example input for which a layer of torch raised an error in the forward pass."""
    layer = module if error is None else _owner(module, error)
    own = type(layer).__module__.startswith("torch.nn.modules") and not isinstance(layer, nn.Sequential)
    if error is None or not own or "dtype" in str(error):
        return
    shapes = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, Tensor))
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    raise ValueError(
        f"An example input of shape {shapes} does not fit {_place(module, layer)}, {layer}: {reason.rstrip('.')}. Pass "
        "one that does, with the examples along its first axis."
    ) from error


def failing(module: nn.Module, error: BaseException) -> str:
    """Return the innermost submodule in whose forward pass an error arose, in words."""
    owner = _owner(module, error)
    place = _place(module, owner)
    return f"{place[0].upper()}{place[1:]} ({type(owner).__name__})"


def _place(module: nn.Module, layer: nn.Module) -> str:
    name = next(name for name, child in module.named_modules() if child is layer)
    return f"the layer {name!r}" if name else "the module itself"


def _owner(module: nn.Module, error: BaseException) -> nn.Module:
    names = {id(child): name for name, child in module.named_modules()}
    found = module
    chain: BaseException | None = error
    while chain is not None:
        for frame, _ in traceback.walk_tb(chain.__traceback__):
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and names.get(id(owner)):
                found = owner
        chain = chain.__cause__ or chain.__context__
    return found
