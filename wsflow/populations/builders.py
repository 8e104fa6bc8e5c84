"""The networks of the table of named architectures, as architectures of layers or as modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.architecture.sequential import mlp_layers
from wsflow.running.modules import activation_module
from wsflow.task import Task

OMEGA_0 = 30.0
PATCHES = 4  # along each side of an image


def mlp(sizes: Sequence[int], task: Task, activation: str) -> Architecture:
    """Build a perceptron with hidden layers of these widths."""
    return Architecture.mlp([task.n_inputs, *sizes, task.n_outputs], activation)


def siren(sizes: Sequence[int], task: Task, activation: str) -> Architecture:
    """Build a perceptron of sin(30 z) with hidden layers of these widths."""
    layers = mlp_layers([task.n_inputs, *sizes, task.n_outputs], "sine", bias=True)
    return Architecture.sequential([replace(x, argument=OMEGA_0) if x.kind == "sine" else x for x in layers])


def cnn(sizes: Sequence[int], task: Task, activation: str, image: tuple[int, ...]) -> nn.Module:
    """Build 3 x 3 convolutions of stride 2, each with an activation, a mean over pixels and a linear layer."""
    layers = _unflattened(task, image)
    for before, after in pairwise((image[0], *sizes)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), activation_module(activation)]
    return nn.Sequential(*layers, *_pooled(sizes[-1], task))


def resnet(sizes: Sequence[int], task: Task, activation: str, image: tuple[int, ...]) -> nn.Module:
    """Build a convolution with batch norm, and a residual block for each size, of stride 2 but for the first."""
    first = nn.Conv2d(image[0], sizes[0], 3, padding=1, bias=False)
    stem = [first, nn.BatchNorm2d(sizes[0]), activation_module(activation)]
    channels = pairwise((sizes[0], *sizes))
    blocks = [ResidualBlock(*pair, stride=2 if i else 1, activation=activation) for i, pair in enumerate(channels)]
    return nn.Sequential(*_unflattened(task, image), *stem, *blocks, *_pooled(sizes[-1], task))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norms beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int, activation: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), activation_module(activation),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        projection = [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)]
        self.shortcut = nn.Sequential(*(projection if stride > 1 or before != after else []))
        self.activation = activation_module(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both paths behind the activation."""
        result: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return result


def vit(sizes: Sequence[int], task: Task, activation: str, image: tuple[int, ...]) -> nn.Module:
    """Build a transformer on 4 x 4 patches with learned positions, norms first, and a mean over patches."""
    width, depth, heads = sizes
    channels, *sides = image
    if any(side % PATCHES for side in sides) or width % heads:
        raise ValueError(
            f"A 'vit' has {PATCHES} x {PATCHES} patches of an image, and its heads share the width; got images of "
            f"{sides[0]} x {sides[1]} pixels, and {heads} heads of width {width} in all. Choose multiples."
        )
    patch = (sides[0] // PATCHES, sides[1] // PATCHES)
    function: Any = activation_module(activation)
    layers = [
        nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, function, batch_first=True, norm_first=True)
        for _ in range(depth)
    ]
    embedding = [nn.Conv2d(channels, width, patch, stride=patch), Positions(PATCHES**2, width)]
    head = [nn.LayerNorm(width), TokenMean(), nn.Linear(width, task.n_outputs)]
    return nn.Sequential(*_unflattened(task, image), *embedding, *layers, *head)


class Positions(nn.Module):
    """Turns patches (b, width, height, width of image) into tokens (b, patches, width) with learned positions."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, patches, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        return x.flatten(2).transpose(1, 2) + self.positions


class TokenMean(nn.Module):
    """The mean (b, width) over tokens (b, patches, width)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean."""
        return x.mean(1)


def _unflattened(task: Task, image: tuple[int, ...]) -> list[nn.Module]:
    return [nn.Unflatten(1, image)] if task.X.ndim == 2 else []


def _pooled(width: int, task: Task) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, task.n_outputs)]
