"""Odd and even states of neurons: a metanetwork that respects permutations, signs and positive scales.

Positive scales are undone first: networks are brought to the canonical form in which the incoming weights of each
neuron have unit norm, which depends on the weights without jumps except where a neuron is dead. No number is divided by
a single weight. Signs are kept: a neuron of a wire with signs has a state that turns with it, and every neuron has one
that does not.

References
----------
Kalogeropoulos, Bouritsas and Panagakis 2024, "Scale equivariant graph metanetworks", arXiv:2406.10685; Lim et al. 2023,
"Sign and basis invariant networks for spectral graph representation learning", arXiv:2202.13013.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsflow.activations import POSITIVE
from wsflow.architecture import Architecture, DirectSum, NeuronGroup, Space
from wsflow.metanetworks.layers import ParameterScale, dropout_of, feed_forward, linear
from wsflow.metanetworks.nesting import NestedMessages, Places, nested_in
from wsflow.metanetworks.signed_blocks import Contraction, Member, SignedBlock, sign_wires, signed_blocks
from wsflow.running.rows import take
from wsflow.symmetry.canonical import canonical_action

# below it, squares of odd states do not count
EPSILON = 1e-4
# of each wire: the groups whose neurons it has, and which of its states are theirs
Residents = list[list[tuple[int, slice]]]


class ParityLayer(nn.Module):
    """Messages to even and odd states along all blocks, and feed-forward networks that keep the parity."""

    def __init__(
        self,
        dim: int,
        blocks: list[SignedBlock],
        residents: Residents,
        nested: list[tuple[int, int]],
        dropout: float,
    ) -> None:
        super().__init__()
        self.contractions: Any = nn.ModuleList(
            nn.ModuleList(Contraction(block.columns, *found, dim) for found in block.receivers() if found[1])
            for block in blocks
        )
        self.nested = nn.ModuleList(NestedMessages(dim) for _ in nested)
        self.norm = nn.LayerNorm(dim)
        self.feed = feed_forward(dim, 2 * dim)
        self.read_odd = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in residents)
        self.write_even = nn.ModuleList(nn.Linear(dim, dim) for _ in residents)
        self.gate = nn.ModuleList(nn.Linear(dim, dim) for _ in residents)
        self.dropout = dropout_of(dropout)

    def forward(
        self,
        even: list[Tensor],
        odd: list[Tensor],
        weights: list[Tensor],
        residents: Residents,
        nested: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return states (n, neurons, dim) of groups and of wires, for the weights (n, *extents, channels) of blocks."""
        u, o = [self.norm(h) for h in even], [unit(h) for h in odd]
        even, odd = list(even), list(odd)
        for w, contractions in zip(weights, self.contractions, strict=True):
            for contraction in contractions:
                receive(even, odd, contraction.receiver, self.dropout(contraction(w, u, o)))
        for (child, parent), messages in zip(nested, self.nested, strict=True):
            down, up = messages(u[child], u[parent])
            even[child], even[parent] = even[child] + down, even[parent] + up
        for wire, places in enumerate(residents):
            for group, rows in places:
                size = self.read_odd[wire](unit(odd[wire][:, rows])).abs()
                even[group] = even[group] + self.write_even[wire](size)
        even = [h + self.dropout(self.feed(h)) for h in even]
        for wire, places in enumerate(residents):
            for group, rows in places:
                factor = self.gate[wire](self.norm(even[group]))
                member = Member(wire, (), rows, True)
                receive(even, odd, member, factor * unit(odd[wire][:, rows]))
        return even, odd


def unit(h: Tensor) -> Tensor:
    """Return odd states (..., dim) of root mean square one; very small ones stay small."""
    return h * (h.square().mean(-1, keepdim=True) + EPSILON).rsqrt()


def receive(even: list[Tensor], odd: list[Tensor], receiver: Member, message: Tensor) -> None:
    """Add a message (n, neurons, dim) to the states of its receiver."""
    states = odd if receiver.is_odd else even
    before = states[receiver.number]
    start, stop, _ = receiver.rows.indices(before.shape[1])
    after = before[:, start:stop] + message
    states[receiver.number] = torch.cat([before[:, :start], after, before[:, stop:]], 1)


class ScaleEquivariantEncoder(nn.Module):
    """Encode networks as one vector for each neuron, and one for weights of no neuron, whatever its sign and scale.

    Parameters
    ----------
    dim, depth : int
        Width of the states, number of layers.
    dropout : float
        Probability for what a layer adds, in training.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.parity import ScaleEquivariantEncoder
    >>> encoder = ScaleEquivariantEncoder(Architecture.mlp([4, 3, 3, 2], "tanh"), dim=8, depth=1)
    >>> [tuple(h.shape) for h in encoder(torch.zeros(5, 35))]
    [(5, 3, 8), (5, 3, 8), (5, 1, 8)]
    """

    def __init__(self, architecture: Architecture, *, dim: int = 32, depth: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        self.scale = ParameterScale(architecture)
        wires = sign_wires(architecture)
        self.dim, self.groups = dim, architecture.groups
        self.blocks = list(signed_blocks(architecture, wires))
        self.sizes = [architecture.wire(name).space.total for name in wires]
        self.residents = [_residents(architecture.wire(name).space, self.groups) for name in wires]
        self.nested = nested_in(self.groups)
        self.read = nn.ModuleList()
        self._reads: list[tuple[Member, Tensor, bool]] = []
        free = [torch.empty(0, dtype=torch.long)]
        for block in self.blocks:
            if not (block.groups or block.wires):
                free.append(block.columns.reshape(-1))
            for receiver, senders, is_absolute in block.receivers():
                if not senders:
                    columns = block.rows_of(receiver)
                    self._reads.append((receiver, columns, is_absolute))
                    self.read.append(nn.Linear(columns.shape[1], dim, bias=not receiver.is_odd))
        self.free = torch.cat(free)
        self.read_free = linear(len(self.free), dim)
        self.group_vectors = nn.Parameter(0.5 * torch.randn(len(self.groups), dim))
        self.places = Places(self.groups, dim)
        self.layers = nn.ModuleList(
            ParityLayer(dim, self.blocks, self.residents, self.nested, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def prepare(self, x: Tensor) -> Tensor:
        """Return networks (n, d) with neurons of unit norm, where positive scales keep their functions."""
        if not any(POSITIVE in wire.scalings for wire in self.architecture.wires):
            return x
        return canonical_action(x, self.architecture, signs=False)(x)

    def fit_scale(self, x: Tensor) -> None:
        """Take the scale of each parameter from prepared networks (n, d)."""
        self.scale.fit(x)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return states (n, neurons, dim) of each group and (n, 1, dim) of the rest, of prepared networks (n, d)."""
        x = self.scale(x)
        even, odd = self._embedded(x)
        weights = [take(x, block.columns) for block in self.blocks]
        for layer in self.layers:
            even, odd = layer(even, odd, weights, self.residents, self.nested)
        rest = self.read_free(take(x, self.free)).unsqueeze(1)
        return [self.norm(h) for h in (*even, rest)]

    def _embedded(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        n = len(x)
        even = [
            (vector + self.places.of(i, group.total)).expand(n, group.total, self.dim)
            for i, (group, vector) in enumerate(zip(self.groups, self.group_vectors, strict=True))
        ]
        odd = [x.new_zeros(n, size, self.dim) for size in self.sizes]
        for (receiver, columns, is_absolute), read in zip(self._reads, self.read, strict=True):
            values = take(x, columns)
            receive(even, odd, receiver, read(values.abs() if is_absolute else values))
        return even, odd


def _residents(space: Space, groups: tuple[NeuronGroup, ...]) -> list[tuple[int, slice]]:
    """Return the neuron groups of a space by number, with their positions in it."""
    found: list[tuple[int, slice]] = []
    start = 0
    for part in space.parts if isinstance(space, DirectSum) else (space,):
        if isinstance(part, NeuronGroup):
            found.append((groups.index(part), slice(start, start + part.total)))
        start += part.total
    return found
