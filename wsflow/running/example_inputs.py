"""Inputs that networks of an architecture take, where it says so itself."""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.architecture import Architecture


def example_inputs(
    architecture: Architecture, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...] | None:
    """Draw inputs: standard normal ones, zeros and ones where integers are taken, and True for truth values.

    Sequential networks get n examples, those with a program as many as it was read with; there are none for networks
    that only a module runs.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.running.example_inputs import example_inputs
    >>> [x.shape for x in example_inputs(Architecture.mlp([4, 3, 2]), 16, torch.Generator())]
    [torch.Size([16, 4])]
    """
    if architecture.layers:
        return (torch.randn(n, architecture.layers[0].inputs, generator=generator, dtype=dtype),)
    if architecture.program is None:
        return None
    return tuple(_drawn(x.shape, x.dtype, generator, dtype) for x in architecture.program.inputs)


def _drawn(shape: tuple[int, ...], kind: str, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    own = dtype if kind == "weights" else getattr(torch, kind)
    if own == torch.bool:
        return torch.ones(shape, dtype=own)
    if own.is_floating_point or own.is_complex:
        return torch.randn(shape, generator=generator, dtype=own)
    return torch.randint(2, shape, generator=generator, dtype=own)
