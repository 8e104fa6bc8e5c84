"""What a reader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsflow.architecture import Architecture


@dataclass(frozen=True)
class Checkpoint:
    """What is in a file: dictionaries and lists of tensors, arrays and other things, in which networks are to be found.

    The tensors and arrays have a dtype and a shape; those with a method ``load`` still lie in the file.
    """

    tree: Any
    what: str  # the kind of file, for errors
    ordered: bool = True  # whether the tensors are in the order of the layers, if the format keeps one
    channels_last: bool = True  # whether images have their channels last, where kernels are those of Keras or flax
    architecture: Architecture | None = None  # if the format says it
    notes: Mapping[str, Any] = field(default_factory=dict)  # what else the file says, as JSON data
    # constants that scale inputs and outputs, of which the last is of the outputs, such as "means" and "ranges"
    normalization: Mapping[str, Any] | None = None
