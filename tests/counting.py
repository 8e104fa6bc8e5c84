"""What is counted in networks that are traced: groups, scalings and signs, as theory has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from wsflow import Architecture


@dataclass(frozen=True)
class Counts:
    """Groups as (size, size of the parent or 0) by number, and numbers of wires with positive scalings and signs."""

    groups: dict[tuple[int, int], int]
    positive: int = 0
    signs: int = 0


def counted(module: nn.Module, inputs: Any) -> Counts:
    """Return the counts of a module's symmetries: random elements keep the function, and orbits are points."""
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    architecture = Architecture.from_module(module, inputs)
    drawn = tuple(torch.randn_like(x) if x.is_floating_point() else x for x in inputs)
    assert architecture.certify(module, drawn) < 1e-10
    assert architecture.approximations() == ()
    kinds = [wire.scalings for wire in architecture.wires]
    sizes = Counter((group.size, group.parent.size if group.parent else 0) for group in architecture.groups)
    signs = sum(bool(kind & {"sign", "flip", "phase"}) for kind in kinds)
    return Counts(dict(sizes), sum("positive" in kind for kind in kinds), signs)


def members(table: Iterable[str], *quick: str) -> list[Any]:
    """Return the names of a table as parameters of a test, of which the quick run has some."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in table]


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))
