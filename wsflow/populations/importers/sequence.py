"""A torch module of layers that follow one another, under any names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


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
