"""Small networks of several kinds that are no plain MLPs, with tasks: each runs by its program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import TransformerBlock

from wsflow import Architecture, Task, WeightArray


def cnn() -> nn.Module:
    """Two convolutions, flattened."""
    layers = (nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4 * 4, 3))


class Residual(nn.Module):
    """A stem, a block with a shortcut, and global pooling, without batch norm."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.first = nn.Conv2d(channels, channels + 1, 3, 2, 1, bias=False)
        self.second = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.head = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = F.relu(self.stem(x))
        x = F.avg_pool2d(x, 2) + self.second(F.relu(self.first(x)))
        return self.head(x.mean((2, 3)))


class Siren(nn.Module):
    """An image as a function of coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(2, 6), nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Coordinates to brightness."""
        return self.last(torch.sin(3 * self.hidden(torch.sin(3 * self.first(x)))))


class Transformer(nn.Module):
    """Tokens and positions, one block, and the mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(5, 6), nn.Parameter(0.1 * torch.randn(4, 6))
        self.block, self.norm, self.head = TransformerBlock(6, 2, 8), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Integers to logits."""
        return self.head(self.norm(self.block(self.token(tokens) + self.position)).mean(1))


class Depthwise(nn.Module):
    """Signals through a grouped, dilated convolution, a depthwise one, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv1d(2, 4, 3, padding="same", dilation=2, groups=2)
        self.depthwise, self.mix = nn.Conv1d(4, 4, 3, 2, groups=4, bias=False), nn.Conv1d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Signals to logits."""
        x = self.depthwise(torch.tanh(self.grouped(x)))
        return self.head(torch.tanh(self.mix(torch.tanh(self.mix(x)))).mean(2))


@dataclass(frozen=True)
class Kind:
    """A network, its inputs, and whether they are tokens or coordinates."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: bool = False
    regression: bool = False

    def inputs(self, n: int, seed: int = 0) -> Tensor:
        """Inputs (n, ...)."""
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(5, (n, *self.shape), generator=generator)
        return torch.randn(n, *self.shape, generator=generator)


KINDS = {
    "CNN": Kind(cnn, (1, 6, 6)),
    "residual": Kind(Residual, (1, 6, 6)),
    "SIREN": Kind(Siren, (2,), regression=True),
    "transformer": Kind(Transformer, (4,), tokens=True),
    "grouped": Kind(Depthwise, (2, 8)),
}


@cache
def read(name: str) -> Architecture:
    """The architecture of a kind, as it is read from a file: without its module."""
    torch.manual_seed(0)
    kind = KINDS[name]
    return Architecture.from_json(Architecture.from_module(kind.build(), kind.inputs(2)).to_json())


@cache
def rows(name: str, n: int = 3) -> Tensor:
    """Networks (n, d) as torch initialises them, in float64."""
    torch.manual_seed(1)
    return torch.from_numpy(
        np.array(WeightArray.from_modules([KINDS[name].build() for _ in range(n)], read(name)))
    ).double()


def task_of(name: str, n: int = 40, seed: int = 0) -> Task:
    """Examples whose targets depend on the inputs."""
    kind = KINDS[name]
    x = kind.inputs(n, seed)
    level = x.double().flatten(1).mean(1)
    if kind.regression:
        return Task(x.numpy(), torch.sin(2 * x.double()).sum(1, keepdim=True).numpy(), loss="mse")
    return Task(x.numpy(), torch.bucketize(level, level.quantile(torch.tensor([1 / 3, 2 / 3]).double())).numpy())


@cache
def trained(name: str, n: int = 24) -> tuple[WeightArray, Task]:
    """Networks around one that learned a task, each a run of its own, with the task."""
    task, kind = task_of(name), KINDS[name]
    torch.manual_seed(2)
    teacher, x = kind.build(), torch.from_numpy(task.X)
    y, loss = torch.from_numpy(task.targets), F.mse_loss if kind.regression else F.cross_entropy
    x, y = x if kind.tokens else x.float(), y.float() if kind.regression else y
    optimizer = torch.optim.Adam(teacher.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        loss(teacher(x), y).backward()
        optimizer.step()
    row = np.asarray(WeightArray.from_modules([teacher], read(name)))
    noise = np.random.default_rng(0).standard_normal((n, row.shape[1]))
    return WeightArray((row + 0.03 * noise).astype(np.float32), read(name)), Task(
        task.X, task.y, loss=task.loss, test=task
    )


def outputs_of(name: str, weights: WeightArray) -> Tensor:
    """Outputs (n, b, k) on the task's inputs, by the kind's own module and torch alone."""
    task, result = task_of(name), []
    for row in np.array(weights):
        module, start = KINDS[name].build().double(), 0
        shapes = {p.name: p.shape for p in weights.architecture.parameters}
        state = {}
        for key, shape in shapes.items():
            size = int(np.prod(shape))
            state[key] = torch.from_numpy(row[start : start + size].reshape(shape)).double()
            start += size
        module.load_state_dict(state)
        x = torch.from_numpy(task.X)
        with torch.no_grad():
            result.append(module(x if KINDS[name].tokens else x.double()))
    return torch.stack(result)
