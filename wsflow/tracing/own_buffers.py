"""Buffers that each network has its own of, as it has weights: statistics and affine maps of norms, masks of pruning,
and what norms and orthogonal maps of weights keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm

from wsflow.activations import POSITIVE, SIGN

MEANS, VARIANCES = ("mean", "mu"), ("var", "variance", "std", "sigma", "invstd")


@dataclass(frozen=True)
class OwnBuffer:
    """A buffer that moves with neurons: which scalings it may take part in, and whether it is a statistic.

    `needs_neurons` says that it is only one of the network where neurons are moved by a group: else it may be a
    constant, as means and deviations of inputs are.
    """

    scalings: frozenset[str]
    statistic: bool = True
    needs_neurons: bool = False


def own_buffers(module: nn.Module) -> dict[str, OwnBuffer]:
    """Return the buffers of a module that each network has its own of, by name."""
    return {
        f"{name}.{key}" if name else key: buffer
        for name, layer in module.named_modules()
        for key, buffer in (*_of_weight_maps(layer), *_of_norm(layer))
        if layer._buffers.get(key) is not None
    }


def _of_weight_maps(layer: nn.Module) -> Iterator[tuple[str, OwnBuffer]]:
    # singular vectors have norm one: statistics of later steps would undo any positive scaling
    signs, none = OwnBuffer(frozenset({SIGN})), OwnBuffer(frozenset())
    if isinstance(layer, parametrizations._SpectralNorm):
        yield from (("_u", signs), ("_v", signs))
    if isinstance(layer, parametrizations._Orthogonal):
        yield "base", signs
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):
            yield from ((f"{hook.name}_u", signs), (f"{hook.name}_v", signs))
        if isinstance(hook, BasePruningMethod):
            yield f"{hook._tensor_name}_mask", none


def _of_norm(layer: nn.Module) -> Iterator[tuple[str, OwnBuffer]]:
    buffers = {key: x for key, x in layer._buffers.items() if x is not None and x.is_floating_point()}
    means, variances = ([key for key in buffers if _is(key, words)] for words in (MEANS, VARIANCES))
    shapes = {buffers[key].shape for key in means} & {buffers[key].shape for key in variances}
    for key, buffer in buffers.items():
        if buffer.shape in shapes and buffer.numel() == max(buffer.shape, default=0):
            statistic = key in means or key in variances
            yield key, OwnBuffer(frozenset({POSITIVE, SIGN}), statistic, needs_neurons=not key.startswith("running_"))


def _is(key: str, words: tuple[str, ...]) -> bool:
    return any(part in words for part in key.lower().split("_"))


def is_positive(key: str) -> bool:
    """Return whether a statistic of this name is a variance or a deviation."""
    return _is(key.rpartition(".")[2], VARIANCES)
