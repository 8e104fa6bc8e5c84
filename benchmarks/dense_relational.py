"""The relational transformer over all pairs of neurons, as published: what `wsflow` is compared with in `scale.py`.

Every neuron, input and output is a node, every ordered pair of nodes has a state, and all nodes attend to all others
(Diao and Loynd 2023, "Relational attention", arXiv:2210.05062, equations 3 to 12; Erdogan 2025 for weights). It is
written from these equations, and used nowhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DenseLayer(nn.Module):
    """Attention of all nodes over all pairs, then pairs follow their two nodes and the pair the other way round."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.node, self.pair = nn.Linear(dim, 3 * dim), nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.joined, self.follow = nn.Linear(4 * dim, dim), nn.Linear(dim, dim)
        self.feed_pair = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))

    def forward(self, nodes: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Return nodes (n, nodes, dim) and pairs (n, receivers, senders, dim)."""
        q, k, v = self.node(nodes).chunk(3, -1)
        q_pair, k_pair, v_pair = self.pair(pairs).chunk(3, -1)
        query, key, value = (
            x.unflatten(-1, (self.heads, -1))
            for x in (q.unsqueeze(2) + q_pair, k.unsqueeze(1) + k_pair, v.unsqueeze(1) + v_pair)
        )
        shares = ((query * key).sum(-1) / key.shape[-1] ** 0.5).softmax(2)
        nodes = self.norms[0](nodes + self.out((shares.unsqueeze(-1) * value).sum(2).flatten(2)))
        nodes = self.norms[1](nodes + self.feed(nodes))
        ends = (nodes.unsqueeze(2).expand_as(pairs), nodes.unsqueeze(1).expand_as(pairs))
        joined = torch.cat([*ends, pairs, pairs.transpose(1, 2)], -1)
        pairs = self.norms[2](pairs + self.follow(F.relu(self.joined(joined))))
        return nodes, self.norms[3](pairs + self.feed_pair(pairs))


class DenseRelational(nn.Module):
    """A velocity of perceptrons: a weight is the state of the pair of its neurons, a bias that of its neuron."""

    def __init__(self, widths: list[int], dim: int, depth: int, heads: int = 4) -> None:
        super().__init__()
        self.widths = widths
        self.names = nn.Parameter(0.5 * torch.randn(sum(widths), dim))
        self.read_pair, self.read_node, self.time = nn.Linear(1, dim), nn.Linear(1, dim), nn.Linear(1, dim)
        self.layers = nn.ModuleList(DenseLayer(dim, heads) for _ in range(depth))
        self.write_pair, self.write_node = nn.Linear(dim, 1), nn.Linear(dim, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return velocities (n, d) at weights (n, d), of layers one after the other, and times (n,)."""
        n, total = len(x), sum(self.widths)
        starts = torch.tensor([0, *self.widths]).cumsum(0).tolist()
        matrices, biases = x.new_zeros(n, total, total), x.new_zeros(n, total)
        place = 0
        for layer, (inputs, outputs) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            rows, columns = slice(starts[layer + 1], starts[layer + 2]), slice(starts[layer], starts[layer + 1])
            matrices[:, rows, columns] = x[:, place : place + inputs * outputs].unflatten(1, (outputs, inputs))
            place += inputs * outputs
            biases[:, rows] = x[:, place : place + outputs]
            place += outputs
        nodes = self.names + self.read_node(biases.unsqueeze(-1)) + self.time(t[:, None]).unsqueeze(1)
        pairs = self.read_pair(matrices.unsqueeze(-1))
        for layer_ in self.layers:
            nodes, pairs = layer_(nodes, pairs)
        found_pairs, found_nodes = self.write_pair(pairs).squeeze(-1), self.write_node(nodes).squeeze(-1)
        parts = []
        for layer in range(len(self.widths) - 1):
            rows, columns = slice(starts[layer + 1], starts[layer + 2]), slice(starts[layer], starts[layer + 1])
            parts += [found_pairs[:, rows, columns].flatten(1), found_nodes[:, rows]]
        return torch.cat(parts, 1)
