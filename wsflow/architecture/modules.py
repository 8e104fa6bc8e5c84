"""The layers of an nn.Sequential of Linear and activation layers, and whether modules are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsflow.activations import ACTIVATIONS, activation
from wsflow.architecture.sequential import LINEAR, Layer, check_layers
from wsflow.exceptions import InvalidInputError

_KINDS = {row.module: kind for kind, row in ACTIVATIONS.items()}


def layers_of_module(module: Any) -> tuple[Layer, ...]:
    """Return the layers of an nn.Sequential (nested ones too), or refuse by name a layer of another kind."""
    layers = tuple(_flattened(module, ""))
    # layers that share parameters or have hooks have another architecture
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    unique = [name for name, _ in module.named_parameters()]
    hooked = [n for n, child in module.named_modules() if child._forward_hooks or child._forward_pre_hooks]
    if len(names) != len(unique) or hooked:
        what = f"has a hook at {hooked[0]!r}" if hooked else f"uses {sorted({*names} - {*unique})[0]!r} more than once"
        raise ValueError(
            f"This Sequential {what}: without an example input, Architecture.from_module reads layers that stand for "
            "themselves. Pass example_input= to read any module."
        )
    return layers


def is_sequential(module: Any) -> bool:
    """Return whether a module is an nn.Sequential (nested ones too) of Linear and activation layers."""
    try:
        check_layers(layers_of_module(module))
    except (ValueError, AttributeError):
        return False
    return True


def check_alike(modules: Sequence[Any]) -> None:
    """Refuse modules that differ in what state dicts do not show: activations, strides and the like."""
    plain = is_sequential(modules[0])
    first = _kinds(modules[0], plain)
    for index, module in enumerate(modules):
        other = _kinds(module, plain)
        if other != first:
            here, there = (first, other) if plain else (_beyond(first, other), _beyond(other, first))
            raise InvalidInputError(
                f"These networks do not have one architecture: network 0 is {', '.join(here)}, but network {index} is "
                f"{', '.join(there)}. Pass networks of one architecture."
            )


def _kinds(module: Any, plain: bool) -> list[str]:
    """Return what each layer is, with its settings but the rate of dropout, which does nothing in evaluation."""
    if plain:
        return [f"{k.kind}({k.argument})" if k.argument is not None else k.kind for k in layers_of_module(module)]
    leaves = ((name, child, type(child).__name__) for name, child in module.named_modules() if not [*child.children()])
    settings = ((name, kind, "" if "Dropout" in kind else child.extra_repr()) for name, child, kind in leaves)
    return [f"{name or 'the module'} {kind}({text.replace('inplace=True', '')})" for name, kind, text in settings]


def _beyond(these: Sequence[str], those: Sequence[str]) -> list[str]:
    return [kind for kind in these if kind not in those] or ["one without these layers"]


def _flattened(module: Any, prefix: str) -> list[Layer]:
    if type(module).__name__ == "Sequential":
        return [layer for name, child in module._modules.items() for layer in _flattened(child, f"{prefix}{name}.")]
    return [_layer(module, prefix.rstrip("."))]


def _layer(module: Any, name: str) -> Layer:
    # a class of one's own that has the name of one of torch may do something else
    own = type(module).__module__.startswith(("torch.nn.modules.", "wsflow."))
    kind = type(module).__name__ if own else f"{type(module).__name__} of {type(module).__module__}"
    if kind == "Linear" and name:
        return Layer(LINEAR, name, module.in_features, module.out_features, module.bias is not None)
    if kind not in _KINDS:
        raise ValueError(
            f"The layer {name or 'of the module'!r} is a {kind}: without an example input, Architecture.from_module "
            "reads an nn.Sequential of Linear and activation layers. Pass example_input= to read any module, or "
            "describe the network by hand with Architecture(parameters=..., wires=...)."
        )
    slopes = module.weight.numel() if activation(_KINDS[kind]).learned else 0
    return Layer(_KINDS[kind], name, outputs=slopes if slopes > 1 else 0, argument=_argument(_KINDS[kind], module))


def _argument(kind: str, module: Any) -> float | None:
    if kind == "softplus" and (module.beta, module.threshold) != (1, 20):
        raise ValueError(
            "A Softplus layer with its own beta or threshold is not in wsflow's table: use torch's defaults."
        )
    if kind == "gelu" and module.approximate != "none":
        raise ValueError("A GELU layer with an approximation is not in wsflow's table: use approximate='none'.")
    row = activation(kind)
    if not row.argument:
        return None
    value = float(getattr(module, row.argument))
    return None if value == row.default else value
