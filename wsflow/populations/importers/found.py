"""What a reader finds in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsflow.architecture import Architecture


@dataclass(frozen=True)
class Found:
    """The networks of one file, which are of one run.

    Parameters
    ----------
    states : tuple of mapping from str to tensor or array
        A state dict for each network.
    architecture : Architecture, optional
        Where the format says it.
    ordered : bool
        Whether the tensors are in the order of the forward pass, as far as the format keeps one.
    notes : dict
        What else the file says, as JSON data.
    normalization : dict, optional
        Constants by which inputs and outputs are scaled: ``means`` and ``ranges`` of the inputs, then of the outputs.
    """

    states: tuple[Mapping[str, Any], ...]
    architecture: Architecture | None = None
    ordered: bool = True
    notes: dict[str, Any] = field(default_factory=dict)
    normalization: dict[str, Any] | None = None
