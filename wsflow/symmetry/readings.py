"""Reading the activations of neuron groups, of many networks at once, and their moments over examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.activations import FLIP, SIGN
from wsflow.architecture import Architecture, NeuronGroup, Tap
from wsflow.architecture.layers import LINEAR
from wsflow.running import unflatten
from wsflow.running.execution import run_layers, run_module

# by name of the group
Activations = list[tuple[str, Tensor]]


def can_read(architecture: Architecture) -> bool:
    """Whether an architecture says where to read the activations of its neurons.

    Parameters
    ----------
    architecture : Architecture

    Returns
    -------
    bool
    """
    return bool(architecture.layers) or (architecture.module is not None and bool(architecture.taps))


class Moments:
    """Sums over examples from which the covariances of activations follow; one block after the other.

    The first block's means are taken off before anything is squared, so that little is lost to rounding.

    Examples
    --------
    >>> import torch
    >>> from wsflow.symmetry.readings import Moments
    >>> moments = Moments()
    >>> moments.add([("hidden", torch.tensor([[[1.0], [3.0]]]))], [("hidden", torch.tensor([[[2.0], [6.0]]]))])
    >>> [(name, round(value.item(), 6)) for name, value in moments.covariance() + moments.correlation()]
    [('hidden', 2.0), ('hidden', 1.0)]
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._counts: list[int] = []
        self._shifts: list[tuple[Tensor, Tensor]] = []
        self._sums: list[list[Tensor]] = []

    def add(self, first: Sequence[tuple[str, Tensor]], second: Sequence[tuple[str, Tensor]]) -> None:
        """Take in a block of activations.

        Parameters
        ----------
        first : sequence of (str, Tensor of shape (1 or n, b, neurons))
            The reference's: name of the group, and what was read.
        second : sequence of (str, Tensor of shape (n, b, neurons))
        """
        if not self._names:
            self._names = [name for name, _ in second]
            self._counts = [0] * len(second)
            self._shifts = [(a.mean(1, True), b.mean(1, True)) for (_, a), (_, b) in zip(first, second, strict=True)]
        for i, ((_, a), (_, b)) in enumerate(zip(first, second, strict=True)):
            a, b = a - self._shifts[i][0], b - self._shifts[i][1]
            terms = (a.sum(1), b.sum(1), a.square().sum(1), b.square().sum(1), a.transpose(1, 2) @ b)
            if i == len(self._sums):
                self._sums.append([term.new_zeros(term.shape, dtype=torch.float64) for term in terms])
            for total, term in zip(self._sums[i], terms, strict=True):
                total += term
            self._counts[i] += b.shape[1]

    def covariance(self) -> list[tuple[str, Tensor]]:
        """Covariances of all pairs.

        Returns
        -------
        list of (str, Tensor of shape (n, neurons, neurons))
        """
        return [(name, self._centred(i)[2]) for i, name in enumerate(self._names)]

    def correlation(self) -> list[tuple[str, Tensor]]:
        """Correlations of all pairs; those of constant neurons are zero.

        Returns
        -------
        list of (str, Tensor of shape (n, neurons, neurons))
        """
        return [(name, self._correlation(i)) for i, name in enumerate(self._names)]

    def _correlation(self, i: int) -> Tensor:
        var_a, var_b, covariance = self._centred(i)
        alive = [self._alive(var, shift) for var, shift in zip((var_a, var_b), self._shifts[i], strict=True)]
        both = alive[0].unsqueeze(2) & alive[1].unsqueeze(1)
        scale = (var_a.unsqueeze(2) * var_b.unsqueeze(1)).sqrt()
        both &= scale > 0
        return torch.where(both, covariance / torch.where(both, scale, 1.0), 0.0)

    @staticmethod
    def _alive(variance: Tensor, shift: Tensor) -> Tensor:
        """What rounding leaves of the variance of a constant neuron is nothing."""
        return variance > (torch.finfo(shift.dtype).eps * shift.squeeze(1).double()).square()

    def _centred(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        a, b, aa, bb, ab = (total / self._counts[i] for total in self._sums[i])
        return (aa - a.square()).clamp_min(0), (bb - b.square()).clamp_min(0), ab - a.unsqueeze(2) * b.unsqueeze(1)


@torch.no_grad()
def activations(weights: Tensor, architecture: Architecture, inputs: Tensor) -> Activations:
    """The activations of each neuron group, as far as they can be read.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture
        Of a sequential network, behind the activations; else where the taps are.
    inputs : Tensor of shape (b, ...)

    Returns
    -------
    list of (str, Tensor of shape (n, samples, neurons))
        By name of the group, which may be read in several places. Pixels and tokens are samples of their own.

    Raises
    ------
    ValueError
        If the architecture says neither how to run its networks nor where to read activations.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.readings import activations
    >>> read = activations(torch.zeros(5, 23), Architecture.mlp([4, 3, 2]), torch.zeros(7, 4))
    >>> [(name, tuple(hidden.shape)) for name, hidden in read]
    [('hidden1', (5, 7, 3))]
    """
    tensors = unflatten(weights, architecture)
    inputs = inputs.to(weights) if inputs.is_floating_point() else inputs.to(weights.device)
    if architecture.layers:
        return _of_layers(tensors, architecture, inputs)
    if not can_read(architecture):
        raise ValueError(
            "This architecture does not say where to read the activations of its neurons. Give it a module and taps, "
            "or match by weights."
        )
    return _of_taps(tensors, architecture, inputs)


def _of_layers(tensors: dict[str, Tensor], architecture: Architecture, inputs: Tensor) -> Activations:
    spaces = {parameter.name: parameter.blocks[0].axes[0] for parameter in architecture.parameters}
    result: dict[str, Tensor] = {}
    space = None
    for layer, hidden in run_layers(tensors, architecture, inputs):
        space = spaces[f"{layer.name}.weight"] if layer.kind == LINEAR else space
        if isinstance(space, NeuronGroup):
            result[space.name] = hidden
    return list(result.items())


def _of_taps(tensors: dict[str, Tensor], architecture: Architecture, inputs: Tensor) -> Activations:
    taps = _signed_alike(architecture)
    tapped = _Tapped(architecture.module, sorted({tap.layer for tap in taps}))
    outputs = run_module({f"module.{name}": tensor for name, tensor in tensors.items()}, tapped, inputs)
    result = []
    for tap in taps:
        # behind the axis of networks
        found = outputs[tap.layer].movedim(tap.axis + 1 if tap.axis >= 0 else tap.axis, -1)
        result.append((tap.group, found.reshape(len(found), -1, found.shape[-1])))
    return result


def _signed_alike(architecture: Architecture) -> list[Tap]:
    """The taps where a group's signs act as they do on the weights that produce it.

    A sign in front of a batch norm acts on what the convolution puts out, and not behind the norm, whose gain makes up
    for it. Where no tap is at a producer, all of them are read.
    """
    signs = {wire.name for wire in architecture.wires if {SIGN, FLIP} & wire.scalings}
    producers: dict[str, set[str]] = {}
    for parameter in architecture.parameters:
        for block in parameter.blocks if parameter.role == "weight" else ():
            for wire, axis, exponent in block.wires:
                space = block.axes[axis]
                if wire in signs and exponent > 0 and isinstance(space, NeuronGroup):
                    producers.setdefault(space.name, set()).add(parameter.name.rpartition(".")[0])
    read = {tap.group for tap in architecture.taps if tap.layer in producers.get(tap.group, set())}
    return [tap for tap in architecture.taps if tap.group not in read or tap.layer in producers[tap.group]]


class _Tapped(nn.Module):
    """A module that returns what some of its submodules put out."""

    def __init__(self, module: nn.Module, layers: list[str]) -> None:
        super().__init__()
        self.module, self.layers = module, layers

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Outputs of the tapped layers, by name."""
        outputs: dict[str, Tensor] = {}
        hooks = [
            self.module.get_submodule(layer).register_forward_hook(_keeper(outputs, layer)) for layer in self.layers
        ]
        try:
            self.module(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs


def _keeper(outputs: dict[str, Tensor], layer: str) -> Any:
    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        # an operation in place may follow
        outputs[layer] = (output[0] if isinstance(output, tuple) else output).clone()

    return keep
