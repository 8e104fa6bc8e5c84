"""A copy of a module to be traced and certified, on the module's own weights, and where its forward pass fails."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from wsflow.architecture.readable import wrapped_attribute
from wsflow.running.modules import copied
from wsflow.running.outputs import ChosenOutput


class Transparent(nn.Module):
    """What stands for a wrapper inside of a module: it has the same names, and runs the wrapped module."""

    def __init__(self, attribute: str, inner: nn.Module) -> None:
        super().__init__()
        self.attribute = attribute
        self.add_module(attribute, inner)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Run the wrapped module."""
        return getattr(self, self.attribute)(*inputs, **keywords)


def working_copy(module: nn.Module, output: ChosenOutput) -> nn.Module:
    """Return a copy of a module in evaluation mode that shares its parameters, and returns the chosen output.

    In a copy of such a copy the output remains chosen.
    """
    working = copied(module, {id(parameter): parameter for parameter in module.parameters()}).eval()
    for layer in list(working.modules()):
        for name, child in layer.named_children():
            if attribute := wrapped_attribute(child):
                layer._modules[name] = Transparent(attribute, getattr(child, attribute))
    if not any(isinstance(hook, ChosenOutput) for hook in working._forward_hooks.values()):
        working.register_forward_hook(output)
    return working


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
