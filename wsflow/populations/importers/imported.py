"""What a reader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsflow.architecture import Architecture


@dataclass(frozen=True)
class ImportedNetworks:
    """The networks of one file, which are of one run, as state dicts of tensors or arrays."""

    states: tuple[Mapping[str, Any], ...]
    architecture: Architecture | None = None  # if the format says it
    ordered: bool = True  # whether the tensors are in the order of the forward pass, if the format keeps one
    notes: dict[str, Any] = field(default_factory=dict)  # what else the file says, as JSON data
    # constants that scale inputs and outputs, of which the last is of the outputs, such as "means" and "ranges"
    normalization: dict[str, Any] | None = None
