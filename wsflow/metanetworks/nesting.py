"""Messages between neurons and the neurons they are nested in, such as channels and their head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wsflow.architecture import Fixed, NeuronGroup


def nested_in(groups: Sequence[NeuronGroup]) -> list[tuple[int, int]]:
    """Return the numbers of each group that is nested in another, and of that one."""
    return [(i, groups.index(g.parent)) for i, g in enumerate(groups) if isinstance(g.parent, NeuronGroup)]


class NestedMessages(nn.Module):
    """What neurons receive from their parent, and parents from the mean of their neurons."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, dim, bias=False)
        self.up = nn.Linear(dim, dim, bias=False)

    def forward(self, children: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Return messages to children (n, parents * size, dim) and to parents (n, parents, dim)."""
        size = children.shape[1] // parents.shape[1]
        mean = children.unflatten(1, (parents.shape[1], size)).mean(2)
        return self.down(parents).repeat_interleave(size, 1), self.up(mean)


def place_of(group: NeuronGroup) -> Fixed | None:
    """Return the fixed coordinates in which a group is nested, such as heads that keep their places."""
    return place_of(group.parent) if isinstance(group.parent, NeuronGroup) else group.parent


class Places(nn.Module):
    """A learned vector for each of the fixed coordinates in which groups are nested: nothing permutes them."""

    def __init__(self, groups: Sequence[NeuronGroup], dim: int) -> None:
        super().__init__()
        self._places = [place_of(group) for group in groups]
        sizes = [place.total for place in self._places if place is not None]
        self.vectors = nn.ParameterList(nn.Parameter(0.5 * torch.randn(size, dim)) for size in sizes)

    def of(self, group: int, n_neurons: int) -> Tensor | float:
        """Return the vectors (neurons, dim) of the neurons of a group; zero where it is not nested in such."""
        if self._places[group] is None:
            return 0.0
        vectors = self.vectors[sum(place is not None for place in self._places[:group])]
        return vectors.repeat_interleave(n_neurons // len(vectors), 0)
