"""The operations of a program that are torch's layers: linear, convolutions, batch norms with their own parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsflow.architecture.program import Operation, ParameterValue

# the operands behind a layer's input, which are parameters of the layer itself
_OWN = ("weight", "bias", "running_mean", "running_var")
_CONVOLUTIONS = {f"conv{n}d": getattr(nn, f"Conv{n}d") for n in (1, 2, 3)}
_TRANSPOSED = {f"conv_transpose{n}d": getattr(nn, f"ConvTranspose{n}d") for n in (1, 2, 3)}
_SETTINGS = ("stride", "padding", "dilation", "groups")
_TRANSPOSED_SETTINGS = ("stride", "padding", "output_padding", "groups", "dilation")


class Layer(nn.Module):
    """A layer of no type of its own: it passes on what its operations put out, so that hooks see it."""

    def forward(self, output: Any) -> Any:
        """Return the output of the layer's last operation."""
        return output


class BatchNorm(_BatchNorm):
    """A batch norm over inputs with any number of dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def torch_layer(operation: Operation, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module | None:
    """Return torch's layer that computes an operation from its first operand, without weights, or None.

    `shapes` has those of all parameters by name.
    """
    count = len(_OWN) if operation.base == "batch_norm" else 2
    own, settings = operation.arguments[1 : 1 + count], operation.arguments[1 + count :]
    for kind, operand in zip(_OWN, own, strict=False):
        if operand is not None and operand != ParameterValue(f"{operation.layer}.{kind}"):
            return None
    if not operation.layer or not any(own):
        return None
    with torch.device("meta"):
        if operation.base == "batch_norm":
            return _batch_norm(own, shapes[f"{operation.layer}.running_mean"][0], settings) if own[2] else None
        return (
            _built(operation.base, shapes[f"{operation.layer}.weight"], len(own) > 1 and own[1] is not None, settings)
            if own[0]
            else None
        )


def _batch_norm(own: tuple[Any, ...], size: int, settings: tuple[Any, ...]) -> nn.Module | None:
    follows, momentum, eps = settings[:3]
    if (own[0] is None) != (own[1] is None) or not follows:
        return None
    return BatchNorm(size, eps=eps, momentum=momentum, affine=own[0] is not None)


def _built(base: str, shape: tuple[int, ...], bias: bool, settings: tuple[Any, ...]) -> nn.Module | None:
    if base == "linear":
        return nn.Linear(shape[1], shape[0], bias=bias)
    if base in _CONVOLUTIONS:
        chosen = dict(zip(_SETTINGS, settings, strict=False))
        return _CONVOLUTIONS[base](shape[1] * chosen.get("groups", 1), shape[0], shape[2:], bias=bias, **chosen)
    if base in _TRANSPOSED:
        chosen = dict(zip(_TRANSPOSED_SETTINGS, settings, strict=False))
        return _TRANSPOSED[base](shape[0], shape[1] * chosen.get("groups", 1), shape[2:], bias=bias, **chosen)
    return None


def same_layer(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two layers have the same type and settings."""
    return type(one) is type(other) and one.extra_repr() == other.extra_repr()
