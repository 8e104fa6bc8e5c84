"""Small networks beside perceptrons and their tasks, which the jobs of ``quality.py`` name by ``module``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import wsflow
from wsflow import Task

SIDE = 14  # of images, in pixels
IMAGE = 32  # of the image that implicit representations are fitted to


class Residual(nn.Module):
    """A block of two convolutions with batch norms, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class VisionTransformer(nn.Module):
    """A vision transformer over four patches (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int = 16, depth: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, SIDE // 2, SIDE // 2)
        self.places = nn.Parameter(0.02 * torch.randn(1, 4, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.encoder(tokens).mean(1))


def cnn() -> nn.Module:
    """Two convolutions with strides, 3,818 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )


def resnet() -> nn.Module:
    """Two residual blocks with batch norms, 11,398 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, 2, 1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        Residual(12, 12, 2),
        Residual(12, 24, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


def resnet20() -> nn.Module:
    """Nine residual blocks of three widths with batch norms (He et al. 2016), 272,186 weights."""
    widths = [16, *(3 * [16]), *(3 * [32]), *(3 * [64])]
    blocks = [Residual(a, b, 1 + (b > a)) for a, b in itertools.pairwise(widths)]
    first = [nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "cnn": cnn,
    "resnet": resnet,
    "resnet20": resnet20,
    "vit": VisionTransformer,
}


def image_task(name: str, tested: int | None = None) -> Task:
    """A task of images at 14 by 14 pixels, with their channel; of its test part the first `tested`."""
    task = wsflow.load_task(name)

    def small(part: Task) -> Tensor:
        side = math.isqrt(part.X.shape[1])
        return F.adaptive_avg_pool2d(torch.from_numpy(part.X).view(-1, 1, side, side), SIDE)

    parts = {
        key: Task(small(part).numpy()[:tested], part.y[:tested])
        for key in ("validation", "test")
        if (part := getattr(task, key)) is not None
    }
    return Task(small(task).numpy(), task.y, **parts)


def photograph() -> Task:
    """Coordinates in [-1, 1] and the grey levels in [0, 1] of a photograph of scikit-learn."""
    photo = torch.tensor(load_sample_image("china.jpg")).float().mean(-1) / 255
    pixels = F.adaptive_avg_pool2d(photo[None], IMAGE).flatten()
    places = torch.linspace(-1, 1, IMAGE)
    return Task(torch.cartesian_prod(places, places).numpy(), pixels.numpy()[:, None], loss="mse")
