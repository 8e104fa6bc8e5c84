"""Layers one after the other under names of their own, as a torch module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Chain(nn.Module):
    """Layers one after the other; unlike in an ``nn.Sequential`` their names may have dots.

    Parameters
    ----------
    steps : sequence of (str, Module)
        Names and layers, in the order of the forward pass.

    Examples
    --------
    >>> from torch import nn
    >>> from wsflow.populations.importers.chain import Chain
    >>> list(Chain([("body.fc", nn.Linear(2, 2, bias=False)), ("act", nn.ReLU())]).state_dict())
    ['body.fc.weight']
    """

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
        """The output of the last layer."""
        for name in self._order:
            x = self.get_submodule(name)(x)
        return x
