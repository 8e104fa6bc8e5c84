"""Networks of another hidden width, from a flow that was fitted at one width.

Where neurons have no names (``identity=None``), the flow itself works at any width. Where they have names, a wide
network is made of several sampled ones: neuron J of a group is neuron J mod w of network J // w, and the next layer
takes the mean over the neurons of the same name. With one hidden layer its outputs are, at a multiple of the width, the
mean of the networks' outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from wsflow.architecture import Architecture, Layer
from wsflow.architecture.sequential import LINEAR
from wsflow.running import flatten, unflatten


def of_hidden(architecture: Architecture, hidden: Sequence[int]) -> Architecture:
    """The same layers at other hidden widths.

    Parameters
    ----------
    architecture : Architecture
        Sequential.
    hidden : sequence of int

    Raises
    ------
    ValueError
        If the network is not sequential, or has another number of hidden layers.

    Examples
    --------
    >>> from wsflow import Architecture
    >>> from wsflow.models.widths import of_hidden
    >>> of_hidden(Architecture.mlp([4, 8, 2]), [32]) == Architecture.mlp([4, 32, 2])
    True
    """
    linear = _linear(architecture)
    if len(hidden) != len(linear) - 1:
        raise ValueError(
            f"{architecture} does not have {len(hidden)} hidden layers: give the width of each that it has."
        )
    widths = iter(pairwise([linear[0].inputs, *hidden, linear[-1].outputs]))
    layers = [_resized(layer, *next(widths)) if layer.kind == LINEAR else layer for layer in architecture.layers]
    return Architecture.sequential(layers)


def check_width(own: Architecture, architecture: Architecture, is_named: bool, rated: bool = False) -> None:
    """Refuse an architecture that is not a flow's own at another hidden width, with a ValueError.

    `is_named` says whether the flow knows its neurons by name, `rated` whether log-densities are asked for.
    """
    if not own.layers or not _same_but_for_widths(architecture, own):
        raise ValueError(f"Another width means the same layers of sequential networks: {own} against {architecture}.")
    narrow, wide = _linear(own), _linear(architecture)
    if is_named and any(a.outputs > b.outputs for a, b in zip(narrow, wide, strict=True)):
        raise ValueError(
            f"A flow that knows its neurons by name makes wider networks, not narrower ones: {own} against "
            f"{architecture}. Fit with velocity=NeuronTransformer(identity=None)."
        )
    if is_named and rated:
        raise ValueError(
            "A network made of several sampled ones has no log-density here. Fit with "
            "velocity=NeuronTransformer(identity=None)."
        )


def copies_needed(narrow: Architecture, wide: Architecture) -> int:
    """How many narrow networks one wide network is made of."""
    pairs = zip(_linear(narrow), _linear(wide), strict=True)
    return max(-(-b.outputs // a.outputs) for a, b in pairs)


def combined(weights: Tensor, narrow: Architecture, wide: Architecture) -> Tensor:
    """Make wide networks (n, wide d), each of as many successive rows of (n * copies, d) as it needs.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.running import forward
    >>> narrow, wide = Architecture.mlp([4, 3, 2]), Architecture.mlp([4, 6, 2])
    >>> rows, x = torch.randn(2, 23), torch.randn(5, 4)
    >>> mean = forward(rows, narrow, x).mean(0)
    >>> torch.allclose(forward(combined(rows, narrow, wide), wide, x)[0], mean, atol=1e-5)
    True
    """
    copies = copies_needed(narrow, wide)
    tensors = {k: v.reshape(-1, copies, *v.shape[1:]) for k, v in unflatten(weights, narrow).items()}
    made: dict[str, Tensor] = {}
    sources: _Group | None = None
    pairs = list(zip(_linear(narrow), _linear(wide), strict=True))
    for i, (small, large) in enumerate(pairs):
        last = i + 1 == len(pairs)
        targets = None if last else _Group.of(small.outputs, large.outputs)
        made[f"{small.name}.weight"] = _weight(tensors[f"{small.name}.weight"], targets, sources)
        if small.bias:
            made[f"{small.name}.bias"] = _bias(tensors[f"{small.name}.bias"], targets, sources)
        sources = targets
    return flatten(made, wide)


@dataclass(frozen=True)
class _Group:
    """The neurons of a wide group: of which copy and by which name each is, and its share in the mean of its name."""

    copy: Tensor
    name: Tensor
    share: Tensor

    @classmethod
    def of(cls, narrow: int, wide: int) -> _Group:
        """The group of a wide network that is made of narrow ones."""
        index = torch.arange(wide)
        name = index % narrow
        return cls(index // narrow, name, 1 / torch.bincount(name, minlength=narrow)[name].double())


def _weight(weight: Tensor, targets: _Group | None, sources: _Group | None) -> Tensor:
    """From weights (n, copies, outputs, inputs) to wide ones (n, outputs, inputs)."""
    if targets is not None:
        mine = weight[:, targets.copy, targets.name]
        return mine if sources is None else mine[..., sources.name] * sources.share.to(weight)
    if sources is None:
        return weight.mean(1)
    return weight[:, sources.copy, :, sources.name].permute(1, 2, 0) * sources.share.to(weight)


def _bias(bias: Tensor, targets: _Group | None, sources: _Group | None) -> Tensor:
    """From biases (n, copies, outputs) to wide ones; outputs have the mean, copies by their part of the neurons."""
    if targets is not None:
        return bias[:, targets.copy, targets.name]
    if sources is None:
        return bias.mean(1)
    part = torch.bincount(sources.copy, minlength=bias.shape[1]).to(bias)
    return torch.einsum("nco,c->no", bias, part / part.sum())


def _resized(layer: Layer, inputs: int, outputs: int) -> Layer:
    return replace(layer, inputs=inputs, outputs=outputs)


def _linear(architecture: Architecture) -> list[Layer]:
    return [layer for layer in architecture.layers if layer.kind == LINEAR]


def _same_but_for_widths(one: Architecture, other: Architecture) -> bool:
    def skeleton(architecture: Architecture) -> list[object]:
        linear = _linear(architecture)
        kinds = [(layer.kind, layer.name, layer.bias, layer.argument) for layer in architecture.layers]
        return [*kinds, linear[0].inputs, linear[-1].outputs] if linear else [architecture]

    return skeleton(one) == skeleton(other)
