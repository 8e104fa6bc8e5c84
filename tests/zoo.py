"""Small networks of many kinds, as users write them, for the tests of tracing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def vgg() -> nn.Module:
    """conv-relu-pool twice, flatten, two linear layers with dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4, 10),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(10, 3),
    )


class PaddedBlock(nn.Module):
    """A CIFAR ResNet's block: where channels grow, the shortcut is padded with zeros (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.pad = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        shortcut = x if self.stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad), "constant", 0)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet20(nn.Module):
    """Three stages of n blocks, with the names of the usual CIFAR implementation."""

    def __init__(self, n: int = 3, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        sizes = [width, width, 2 * width, 4 * width]
        for stage in (1, 2, 3):
            blocks = [PaddedBlock(sizes[stage - 1], sizes[stage], 1 if stage == 1 else 2)]
            blocks += [PaddedBlock(sizes[stage], sizes[stage], 1) for _ in range(n - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.size(3)).view(x.size(0), -1))


class BasicBlock(nn.Module):
    """A ResNet-18's block, with a convolution in the shortcut where channels grow."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """As in torchvision, with fewer channels by default."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        for i in (1, 2, 3, 4):
            first = BasicBlock(sizes[i - 1], sizes[i], 1 if i == 1 else 2)
            setattr(self, f"layer{i}", nn.Sequential(first, BasicBlock(sizes[i], sizes[i], 1)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class SelfAttention(nn.Module):
    """A fused qkv projection, as in timm."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to tokens."""
        b, t, d = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones(t, t).tril() == 0, float("-inf"))
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, causal)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to tokens."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, class token, position embeddings, two pre-norm blocks, norm, head."""

    def __init__(self, width: int = 12, heads: int = 3, hidden: int = 20) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.ModuleList([TransformerBlock(width, heads, hidden) for _ in range(2)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class GPT(nn.Module):
    """Token and position embeddings, causal blocks, a head that is tied to the token embedding."""

    def __init__(self, width: int = 12, heads: int = 3, hidden: int = 16, vocabulary: int = 11) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(8, width)
        self.h = nn.ModuleList([TransformerBlock(width, heads, hidden, causal=True) for _ in range(2)])
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens to logits."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class TorchTransformer(nn.Module):
    """torch's own encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 10, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to logits."""
        return self.head(self.encoder(self.embed(x)).mean(1))


class CrossAttention(nn.Module):
    """Two streams of equal width, joined by torch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 8), nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two sequences to logits."""
        left, right = self.left(x), self.right(y)
        return self.head(self.attention(left, right, right, need_weights=False)[0])


class Llama(nn.Module):
    """RMS norm, rotary embeddings, SwiGLU."""

    def __init__(self, width: int = 8, heads: int = 2, hidden: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(7, width)
        self.norm1, self.norm2, self.norm = nn.RMSNorm(width), nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.head = nn.Linear(width, 7, bias=False)

    def _rotated(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        angles = torch.arange(x.shape[-2])[:, None] * (10.0 ** -torch.arange(half))
        cos, sin = (f(torch.cat([angles, angles], -1)).to(x) for f in (torch.cos, torch.sin))
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens to logits."""
        x = self.embed(tokens)
        b, t, d = x.shape
        h = self.norm1(x)
        q, k, v = (f(h).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(self._rotated(q), self._rotated(k), v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(b, t, d))
        h = self.norm2(x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.head(self.norm(x))


class MixerBlock(nn.Module):
    """Mixing of tokens, then of channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 7), nn.GELU(), nn.Linear(7, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to tokens."""
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """MLP-Mixer."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(4, width), MixerBlock(4, width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


class ConvNeXt(nn.Module):
    """A stem, one ConvNeXt block with layer scale, a head."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 2, 2)
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.stem(x)
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(self.norm(y))))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class UNet(nn.Module):
    """Down, up with a transposed convolution, and a skip connection by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 5, 2, 2)
        self.merge = nn.Conv2d(9, 7, 3, padding=1)
        self.out = nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        a = F.relu(self.down1(x))
        b = F.relu(self.down2(F.max_pool2d(a, 2)))
        return self.out(F.relu(self.merge(torch.cat([a, F.relu(self.up(b))], 1))))


class Separable(nn.Module):
    """Depthwise-separable convolutions with batch norm, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.depthwise, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(4)
        self.pointwise, self.bn2 = nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = F.relu6(self.bn0(self.stem(x)))
        x = F.relu6(self.bn1(self.depthwise(x)))
        x = F.relu6(self.bn2(self.pointwise(x)))
        return self.fc(x.mean((2, 3)))


class Sine(nn.Module):
    """sin(30 (W x + b))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        return torch.sin(30.0 * self.linear(x))


def siren() -> nn.Module:
    """Sitzmann et al. 2020."""
    return nn.Sequential(Sine(2, 6), Sine(6, 5), nn.Linear(5, 1))


class TiedAutoencoder(nn.Module):
    """The decoder has the encoder's matrix, transposed."""

    def __init__(self, activation: str = "tanh") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 9) / 3)
        self.bias, self.visible = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(9))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        hidden = getattr(torch, self.activation)(F.linear(x, self.weight, self.bias))
        return F.linear(hidden, self.weight.t(), self.visible)


class Twice(nn.Module):
    """One hidden layer that is used twice: its output is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        x = F.relu(self.first(x))
        return self.last(F.relu(self.shared(F.relu(self.shared(x)))))


class LoneResidual(nn.Module):
    """x + f(x): the stream is the input."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        return x + self.down(F.relu(self.up(x)))


class Grouped(nn.Module):
    """A grouped convolution and a group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.head(F.relu(self.grouped(F.relu(self.stem(x)))).mean((2, 3)))


class GroupNormed(nn.Module):
    """conv, group norm, relu, head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))


class Shuffled(nn.Module):
    """Grouped convolutions with a channel shuffle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.a, self.b = nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1, groups=2)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = F.relu(self.a(F.relu(self.stem(x))))
        x = x.view(x.shape[0], 2, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.head(F.relu(self.b(x)).mean((2, 3)))


class Gated(nn.Module):
    """A GLU with one fused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 12), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return self.down(F.glu(self.up(x)))


class Dense(nn.Module):
    """Concatenations with what came before, the input included, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 5, 3, padding=1)
        self.fc = nn.Linear(12 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = torch.cat([x, F.relu(self.a(x))], 1)
        x = torch.cat([x, F.relu(self.b(x))], 1)
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


class NormedHeads(nn.Module):
    """Queries and keys are normalised by a norm that all heads share."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.q, self.k, self.v, self.o = (nn.Linear(6, 6) for _ in range(4))
        self.qnorm, self.knorm = nn.RMSNorm(3), nn.RMSNorm(3)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to logits."""
        x = self.embed(x)
        b, t, _ = x.shape
        q, k, v = (f(x).view(b, t, 2, 3).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(self.qnorm(q), self.knorm(k), v)
        return self.head(self.o(mixed.transpose(1, 2).flatten(2)))


class Sigmoidal(nn.Module):
    """An MLP with sigmoids."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return self.c(torch.sigmoid(self.b(torch.sigmoid(self.a(x)))))


def gin() -> nn.Module:
    """A graph isomorphism network of torch-geometric (Xu et al. 2019), two layers and a readout."""
    from torch_geometric.nn import GINConv

    class GIN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = GINConv(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5)), train_eps=True)
            self.conv2 = GINConv(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4)))
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            x = F.relu(self.conv1(x, edges))
            return self.head(F.relu(self.conv2(x, edges)).sum(0, keepdim=True))

    return GIN()


def graph() -> tuple[Tensor, Tensor]:
    """A ring of six nodes with a chord."""
    source = torch.tensor([0, 1, 2, 3, 4, 5, 0])
    target = torch.tensor([1, 2, 3, 4, 5, 0, 3])
    return torch.randn(6, 3), torch.stack([torch.cat([source, target]), torch.cat([target, source])])


class Residual(nn.Module):
    """x + f(x), for an f that keeps the shape."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        return x + self.inner(x)


class Concat(nn.Module):
    """x next to f(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        return torch.cat([x, self.inner(x)], 1)


class Gate(nn.Module):
    """a * f(b), of the halves of the channels."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        a, b = x.chunk(2, 1)
        return a * self.activation(b)


class Function(nn.Module):
    """An elementwise function of torch, by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to numbers."""
        return getattr(torch, self.name)(x)
