"""One network as a torch module."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wsflow.activations import activation
from wsflow.architecture import Architecture, Layer
from wsflow.architecture.fixed_entries import other_constants
from wsflow.architecture.readable import unwrapped
from wsflow.architecture.sequential import LINEAR
from wsflow.exceptions import InvalidInputError


def to_module(architecture: Architecture, state: Mapping[str, Tensor], template: Any = None) -> nn.Module:
    """Build the module of one network: a copy of the template, its layers, or what runs the architecture."""
    if template is not None:
        return _of_template(architecture, state, template)
    if not architecture.layers:
        if architecture.executable is None:
            raise ValueError("This architecture does not say how to build its modules. Pass template=.")
        real = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
        return _of_template(architecture, state, architecture.executable).to(real)
    module = nn.Sequential(*(_module(layer, state) for layer in architecture.layers))
    for layer, child in zip(architecture.layers, module, strict=True):
        for name, parameter in child.named_parameters():
            parameter.data.copy_(state[f"{layer.name}.{name}"])
    return module


def _of_template(architecture: Architecture, state: Mapping[str, Tensor], template: nn.Module) -> nn.Module:
    module = copied(template)
    missing, unexpected = unwrapped(module).load_state_dict(dict(state), strict=False)
    known = {*architecture.constants, *(alias for p in architecture.parameters for alias in p.aliases)}
    if wrong := [name for name in (*missing, *unexpected) if name not in known]:
        raise ValueError(
            f"The template is not one of this architecture: only one of them has {wrong[0]!r}. Pass a module of "
            "the class whose networks these are."
        )
    own = {name: x.detach().cpu().numpy() for name, x in unwrapped(module).state_dict().items() if name in known}
    if wrong := list(other_constants(architecture, own)):
        raise ValueError(
            f"The template has other constants in {wrong[0]!r} than these networks. Build it with the seed of their "
            "constants, or leave out template=."
        )
    return module


def copied(module: nn.Module, memo: Mapping[int, Any] | None = None) -> nn.Module:
    """Return a copy of a module with what it computed in an earlier pass, but without the history of that.

    `memo` has what is not copied, by id.

    Raises
    ------
    InvalidInputError
        If the module cannot be copied.
    """
    # torch does not copy a tensor with a history, such as a weight that is computed from others
    tensors = [value for layer in module.modules() for value in tree_leaves(vars(layer)) if isinstance(value, Tensor)]
    known = {id(tensor): tensor.detach() for tensor in tensors if not tensor.is_leaf} | dict(memo or {})
    try:
        return copy.deepcopy(module, known)
    except Exception as error:
        raise InvalidInputError(
            f"This {type(module).__name__} could not be copied ({type(error).__name__}: {error}). Keep what cannot be "
            "copied, such as locks, files and generators, out of its attributes."
        ) from error


def _module(layer: Layer, state: Mapping[str, Tensor]) -> nn.Module:
    if layer.kind == LINEAR:
        dtype = state[f"{layer.name}.weight"].dtype
        # skip_init: nn.Linear's own initialisation would draw from the global generator
        linear: nn.Module = nn.utils.skip_init(nn.Linear, layer.inputs, layer.outputs, bias=layer.bias, dtype=dtype)
        return linear
    if activation(layer.kind).learned:
        slopes = state[f"{layer.name}.weight"]
        return nn.PReLU(len(slopes), dtype=slopes.dtype)
    return activation_module(layer.kind, layer.argument)


def activation_module(kind: str, argument: float | None = None) -> nn.Module:
    """Return the module of an activation of the table, with torch's class where there is one."""
    row = activation(kind)
    if not row.module:
        return Elementwise(kind, argument)
    module: nn.Module = getattr(nn, row.module)(**({} if argument is None else {row.argument: argument}))
    return module


class Elementwise(nn.Module):
    """An activation of the table for which torch has no module of its own."""

    def __init__(self, kind: str, argument: float | None = None) -> None:
        super().__init__()
        self.kind, self.argument = kind, argument

    def forward(self, z: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape."""
        return activation(self.kind)(z, self.argument)

    def extra_repr(self) -> str:
        """Return the kind and its argument, for the module's description."""
        return self.kind if self.argument is None else f"{self.kind}, {self.argument:g}"
