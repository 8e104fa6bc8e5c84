"""Linear layers and convolutions as products of a matrix with rows: patches of what comes in, at each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture.program import Operation, ParameterValue

# the functions, with the number of their spatial dimensions
SPATIAL = {"linear": 0, **{f"{kind}{n}d": n for n in (1, 2, 3) for kind in ("conv", "conv_transpose")}}
# their settings behind input, weight and bias, in order, with their defaults
CONVOLUTION = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
TRANSPOSED = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}


@dataclass(frozen=True)
class Affine:
    """One use of a linear layer or a convolution, with the names of its parameters."""

    weight: str
    bias: str | None
    spatial: int = 0  # dimensions: none of a linear layer, whose features are the last axis
    settings: dict[str, Any] = field(default_factory=dict)  # stride, padding, dilation and groups of a convolution
    transposed: bool = False  # whether its weights have inputs first

    @property
    def groups(self) -> int:
        """How many parts of the channels have kernels of their own."""
        return int(self.settings.get("groups", 1))

    def sample_axes(self, outputs: Tensor) -> list[int]:
        """Return the axes of outputs (n, b, ...) that range over examples and positions, not networks or channels."""
        channels = outputs.dim() - 1 - self.spatial
        return [axis for axis in range(1, outputs.dim()) if axis != channels]

    def scaled(self, weight: Tensor, factor: Tensor) -> Tensor:
        """Return the weights (n, ...) with which each channel of the outputs is multiplied with a factor (n, q)."""
        if self.transposed:
            parts = factor.reshape(len(factor), self.groups, 1, -1)
            factor = parts.expand(-1, -1, weight.shape[1] // self.groups, -1).flatten(1, 2)
        return weight * factor.reshape(*factor.shape, *[1] * (weight.dim() - factor.dim()))

    def input_rows(self, inputs: Tensor, weight: Sequence[int]) -> Tensor:
        """Return what comes in, (n, b, ...), as rows (n, groups, b * positions, p), for a weight of shape (q, ...)."""
        if not self.spatial:
            return inputs.reshape(len(inputs), 1, -1, inputs.shape[-1])
        n, kernel = len(inputs), weight[2:]
        found = torch.nn.functional.pad(inputs.flatten(0, 1), self._padding(kernel))
        strides, dilations = (each_axis(self.settings[key], self.spatial) for key in ("stride", "dilation"))
        for i, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
            found = found.unfold(2 + i, (k - 1) * d + 1, s)[..., ::d]
        positions, patch = range(2, 2 + self.spatial), range(2 + self.spatial, 2 + 2 * self.spatial)
        # (n, b * positions, groups, channels of a group * kernel)
        rows = found.permute(0, *positions, 1, *patch).reshape(n, -1, self.groups, weight[1] * prod(kernel))
        return rows.transpose(1, 2)

    def output_rows(self, outputs: Tensor) -> Tensor:
        """Return what comes out, or its gradient, (n, b, ...), as rows (n, groups, b * positions, q / groups)."""
        if not self.spatial:
            return outputs.reshape(len(outputs), 1, -1, outputs.shape[-1])
        rows = outputs.movedim(2, -1)
        rows = rows.reshape(len(outputs), -1, self.groups, outputs.shape[2] // self.groups)
        return rows.transpose(1, 2)

    def _padding(self, kernel: Sequence[int]) -> list[int]:
        padding = self.settings["padding"]
        if padding == "same":
            dilations = each_axis(self.settings["dilation"], self.spatial)
            total = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
            sides = [(t // 2, t - t // 2) for t in total]
        else:
            sides = [(p, p) for p in each_axis(0 if padding == "valid" else padding, self.spatial)]
        # torch pads the last dimension first
        return [amount for side in reversed(sides) for amount in side]


def affine_of(operation: Operation) -> Affine | None:
    """Return the linear layer or convolution that an operation is, or None: its weight and bias are parameters."""
    if operation.base not in SPATIAL or len(operation.arguments) < 2:
        return None
    _, weight, *rest = operation.arguments
    bias = rest[0] if rest else dict(operation.keywords).get("bias")
    if not isinstance(weight, ParameterValue) or not (bias is None or isinstance(bias, ParameterValue)):
        return None
    transposed = "transpose" in operation.base
    settings = {} if not SPATIAL[operation.base] else TRANSPOSED if transposed else CONVOLUTION
    given = dict(zip(settings, rest[1:], strict=False)) | dict(operation.keywords)
    own = bias.name if bias is not None else None
    return Affine(weight.name, own, SPATIAL[operation.base], {**settings, **given}, transposed)


def each_axis(setting: Any, count: int) -> list[Any]:
    """Return what a setting of a convolution is for each of so many axes of the images."""
    each = list(setting) if isinstance(setting, list | tuple) else [setting]
    return each * count if len(each) == 1 else each
