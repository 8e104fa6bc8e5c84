"""The channel groups of wsflow's tracer against torch-pruning's dependency graph, which finds them from autograd.

Pruning a channel and permuting it need the same thing: every layer that has it on an axis (Fang et al. 2023,
"DepGraph", arXiv:2301.12900). It does not know padded shortcuts, transposed tokens or flattened concatenations, where
it takes channels for one that are not; those networks are left to the certificate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import zoo
from torch import nn

from wsflow import Architecture
from wsflow.architecture.spaces import groups_of

pruning = pytest.importorskip("torch_pruning")

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
# the layers in which a group of channels leaves (0) and enters (1)
Group = frozenset[tuple[str, int]]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "VGG": (zoo.vgg, (2, 3, 8, 8)),
    "ResNet-18": (lambda: zoo.ResNet18(4), (2, 3, 32, 32)),
    "U-Net": (zoo.UNet, (2, 1, 8, 8)),
    "separable": (zoo.Separable, (2, 3, 8, 8)),
    "ConvNeXt": (zoo.ConvNeXt, (2, 3, 8, 8)),
    "plain": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 2)), (3, 4)),
}


def of_torch_pruning(module: nn.Module, example: torch.Tensor) -> set[Group]:
    """Its groups, without the one of the outputs, which may be pruned and not permuted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = pruning.DependencyGraph().build_dependency(module, example_inputs=example)
        found = list(graph.get_all_groups(root_module_types=list(LAYERS)))
    names = {child: name for name, child in module.named_modules()}
    result = set()
    for group in found:
        members = set()
        for dependency, _ in group:
            layer = dependency.target.module
            if isinstance(layer, LAYERS):
                kind = dependency.handler.__name__
                depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
                members.add((names[layer], 0 if depthwise or "out" in kind else 1))
        if any(axis == 1 for _, axis in members):
            result.add(frozenset(members))
    return result


def of_wsflow(module: nn.Module, example: torch.Tensor) -> set[Group]:
    """The layers on whose axes each neuron group acts."""
    architecture = Architecture.from_module(module, example)
    transposed = {n for n, child in module.named_modules() if isinstance(child, nn.ConvTranspose2d)}
    kinds = {name for name, child in module.named_modules() if isinstance(child, LAYERS)}
    members: dict[str, set[tuple[str, int]]] = {group.name: set() for group in architecture.groups}
    for parameter in architecture.parameters:
        layer, _, kind = parameter.name.rpartition(".")
        if kind != "weight" or layer not in kinds:
            continue
        for block in parameter.blocks:
            for axis, space in enumerate(block.axes):
                for group in groups_of(space):
                    first = int(axis == 0) if layer in transposed else int(axis != 0)
                    members[group.name].add((layer, first))
    return {frozenset(own) for own in members.values()}


@pytest.mark.parametrize("name", NETWORKS)
def test_channel_groups_are_those_of_the_dependency_graph(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module, example = make().eval(), torch.randn(shape)
    assert of_wsflow(module, example) == of_torch_pruning(module, example)
