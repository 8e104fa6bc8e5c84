"""What is read of an ONNX graph: modules that follow one another, and the tensors of their state dict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn


@dataclass
class Graph:
    """What has been read of a graph: a sequence of modules, and their tensors under the names of a state dict."""

    constants: dict[str, np.ndarray]  # initialisers, and what is computed from them
    current: str  # the output of the last module
    steps: list[tuple[str, Any]] = field(default_factory=list)
    state: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of tensors that have another name in the file
    notes: dict[str, Any] = field(default_factory=dict)

    def constant(self, node: Any, position: int) -> np.ndarray | None:
        """Return the constant input of a node at a position, or None if there is none."""
        name = node.input[position] if position < len(node.input) else ""
        if name and name not in self.constants:
            raise ValueError(f"its input {name!r} is no constant")
        return self.constants[name] if name else None

    def add(self, name: str, module: Any, **tensors: tuple[str, np.ndarray | None]) -> None:
        """Append a layer; its tensors are given by their names in the file and their arrays (or None)."""
        self.steps.append((name, module))
        for kind, (original, array) in tensors.items():
            if array is not None:
                self.state[f"{name}.{kind}"] = array
                if original != f"{name}.{kind}":
                    self.names[f"{name}.{kind}"] = original

    def fresh(self, *originals: str) -> str:
        """Name the next layer by what precedes ``.weight`` or ``.bias`` in the file, or else by its position."""
        stems = [name.rpartition(".")[0] for name in originals if name.endswith((".weight", ".bias"))]
        name = stems[0] if stems else str(len(self.steps))
        if any(
            name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.") for other, _ in self.steps
        ):
            raise ValueError(f"the tensors of {name!r} are used more than once")
        return name

    @property
    def flattened(self) -> bool:
        """Whether images were flattened to features."""
        return any(type(module).__name__ == "Flatten" for _, module in self.steps)


class NamedSequential(nn.Module):
    """Layers in the order of the forward pass; unlike in an ``nn.Sequential`` their names may have dots."""

    def __init__(self, steps: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self._order = [name for name, _ in steps]
        for name, layer in steps:
            parent: nn.Module = self
            *path, leaf = name.split(".")
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(leaf, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last layer."""
        for name in self._order:
            x = self.get_submodule(name)(x)
        return x
