"""Modules as people have them: wrapped, reparametrized, recurrent, routed, with objects as outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def mlp(activation: Callable[[], nn.Module] = nn.ReLU, wrap: Callable[[nn.Module], nn.Module] = lambda x: x) -> Any:
    """4 - 5 - 6 - 2, with the first two layers wrapped."""
    first, second = wrap(nn.Linear(4, 5)), wrap(nn.Linear(5, 6))
    return nn.Sequential(first, activation(), second, activation(), nn.Linear(6, 2))


def cnn(wrap: Callable[[nn.Module], nn.Module]) -> Any:
    """Two convolutions, wrapped, and a linear layer."""
    first, second = wrap(nn.Conv2d(1, 4, 3)), wrap(nn.Conv2d(4, 5, 3))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(80, 2))


def pruned(*methods: Callable[[nn.Module], Any]) -> nn.Module:
    """An MLP whose second layer is pruned, by one method after the other."""
    network = mlp()
    for method in methods:
        method(network[2])
    return network


class Halved(nn.Module):
    """A parametrization as users write them."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def parametrized(layer: nn.Module) -> nn.Module:
    """A layer whose weight is a function of one's own."""
    return parametrize.register_parametrization(layer, "weight", Halved())


class Steps(nn.Module):
    """A recurrent cell, called step by step."""

    def __init__(self, cell: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.cell, self.head = cell(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Packs(nn.Module):
    """A recurrent layer on sequences of several lengths."""

    def __init__(self, kind: Any, sort: bool = True, **keywords: Any) -> None:
        super().__init__()
        self.rnn = kind(4, 5, batch_first=True, **keywords)
        self.head, self.sort = nn.Linear(5 * (2 if self.rnn.bidirectional else 1), 2), sort

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=self.sort)
        return self.head(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


class TakesPacked(nn.Module):
    """A network whose input is packed already, and whose head sees the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 5), nn.Linear(5, 2)

    def forward(self, packed: PackedSequence) -> Tensor:
        return self.head(self.rnn(packed)[1][0][-1])


class Experts(nn.Module):
    """The two best of three experts, in a way of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(4, 3), nn.Linear(4, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        best, chosen = self.gate(x).topk(2, -1)
        return self.head(self.mixed(x, best.softmax(-1), chosen))

    def mixed(self, x: Tensor, best: Tensor, chosen: Tensor) -> Tensor:
        raise NotImplementedError


class GatheredExperts(Experts):
    def mixed(self, x: Tensor, best: Tensor, chosen: Tensor) -> Tensor:
        every = torch.stack([expert(x) for expert in self.experts], 1)
        return (every.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 4)) * best.unsqueeze(-1)).sum(1)


class ScatteredGates(Experts):
    def mixed(self, x: Tensor, best: Tensor, chosen: Tensor) -> Tensor:
        gates = torch.zeros(len(x), 3).scatter(1, chosen, best)
        return torch.stack([gates[:, i, None] * expert(x) for i, expert in enumerate(self.experts)]).sum(0)


class MaskedExperts(Experts):
    def mixed(self, x: Tensor, best: Tensor, chosen: Tensor) -> Tensor:
        return sum(expert(x) * (best * (chosen == i)).sum(-1, keepdim=True) for i, expert in enumerate(self.experts))


class OneHotExperts(Experts):
    def mixed(self, x: Tensor, best: Tensor, chosen: Tensor) -> Tensor:
        every = torch.stack([expert(x) for expert in self.experts], 1)
        return torch.einsum("bk,bke,bed->bd", best, F.one_hot(chosen, 3).to(x.dtype), every)


class Bag(nn.Module):
    """The sum, mean or maximum of embeddings, with or without offsets and weights."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(7, 5, mode=mode)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(5, 2))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(self.bag(*inputs))


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.both, self.head = nn.Linear(4, 5), nn.Linear(4, 6), nn.Bilinear(5, 6, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.both(self.a(x).relu(), self.b(x).tanh()).relu())


class RadialBasis(nn.Module):
    """Distances of features to learned centres."""

    def __init__(self, p: float = 2.0) -> None:
        super().__init__()
        self.a, self.centres, self.head, self.p = nn.Linear(4, 5), nn.Parameter(torch.randn(6, 5)), nn.Linear(6, 2), p

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.exp(-torch.cdist(self.a(x), self.centres, self.p)))


class Folded(nn.Module):
    """A decoder that puts patches of 6 channels together."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride, places = stride, ((8 - 2) // stride + 1) ** 2
        self.patches, self.head, self.places = nn.Linear(4, 6 * 4 * places), nn.Conv2d(6, 2, 1), places

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).unflatten(1, (6 * 4, self.places))
        return self.head(F.fold(patches, (8, 8), 2, stride=self.stride).relu())


class ScaledPatches(nn.Module):
    """Six copies of an image, each with a gain, cut into patches and put together again."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift, self.head = (
            nn.Parameter(torch.randn(6, 1)),
            nn.Parameter(torch.randn(6, 1)),
            nn.Conv2d(6, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 2, stride=2).unsqueeze(1)
        copies = (patches * self.gain.unsqueeze(-1) + self.shift.unsqueeze(-1)).relu()
        return self.head(F.fold(copies.flatten(1, 2), x.shape[-2:], 2, stride=2))


class Noisy(nn.Module):
    """An MLP that draws random numbers in evaluation mode as well."""

    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.noise = nn.Linear(4, 5), nn.Linear(5, 2), noise

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.noise(self.a(x).relu()))


class FrozenNorm(nn.Module):
    """torchvision's frozen batch norm, under the names that are given."""

    def __init__(self, size: int, names: tuple[str, str, str, str]) -> None:
        super().__init__()
        self.names = names
        for name, value in zip(
            names, (torch.rand(size), torch.randn(size), torch.randn(size), torch.ones(size)), strict=True
        ):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        gain, shift, mean, var = (getattr(self, name).reshape(1, -1, 1, 1) for name in self.names)
        scale = gain * (var + 1e-5).rsqrt()
        return x * scale + (shift - mean * scale)


class FunctionalNorm(FrozenNorm):
    def forward(self, x: Tensor) -> Tensor:
        gain, shift, mean, var = (getattr(self, name) for name in self.names)
        return F.batch_norm(x, mean, var, gain, shift)


class HandwrittenNorm(nn.Module):
    """A batch norm with learned gains and statistics in buffers, written down."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("moving_mean", torch.zeros(1, size, 1, 1))
        self.register_buffer("moving_std", torch.ones(1, size, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.moving_mean) / (self.moving_std + 1e-3) * self.gain[:, None, None] + self.shift[:, None, None]


def normed(norm: Callable[[int], nn.Module]) -> nn.Module:
    """Convolution, norm, ReLU, and a linear layer."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), norm(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


class Constants(nn.Module):
    """An MLP with constants in single precision that are no buffers, and others made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.mean = nn.Linear(4, 5), nn.Linear(5, 2), torch.full((4,), 0.3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a((x - self.mean) @ torch.eye(4)).relu()
        return self.b(hidden) * torch.tensor([0.5, 2.0]) + torch.zeros(2, dtype=torch.float32)


class Attends(nn.Module):
    """A causal language model of one block, whose output is what `returned` makes of logits and cache."""

    def __init__(self, returned: Callable[[Tensor, Any], Any]) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Embedding(11, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 10), nn.Linear(10, 8), nn.Linear(8, 11)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.returned = returned

    def forward(self, tokens: Tensor) -> Any:
        x = self.embed(tokens)
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in self.qkv(self.norms[0](x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return self.returned(self.head(self.norms[2](x)), Cache(k, v))


class Cache:
    """Keys and values for further tokens, of a class that torch does not know."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.layers = [(key, value)]


@dataclass
class ModelOutput:
    loss: Any
    logits: Tensor
    past_key_values: Any = field(default=None)


class Answer(NamedTuple):
    y: Tensor
    cache: Any


class Plain:
    def __init__(self, prediction: Tensor, cache: Any) -> None:
        self.prediction, self.cache = prediction, cache


class TwoHeads(nn.Module):
    """A policy and a value of one trunk; or what is made of them."""

    def __init__(self, returned: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.trunk, self.policy, self.value, self.returned = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 1), returned

    def forward(self, x: Tensor) -> Any:
        hidden = self.trunk(x).relu()
        return self.returned(self.policy(hidden), self.value(hidden), hidden)


class Hidden(nn.Module):
    """An MLP whose first layer a state dict does not have: a callable finds it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.head = nn.Linear(5, 2)
        vars(self).update(attributes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).relu())


class InList(Hidden):
    def first(self, x: Tensor) -> Tensor:
        return self.layers[0](x)


class InMapping(Hidden):
    def first(self, x: Tensor) -> Tensor:
        return self.parts["first"][0](x)


class InTensor(Hidden):
    def first(self, x: Tensor) -> Tensor:
        return x @ self.matrix


def in_closure() -> nn.Module:
    """A class whose method has a layer in its closure."""
    layer = nn.Linear(4, 5)

    class InClosure(Hidden):
        def first(self, x: Tensor) -> Tensor:
            return layer(x)

    return InClosure()


EMBEDDER = nn.Linear(4, 5)


class InGlobals(Hidden):
    def first(self, x: Tensor) -> Tensor:
        return EMBEDDER(x)


class Between(nn.Module):
    """Two layers, and any function between them."""

    def __init__(self, function: Callable[[Tensor], Any], last: bool = True) -> None:
        super().__init__()
        self.a, self.function = nn.Linear(4, 5), function
        if last:
            self.b = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Any:
        hidden = self.function(self.a(x))
        return self.b(hidden) if hasattr(self, "b") else hidden


class Spectrum(nn.Module):
    """An operation whose symmetries are not known, behind a layer or not."""

    def __init__(self, inputs: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 5) if inputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(self.layer(x)).real
