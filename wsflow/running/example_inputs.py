"""Inputs that networks of an architecture take, where it says so itself."""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.architecture.program import Input
from wsflow.running.sequential import program_of


def declared_input(architecture: Architecture) -> Input | None:
    """Return the first input that networks declare, with its type and shape; None where only a module runs them."""
    program = program_of(architecture)
    return None if program is None else next(iter(program.inputs), None)


def example_inputs(
    architecture: Architecture, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...] | None:
    """Draw inputs: standard normal ones, zeros and ones where integers are taken, and True for truth values.

    Sequential networks get n examples, those with a program as many as it was read with; there are none for networks
    that only a module runs.
    """
    program = program_of(architecture)
    if program is None:
        return None
    count = (n,) if architecture.layers else ()
    return tuple(_drawn((*count, *x.shape[len(count) :]), x.dtype, generator, dtype) for x in program.inputs)


def _drawn(shape: tuple[int, ...], kind: str, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    own = dtype if kind == "weights" else getattr(torch, kind)
    if own == torch.bool:
        return torch.ones(shape, dtype=own)
    if own.is_floating_point or own.is_complex:
        return torch.randn(shape, generator=generator, dtype=own)
    return torch.randint(2, shape, generator=generator, dtype=own)
