"""Activations of the neuron groups of n networks, and their covariances and correlations over examples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.activations import FLIP, SIGN
from wsflow.architecture import ActivationSite, Architecture, NeuronGroup
from wsflow.running.execution import evaluation_run, run_module
from wsflow.running.rows import unflatten
from wsflow.running.runner import Run

# (name of the neuron group, activations (n, samples, neurons)); a group may be read in several layers
Activations = list[tuple[str, Tensor]]


def has_activations(architecture: Architecture) -> bool:
    """Return whether an architecture says where to read the activations of its neurons."""
    return bool(architecture.layers) or (architecture.is_runnable and bool(architecture.activation_sites))


def check_has_activations(architecture: Architecture) -> None:
    """Refuse, by a ValueError, an architecture that says neither how to run its networks nor where to read them."""
    if not has_activations(architecture):
        raise ValueError(
            "This architecture does not say where to read the activations of its neurons. Give it a module and "
            "activation_sites, or match by weights."
        )


@torch.no_grad()
def activations(weights: Tensor, architecture: Architecture, inputs: Tensor) -> Activations:
    """Return the activations of weights (n, d) on inputs (b, ...); pixels and tokens are samples of their own.

    Those of sequential networks are read behind the activation function, all others where the sites are.

    Raises
    ------
    ValueError
        If the architecture says neither how to run its networks nor where to read activations.
    """
    check_has_activations(architecture)
    tensors = unflatten(weights, architecture)
    inputs = inputs.to(weights) if inputs.is_floating_point() else inputs.to(weights.device)
    if architecture.layers and (run := evaluation_run(tensors, architecture)):
        return _of_layers(run, architecture, inputs)
    return _of_sites(tensors, architecture, inputs)


def _of_layers(run: Run, architecture: Architecture, inputs: Tensor) -> Activations:
    # a block may view one number without an axis
    spaces = {p.name: next(iter(p.blocks[0].axes), None) for p in architecture.parameters if p.blocks}
    found: dict[str, Tensor] = {}
    space = None
    for operation, _, result in run.operations(inputs):
        space = spaces.get(f"{operation.layer}.weight") if operation.base == "linear" else space
        if isinstance(space, NeuronGroup):
            found[space.name] = result.value
    return list(found.items())


def _of_sites(tensors: dict[str, Tensor], architecture: Architecture, inputs: Tensor) -> Activations:
    sites = _taps(architecture)
    observed = _Observed(architecture.executable, sorted({site.layer for site in sites}))
    outputs = run_module({f"module.{name}": tensor for name, tensor in tensors.items()}, observed, inputs)
    result = []
    for site in sites:
        # behind the axis of networks
        found = outputs[site.layer].movedim(site.axis + 1 if site.axis >= 0 else site.axis, -1)
        result.append((site.group, found.reshape(len(found), -1, found.shape[-1])))
    return result


def _taps(architecture: Architecture) -> list[ActivationSite]:
    """Return the sites where a group's signs act as they do on the weights that produce it.

    A sign in front of a batch norm acts on what the convolution puts out, and not behind the norm, whose gain makes up
    for it. Where no site is at a producer, all of them are read. Layers of which a program has no operation, such as a
    dropout of nothing, are no sites, so that the module and its program have the same ones.
    """
    program = architecture.program
    layers = None if program is None else {operation.layer for operation in program.operations}
    sites = [site for site in architecture.activation_sites if layers is None or site.layer in layers]
    signs = {wire.name for wire in architecture.wires if {SIGN, FLIP} & wire.scalings}
    producers: dict[str, set[str]] = {}
    for parameter in architecture.parameters:
        for block in parameter.blocks if parameter.role == "weight" else ():
            for wire, axis, exponent in block.wires:
                space = block.axes[axis]
                if wire in signs and exponent > 0 and isinstance(space, NeuronGroup):
                    producers.setdefault(space.name, set()).add(parameter.name.rpartition(".")[0])
    at_producer = {site.group for site in sites if site.layer in producers.get(site.group, set())}
    return [site for site in sites if site.group not in at_producer or site.layer in producers[site.group]]


class _Observed(nn.Module):
    """A module that returns the outputs of the named submodules."""

    def __init__(self, module: nn.Module, layers: list[str]) -> None:
        super().__init__()
        self.module, self.layers = module, layers

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the observed layers, by name."""
        outputs: dict[str, Tensor] = {}

        def keep(layer: str, _: nn.Module, __: Any, output: Any) -> None:
            # an operation in place may follow
            outputs[layer] = (output[0] if isinstance(output, tuple) else output).clone()

        hooks = [self.module.get_submodule(name).register_forward_hook(partial(keep, name)) for name in self.layers]
        try:
            self.module(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs


class Moments:
    """Sums over examples, one batch after the other, from which covariances of activations follow.

    The means of the first batch are subtracted before anything is squared, so that little is lost to rounding.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._counts: list[int] = []
        self._shifts: list[tuple[Tensor, Tensor]] = []
        self._sums: list[list[Tensor]] = []

    def add(self, first: Sequence[tuple[str, Tensor]], second: Sequence[tuple[str, Tensor]]) -> None:
        """Add a batch of activations: the reference's (1 or n, b, neurons) and those of n networks."""
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
        """Return the covariances (n, neurons, neurons) of the reference's neurons with those of each network."""
        return [(name, self._centred(i)[2]) for i, name in enumerate(self._names)]

    def correlation(self) -> list[tuple[str, Tensor]]:
        """Return the correlations (n, neurons, neurons); those of constant neurons are zero."""
        return [(name, self._correlation(i)) for i, name in enumerate(self._names)]

    def _correlation(self, i: int) -> Tensor:
        var_a, var_b, covariance = self._centred(i)
        # more than rounding leaves to a constant neuron
        least = [(torch.finfo(x.dtype).eps * x.squeeze(1).double()).square() for x in self._shifts[i]]
        varies = [var > rounding for var, rounding in zip((var_a, var_b), least, strict=True)]
        scale = (var_a.unsqueeze(2) * var_b.unsqueeze(1)).sqrt()
        both = varies[0].unsqueeze(2) & varies[1].unsqueeze(1) & (scale > 0)
        return torch.where(both, covariance / torch.where(both, scale, 1.0), 0.0)

    def _centred(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        a, b, aa, bb, ab = (total / self._counts[i] for total in self._sums[i])
        return (aa - a.square()).clamp_min(0), (bb - b.square()).clamp_min(0), ab - a.unsqueeze(2) * b.unsqueeze(1)
