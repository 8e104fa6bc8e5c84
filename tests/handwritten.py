"""Five networks that are no MLPs, each with its architecture written by hand.

They show that the vocabulary (spaces, blocks, wires, roles) is enough for fused attention, conv -> flatten ->
linear, batch-norm statistics, a residual stream and depthwise kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsflow.activations import POSITIVE, SIGN
from wsflow.architecture import Architecture, Block, Fixed, NeuronGroup, Parameter, Space, Wire
from wsflow.architecture.parameters import fixed_parameter

BOTH = frozenset({POSITIVE, SIGN})
POSITIVE_ONLY = frozenset({POSITIVE})
Wires = tuple[tuple[str, int, int], ...]


def linear(name: str, outputs: Space, inputs: Space, produces: str = "", consumes: str = "") -> list[Parameter]:
    """Weight and bias of a linear layer between two spaces."""
    made: Wires = ((produces, 0, 1),) if produces else ()
    used: Wires = ((consumes, 1, -1),) if consumes else ()
    return [
        Parameter(f"{name}.weight", (outputs.total, inputs.total), (Block((outputs, inputs), wires=made + used),)),
        Parameter(f"{name}.bias", (outputs.total,), (Block((outputs,), wires=made),)),
    ]


def convolution(name: str, outputs: Space, inputs: Space, size: int, made: Wires, used: Wires) -> list[Parameter]:
    """Kernel and bias of a convolution between two spaces of channels."""
    axes = (outputs, inputs, Fixed(size), Fixed(size))
    kernel = Block(axes, wires=made + used)
    shape = (outputs.total, inputs.total, size, size)
    return [
        Parameter(f"{name}.weight", shape, (kernel,)),
        Parameter(f"{name}.bias", (outputs.total,), (Block((outputs,), wires=made),)),
    ]


class Attention(nn.Module):
    """Self-attention with a fused qkv projection, then a mean over tokens."""

    def __init__(self, features: int = 6, heads: int = 3, channels: int = 4) -> None:
        super().__init__()
        self.heads, self.channels = heads, channels
        self.qkv = nn.Linear(features, 3 * heads * channels)
        self.out = nn.Linear(heads * channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (b, tokens, features) to logits (b, 2)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.channels)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / self.channels**0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2)).mean(1)

    @staticmethod
    def architecture(features: int = 6, heads: int = 3, channels: int = 4) -> Architecture:
        """Channels are nested in heads; queries and keys scale by s and 1/s, values and the output too."""
        head = NeuronGroup("heads", heads)
        qk, vo = NeuronGroup("qk", channels, parent=head), NeuronGroup("vo", channels, parent=head)

        def parts(tail: tuple[int, ...]) -> tuple[Block, ...]:
            fixed = tuple(Fixed(size) for size in tail)
            view = (3, heads, channels, *tail)
            rows = [(qk, "qk", 1), (qk, "qk", -1), (vo, "vo", 1)]
            return tuple(
                Block(
                    (Fixed(1), head, group, *fixed),
                    view,
                    ((i, i + 1), *((0, size) for size in view[1:])),
                    ((wire, 2, exponent),),
                )
                for i, (group, wire, exponent) in enumerate(rows)
            )

        out = Block((Fixed(2), head, vo), (2, heads, channels), wires=(("vo", 2, -1),))
        width = heads * channels
        return Architecture(
            (
                Parameter("qkv.weight", (3 * width, features), parts((features,))),
                Parameter("qkv.bias", (3 * width,), parts(())),
                Parameter("out.weight", (2, width), (out,)),
                fixed_parameter("out.bias", (2,)),
            ),
            (Wire("qk", qk, BOTH), Wire("vo", vo, BOTH)),
            outputs=("out.weight", "out.bias"),
        )


class Convolutional(nn.Module):
    """conv -> relu -> flatten -> linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.head = nn.Linear(5 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 2, 5, 5) to logits (b, 3)."""
        return self.head(self.conv(x).relu().flatten(1))

    @staticmethod
    def architecture() -> Architecture:
        """The linear layer is seen as (out, channels, pixels)."""
        channels = NeuronGroup("channels", 5)
        head = Block((Fixed(3), channels, Fixed(9)), (3, 5, 9), wires=(("channels", 1, -1),))
        return Architecture(
            (
                *convolution("conv", channels, Fixed(2), 3, (("channels", 0, 1),), ()),
                Parameter("head.weight", (3, 45), (head,)),
                fixed_parameter("head.bias", (3,)),
            ),
            (Wire("channels", channels, POSITIVE_ONLY),),
            outputs=("head.weight", "head.bias"),
        )


class BatchNormed(nn.Module):
    """linear -> batch norm -> relu -> linear, to be run in evaluation mode."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6, eps=eps)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (b, 4) to logits (b, 2)."""
        return self.head(self.norm(self.hidden(x)).relu())

    @staticmethod
    def architecture(compensated: bool) -> Architecture:
        """Statistics scale by (s, s^2), exact at eps=0; or the norm's weight makes up for s, exact always."""
        hidden = NeuronGroup("hidden", 6)
        gamma: Wires = (("after", 0, 1), ("before", 0, -1)) if compensated else (("after", 0, 1),)
        variance: Wires = () if compensated else (("before", 0, 2),)

        def column(name: str, wires: Wires, role: str = "weight") -> Parameter:
            return Parameter(name, (6,), (Block((hidden,), wires=wires),), role)  # type: ignore[arg-type]

        return Architecture(
            (
                *linear("hidden", hidden, Fixed(4), produces="before"),
                column("norm.weight", gamma),
                column("norm.bias", (("after", 0, 1),)),
                column("norm.running_mean", (("before", 0, 1),), "statistic"),
                column("norm.running_var", variance, "statistic"),
                fixed_parameter("norm.num_batches_tracked", (), "statistic"),
                *linear("head", Fixed(2), hidden, consumes="after"),
            ),
            (Wire("before", hidden, BOTH if compensated else POSITIVE_ONLY), Wire("after", hidden, POSITIVE_ONLY)),
            outputs=("head.weight", "head.bias"),
        )


class Residual(nn.Module):
    """An embedding, two residual blocks and a head: several producers of one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.up1, self.down1 = nn.Linear(6, 8), nn.Linear(8, 6)
        self.up2, self.down2 = nn.Linear(6, 7), nn.Linear(7, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (b, 3) to logits (b, 2)."""
        x = self.embed(x)
        x = x + self.down1(self.up1(x).relu())
        x = x + self.down2(self.up2(x).relu())
        return self.head(x)

    @staticmethod
    def architecture() -> Architecture:
        """All consumers of the stream are linear, so positive scalings and signs act on it."""
        stream = NeuronGroup("stream", 6)
        hidden = [NeuronGroup("hidden1", 8), NeuronGroup("hidden2", 7)]
        return Architecture(
            (
                *linear("embed", stream, Fixed(3), produces="stream"),
                *linear("up1", hidden[0], stream, produces="hidden1", consumes="stream"),
                *linear("down1", stream, hidden[0], produces="stream", consumes="hidden1"),
                *linear("up2", hidden[1], stream, produces="hidden2", consumes="stream"),
                *linear("down2", stream, hidden[1], produces="stream", consumes="hidden2"),
                *linear("head", Fixed(2), stream, consumes="stream"),
            ),
            (Wire("stream", stream, BOTH), *(Wire(group.name, group, POSITIVE_ONLY) for group in hidden)),
            outputs=("head.weight", "head.bias"),
        )


class Separable(nn.Module):
    """1x1 conv -> relu -> depthwise conv -> relu -> 1x1 conv -> relu -> mean over pixels -> linear."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.project = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 3, 5, 5) to logits (b, 2)."""
        x = self.depthwise(self.expand(x).relu()).relu()
        return self.head(self.project(x).relu().mean((2, 3)))

    @staticmethod
    def architecture() -> Architecture:
        """The depthwise kernel has one axis of the group: it consumes one wire there, and produces another."""
        channels, projected = NeuronGroup("channels", 6), NeuronGroup("projected", 4)
        depthwise: Wires = (("filtered", 0, 1),)
        return Architecture(
            (
                *convolution("expand", channels, Fixed(3), 1, (("expanded", 0, 1),), ()),
                *convolution("depthwise", channels, Fixed(1), 3, depthwise, (("expanded", 0, -1),)),
                *convolution("project", projected, channels, 1, (("projected", 0, 1),), (("filtered", 1, -1),)),
                *linear("head", Fixed(2), projected, consumes="projected"),
            ),
            (
                Wire("expanded", channels, POSITIVE_ONLY),
                Wire("filtered", channels, POSITIVE_ONLY),
                Wire("projected", projected, POSITIVE_ONLY),
            ),
            outputs=("head.weight", "head.bias"),
        )


def randomised(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """The module in float64 and evaluation mode, parameters and buffers random: a fresh norm hides mistakes."""
    module = module.double().eval()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(values.exp() if name.endswith("var") else values)
    return module
