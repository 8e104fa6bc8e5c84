"""Layers that are alike: exchanging all their weights keeps the function, and is in no group of an architecture.

A symmetry of an architecture acts within parameters. The members of an ensemble that have parameters of their own, and
the pieces of a maxout unit that are layers, can change places as well; what cannot be aligned is found here by trying.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from wsflow.architecture import Architecture, Parameter
from wsflow.tracing.certificate import TOLERANCE, Check


def exchangeable_layers(
    architecture: Architecture, module: nn.Module | None, inputs: Any, n_trials: int = 3, seed: int = 0
) -> tuple[tuple[str, ...], ...]:
    """Return names of layers that can exchange all their weights, which no permutation within parameters does.

    Layers within one, whose parameters have the same names and shapes, are tried in random networks, each with the next
    such layer: one pass for each.

    Parameters
    ----------
    n_trials : int
        Number of random networks.

    Returns
    -------
    tuple of tuple of str
        Layers that change places without a change of outputs above 1e-10, outer ones first.

    Raises
    ------
    NumericalError
        If random weights give outputs that are not finite, or all zero.
    ValueError
        If there are no inputs for a network that a module runs.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.tracing import exchangeable_layers
    >>> class Ensemble(nn.ModuleList):
    ...     def forward(self, x):
    ...         return torch.stack([member(x) for member in self]).mean(0)
    >>> ensemble = Ensemble(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)) for _ in range(3))
    >>> exchangeable_layers(Architecture.from_module(ensemble, torch.zeros(5, 4)), ensemble, torch.randn(5, 4))
    (('0', '1', '2'),)
    """
    candidates = _candidates(architecture)
    if not candidates:
        return ()
    generator = torch.Generator().manual_seed(seed)
    check = Check(architecture, module, inputs, generator)
    rows, before = check.with_live_outputs(n_trials, generator)
    found: list[tuple[str, ...]] = []
    for layers in candidates:
        run: tuple[str, ...] = (layers[0],)
        for here, there in pairwise(layers):
            if check.deviation(before, _exchanged(rows, architecture, here, there)) <= TOLERANCE:
                run += (there,)
            else:
                found.append(run)
                run = (there,)
        found.append(run)
    return tuple(run for run in found if len(run) > 1)


def _candidates(architecture: Architecture) -> list[Sequence[str]]:
    """Return layers within the same layer whose parameters have the same names, shapes and roles, by kind."""
    kinds: dict[tuple[str, Any], list[str]] = defaultdict(list)
    layers: dict[str, None] = {}
    for name in architecture.names:
        parts = name.split(".")
        layers |= dict.fromkeys(".".join(parts[:i]) for i in range(1, len(parts)))
    for layer in sorted(layers, key=lambda name: name.count(".")):
        own = tuple((p.name[len(layer) :], p.shape, p.role) for p in _parameters(architecture, layer))
        kinds[layer.rpartition(".")[0], own].append(layer)
    return [found for found in kinds.values() if len(found) > 1]


def _parameters(architecture: Architecture, layer: str) -> list[Parameter]:
    return [parameter for parameter in architecture.parameters if parameter.name.startswith(f"{layer}.")]


def _exchanged(rows: Tensor, architecture: Architecture, here: str, there: str) -> Tensor:
    """Return networks (n, d) in which two layers have changed places."""
    result = rows.clone()
    for a, b in zip(_parameters(architecture, here), _parameters(architecture, there), strict=True):
        left, right = architecture.slices[a.name], architecture.slices[b.name]
        result[:, left], result[:, right] = rows[:, right], rows[:, left]
    return result
