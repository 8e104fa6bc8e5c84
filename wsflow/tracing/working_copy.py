"""A copy of a module to be traced and certified: in evaluation mode, without wrappers, on the module's own weights."""

from __future__ import annotations

from typing import Any

from torch import nn

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

    Raises
    ------
    InvalidInputError
        If the module cannot be copied.
    """
    working = copied(module, {id(parameter): parameter for parameter in module.parameters()}).eval()
    for layer in list(working.modules()):
        for name, child in layer.named_children():
            if attribute := wrapped_attribute(child):
                layer._modules[name] = Transparent(attribute, getattr(child, attribute))
    if not any(isinstance(hook, ChosenOutput) for hook in working._forward_hooks.values()):
        working.register_forward_hook(output)
    return working
