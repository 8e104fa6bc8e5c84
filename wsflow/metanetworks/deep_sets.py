"""Sets of neurons: each is read by itself, and none hears of another.

References
----------
Zaheer, Kottur, Ravanbakhsh, Poczos, Salakhutdinov and Smola 2017, "Deep sets", arXiv:1703.06114.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.metanetworks.layers import ParameterScale, dropout_of, feed_forward, linear
from wsflow.metanetworks.nesting import Places
from wsflow.metanetworks.signed_blocks import Member, SignedBlock
from wsflow.metanetworks.tokens import NeuronTokens
from wsflow.running.rows import take

# channels of a weight between neurons, of which there are many
EDGE_DIM = 8


class SetOfWeights(nn.Module):
    """What each neuron has of the weights between it and others: the mean of a function of single weights."""

    def __init__(self, block: SignedBlock, dim: int) -> None:
        super().__init__()
        self.phi = nn.Linear(block.columns.shape[-1], EDGE_DIM)
        self.to_member = nn.ModuleList(nn.Linear(EDGE_DIM, dim) for _ in block.groups)

    def forward(self, block: SignedBlock, w: Tensor) -> list[Tensor]:
        """Return features (n, neurons, dim) of the neurons of each group, for weights w (n, *extents, channels)."""
        values = nn.functional.gelu(self.phi(w))
        return [to(self._mean(values, m.axes)) for to, m in zip(self.to_member, block.groups, strict=True)]

    @staticmethod
    def _mean(values: Tensor, line: tuple[int, ...]) -> Tensor:
        axes = [1 + axis for axis in line]
        others = [axis for axis in range(1, values.dim() - 1) if axis not in axes]
        return values.permute(0, *axes, *others, values.dim() - 1).flatten(len(axes) + 1, -2).mean(-2).flatten(1, -2)


class DeepSetsEncoder(nn.Module):
    """Encode networks as one vector for each neuron, from its own weights alone, and one for weights of no neuron.

    Parameters
    ----------
    dim, depth : int
        Width of the tokens, number of layers that each token passes.
    dropout : float
        Probability for what a layer adds, in training.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.metanetworks.deep_sets import DeepSetsEncoder
    >>> encoder = DeepSetsEncoder(Architecture.mlp([4, 3, 3, 2]), dim=8, depth=1)
    >>> [tuple(h.shape) for h in encoder(torch.zeros(5, 35))]
    [(5, 3, 8), (5, 3, 8), (5, 1, 8)]
    """

    def __init__(self, architecture: Architecture, *, dim: int = 64, depth: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = ParameterScale(architecture)
        self.tokens = tokens = NeuronTokens(architecture)
        self.blocks = [
            SignedBlock((Member(e.target, (0,)), Member(e.source, (1,))), (), e.columns) for e in tokens.edges
        ]
        self.blocks += tokens.tensors
        self.read = nn.ModuleList(linear(f.shape[1], dim) for f in tokens.features)
        self.read_free = linear(len(tokens.free), dim)
        self.sets = nn.ModuleList(SetOfWeights(block, dim) for block in self.blocks)
        self.group_vectors = nn.Parameter(0.5 * torch.randn(len(tokens.groups), dim))
        self.places = Places(tokens.groups, dim)
        self.layers = nn.ModuleList(feed_forward(dim, 2 * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.dropout = dropout_of(dropout)

    def fit_scale(self, x: Tensor) -> None:
        """Take the scale of each parameter from networks (n, d)."""
        self.scale.fit(x)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return states (n, neurons, dim) of each group and (n, 1, dim) of the rest, of networks (n, d)."""
        x = self.scale(x)
        states = []
        for i, (read, columns) in enumerate(zip(self.read, self.tokens.features, strict=True)):
            states.append(read(take(x, columns)) + self.group_vectors[i] + self.places.of(i, len(columns)))
        for block, of_weights in zip(self.blocks, self.sets, strict=True):
            for member, feature in zip(block.groups, of_weights(block, take(x, block.columns)), strict=True):
                states[member.number] = states[member.number] + feature
        states.append(self.read_free(take(x, self.tokens.free)).unsqueeze(1))
        for layer in self.layers:
            states = [h + self.dropout(layer(h)) for h in states]
        return [self.norm(h) for h in states]
