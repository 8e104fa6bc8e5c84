"""Every family of networks that the tests read by tracing, by name: how to build one, and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import test_tracing_binding as binding
import torch
import zoo
import zoo_joint
from test_tracing import IMAGES, THEORY
from torch import nn

from wsflow import Architecture

FEATURES, SEQUENCES = torch.zeros(4, 3), torch.zeros(2, 4, 3)


def depthwise_sigmoid() -> nn.Module:
    """A depthwise kernel behind sigmoids, which have no flip there."""
    layers = [nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(64, 2)]
    return nn.Sequential(*layers)


def repeated_channels() -> nn.Module:
    """Three copies of each channel, with kernels of their own."""
    copies = zoo.Concat(zoo.Concat(nn.BatchNorm2d(5)))
    return nn.Sequential(nn.Conv2d(3, 5, 3), copies, nn.Conv2d(15, 30, 1, groups=15), nn.Flatten()).append(
        nn.Linear(30 * 36, 2)
    )


def generator() -> nn.Module:
    """A linear layer that is viewed as an image."""
    layers = [nn.Linear(3, 5 * 16), nn.Unflatten(1, (5, 4, 4)), nn.Conv2d(5, 4, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(4, 1, 1))


def recurrent(kind: str) -> nn.Module:
    """A recurrent layer of torch, read at its last step."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = getattr(nn, kind)(3, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.cell(x)[0][-1])

    return Recurrent()


EVEN: dict[str, Callable[[Any], Any]] = {
    "abs": torch.abs,
    "square": torch.square,
    "cosine": torch.cos,
    "abs of tanh": lambda z: torch.tanh(z).abs(),
    "fourth power": lambda z: z**4,
    "Gaussian": lambda z: torch.exp(-z * z),
}

# a builder of a module, and an example input
FAMILIES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    **{name: (theory.module, theory.inputs) for name, theory in THEORY.items()},
    # less deep ones have the same kinds of blocks
    "ResNet-20": (lambda: zoo.ResNet20(1, 4), IMAGES),
    "ResNet-18": (lambda: zoo.ResNet18(2), torch.zeros(2, 3, 32, 32)),
    "shuffled": (zoo.Shuffled, IMAGES),
    "attention with weights": (binding.WithWeights, torch.zeros(2, 4, 5)),
    "tied sequence": (binding.tied, torch.zeros(3, 4)),
    "constants": (binding.Centred, FEATURES),
    "neighbours": (binding.Neighbours, (FEATURES, torch.eye(4) + torch.eye(4).roll(1, 0))),
    "depthwise sigmoid": (depthwise_sigmoid, IMAGES),
    "repeated channels": (repeated_channels, IMAGES),
    "generator": (generator, FEATURES),
    "RNN": (lambda: recurrent("RNN"), torch.zeros(3, 2, 3)),
    "LSTM": (lambda: recurrent("LSTM"), torch.zeros(3, 2, 3)),
    **{f"even {name}": (lambda f=f: zoo_joint.Even(f), FEATURES) for name, f in EVEN.items()},
    # a scale to the power of one half, behind its sign
    "signed root": (lambda: zoo_joint.Even(lambda z: z.sign() * z.abs().sqrt()), FEATURES),
    "even abs without bias": (lambda: zoo_joint.Even(torch.abs, bias=False), FEATURES),
    "position table": (zoo_joint.PositionTable, SEQUENCES),
    "relative table": (zoo_joint.RelativeTable, SEQUENCES),
    "slopes": (zoo_joint.Slopes, SEQUENCES),
    "talking heads": (zoo_joint.TalkingHeads, SEQUENCES),
    "gains of heads": (zoo_joint.HeadGains, SEQUENCES),
    "flat gains of heads": (zoo_joint.FlatGains, SEQUENCES),
    "gains behind shared norms": (zoo_joint.SharedNorms, SEQUENCES),
    "stacked ensemble": (zoo_joint.StackedEnsemble, FEATURES),
    "batch ensemble": (lambda: zoo_joint.BatchEnsemble(torch.relu), FEATURES),
    "batch ensemble tanh": (lambda: zoo_joint.BatchEnsemble(torch.tanh), FEATURES),
    "outer gains": (zoo_joint.OuterGains, FEATURES),
    "squared gains": (zoo_joint.SquaredGains, FEATURES),
    "maxout": (zoo_joint.Maxout, FEATURES),
    "broadcast ensemble": (lambda: zoo_joint.BroadcastEnsemble(torch.relu), FEATURES),
    "linear attention": (zoo_joint.LinearAttention, SEQUENCES),
    "pairs": (zoo_joint.Pairs, FEATURES),
}


@cache
def traced(name: str) -> Architecture:
    """The architecture of a family."""
    build, inputs = FAMILIES[name]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Architecture.from_module(build(), inputs)
