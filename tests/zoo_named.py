"""Small versions of well-known networks, with the blocks that make them what they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import Concat, Residual


def densenet() -> nn.Module:
    """Norm, ReLU, 1x1 and 3x3 convolutions, whose outputs are joined with what came before (Huang et al. 2017)."""

    def layer(inputs: int) -> nn.Module:
        narrow = [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, 6, 1, bias=False)]
        wide = [nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 3, 3, padding=1, bias=False)]
        return Concat(nn.Sequential(*narrow, *wide))

    transition = [nn.BatchNorm2d(10), nn.ReLU(inplace=True), nn.Conv2d(10, 5, 1, bias=False), nn.AvgPool2d(2, 2)]
    head = [nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), layer(4), layer(7), *transition, layer(5), *head)


def _convolved(
    inputs: int, outputs: int, kernel: int, act: nn.Module, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), act]


def mobilenet() -> nn.Module:
    """Inverted residuals with linear bottlenecks (Sandler et al. 2018)."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        wide = 2 * inputs
        layers = _convolved(inputs, wide, 1, nn.ReLU6(inplace=True))
        layers += _convolved(wide, wide, 3, nn.ReLU6(inplace=True), stride, wide)
        layers += _convolved(wide, outputs, 1, nn.Identity())
        return Residual(nn.Sequential(*layers)) if stride == 1 and inputs == outputs else nn.Sequential(*layers)

    stem = _convolved(3, 4, 3, nn.ReLU6(inplace=True), 2)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6, 3)]
    return nn.Sequential(*stem, block(4, 4, 1), block(4, 6, 2), *head)


class SqueezeExcitation(nn.Module):
    """Gates of channels, from their means (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        gates = self.fc2(F.silu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return torch.sigmoid(gates) * x


class StochasticDepth(nn.Module):
    """Leave out what a block adds, for some examples."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        if not self.training or not self.p:
            return x
        noise = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * noise.div_(1 - self.p)


def efficientnet() -> nn.Module:
    """Inverted residuals with gates and stochastic depth (Tan and Le 2019)."""

    def block(channels: int) -> nn.Module:
        layers = _convolved(channels, 3 * channels, 1, nn.SiLU(inplace=True))
        layers += _convolved(3 * channels, 3 * channels, 3, nn.SiLU(inplace=True), groups=3 * channels)
        layers += [SqueezeExcitation(3 * channels, 2), *_convolved(3 * channels, channels, 1, nn.Identity())]
        return Residual(nn.Sequential(*layers, StochasticDepth(0.1)))

    stem, top = _convolved(3, 4, 3, nn.SiLU(inplace=True), 2), _convolved(4, 8, 1, nn.SiLU(inplace=True))
    return nn.Sequential(
        *stem, block(4), block(4), *top, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


class ShuffleBlock(nn.Module):
    """Half of the channels pass, half are convolved; then they are shuffled (Ma et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        layers = _convolved(half, half, 1, nn.ReLU(inplace=True)) + _convolved(
            half, half, 3, nn.Identity(), groups=half
        )
        self.branch = nn.Sequential(*layers, *_convolved(half, half, 1, nn.ReLU(inplace=True)))

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        passed, convolved = x.chunk(2, dim=1)
        x = torch.cat([passed, self.branch(convolved)], dim=1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def shufflenet() -> nn.Module:
    """A stem, two shuffled blocks, a head."""
    stem = [*_convolved(3, 8, 3, nn.ReLU(inplace=True), 2), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(
        *stem, ShuffleBlock(8), ShuffleBlock(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


class WindowAttention(nn.Module):
    """Attention in windows, which are shifted, with a bias for each relative position (Liu et al. 2021)."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        where = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        between = where[:, :, None] - where[:, None, :] + window - 1
        self.register_buffer("index", (between[0] * (2 * window - 1) + between[1]).flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Images with the channels last to such images."""
        b, h, w, d = x.shape
        k = self.window
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(b, h // k, k, w // k, k, d).permute(0, 1, 3, 2, 4, 5).reshape(-1, k * k, d)
        q, key, v = self.qkv(x).reshape(x.shape[0], k * k, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].view(k * k, k * k, self.heads).permute(2, 0, 1)
        scores = (q * (d // self.heads) ** -0.5) @ key.transpose(-2, -1) + bias
        x = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape[0], k * k, d))
        x = x.view(b, h // k, w // k, k, k, d).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, d)
        return torch.roll(x, (self.shift, self.shift), (1, 2))


class Swin(nn.Module):
    """Patches, two blocks of which one is shifted, merging of patches, head."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 2, 2)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(4)])
        self.attentions = nn.ModuleList([WindowAttention(width, heads, 2, shift) for shift in (0, 1)])
        self.mlps = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width)) for _ in range(2)]
        )
        self.merge_norm, self.merge = nn.LayerNorm(4 * width), nn.Linear(4 * width, 10, bias=False)
        self.norm, self.head = nn.LayerNorm(10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.patches(x).permute(0, 2, 3, 1)
        for i in range(2):
            x = x + self.attentions[i](self.norms[2 * i](x))
            x = x + self.mlps[i](self.norms[2 * i + 1](x))
        parts = [x[:, i::2, j::2, :] for j in range(2) for i in range(2)]
        x = self.merge(self.merge_norm(torch.cat(parts, -1)))
        return self.head(self.norm(x).mean((1, 2)))


class BERT(nn.Module):
    """Embeddings of tokens, positions and segments with a norm, a post-norm block, a pooler (Devlin et al. 2019)."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.positions, self.segments = (nn.Embedding(n, width) for n in (11, 8, 2))
        self.norm, self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-12) for _ in range(3))
        self.query, self.key, self.value, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 12), nn.Linear(12, width)
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 3)
        self.dropout = nn.Dropout(0.1)

    def _attended(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        weights = self.dropout((q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5).softmax(-1))
        return self.dropout(self.dense((weights @ v).transpose(1, 2).reshape(b, t, d)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens to logits."""
        places = torch.arange(tokens.shape[1])
        x = self.words(tokens) + self.positions(places) + self.segments(torch.zeros_like(tokens))
        x = self.dropout(self.norm(x))
        x = self.norm1(x + self._attended(x))
        x = self.norm2(x + self.dropout(self.down(F.gelu(self.up(x)))))
        return self.head(self.dropout(torch.tanh(self.pooler(x[:, 0]))))
