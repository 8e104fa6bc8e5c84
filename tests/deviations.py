"""What exchanging neurons changes, where constants keep their places: every two of them, and random permutations."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wsflow.architecture import Architecture, NeuronGroup
from wsflow.architecture.readable import unwrapped
from wsflow.running import unflatten
from wsflow.running.execution import run_module
from wsflow.running.metrics import deviation
from wsflow.running.outputs import ChosenOutput
from wsflow.symmetry.actions import Action
from wsflow.tracing.certificate import random_weights
from wsflow.tracing.deterministic import deterministic
from wsflow.tracing.working_copy import working_copy

# networks that are run at a time, and random ones that are moved
CHUNK, NETWORKS = 64, 3


@torch.no_grad()
def smallest_deviation(
    table: Architecture, constants: Collection[str], module: nn.Module, inputs: Any, n_random: int = 1000, seed: int = 0
) -> float:
    """Return the least that any two neurons that change places, or a random permutation, change of the output.

    It is the largest change over inputs and over random networks, relative to the largest output, in float64, while
    constants do not move. Above rounding, none of these permutations is a symmetry.

    Parameters
    ----------
    table : Architecture
        Of the module as if its constants were weights, as `remaining_of_module` returns it.
    constants : collection of str
        Their names there.
    module : torch.nn.Module
    inputs : Tensor, or tuple of what the module takes
    n_random : int
        Number of random permutations of all groups.

    Returns
    -------
    float
        Infinite where there are no two neurons.
    """
    generator = torch.Generator().manual_seed(seed)
    # of one network, two neurons may both be dead
    networks = random_weights(table, NETWORKS, generator)
    run = _Runner(table, constants, module, inputs)
    before, least = run(networks), float("inf")
    every = [*_transpositions(table), Action.random(table, n_random, generator)]
    for action in every:
        action = replace(action, scales={}, phases={})
        for rows in torch.arange(len(action)).split(CHUNK):
            part = action.rows(rows)
            moves = (part.sources != torch.arange(table.n_weights)).any(1)
            if not moves.any():
                continue
            changes = [
                deviation(own.expand(len(rows), -1), run(part(network.repeat(len(rows), 1))))
                for network, own in zip(networks, before, strict=True)
            ]
            least = min(least, float(torch.stack(changes).amax(0)[moves].min()))
    return least


class _Runner:
    """Runs networks (n, d) of a table with the module's own constants, and returns their outputs (n, numbers)."""

    def __init__(self, table: Architecture, constants: Collection[str], module: nn.Module, inputs: Any) -> None:
        self.table, self.constants = table, set(constants)
        self.module = working_copy(unwrapped(module), ChosenOutput())
        given = inputs if type(inputs) is tuple else (inputs,)
        self.inputs = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in given]

    def __call__(self, rows: Tensor) -> Tensor:
        tensors = {name: x for name, x in unflatten(rows, self.table).items() if name not in self.constants}
        with deterministic():
            outputs = tree_leaves(run_module(tensors, self.module, *self.inputs))
        return torch.cat([x.reshape(len(rows), -1) for x in outputs if x.is_floating_point()], 1)


def _transpositions(table: Architecture) -> Iterator[Action]:
    """Yield, for each group, the exchanges of any two neurons of one parent; what is nested in them moves along."""
    for group in table.groups:
        parents = group.parent.total if group.parent is not None else 1
        pairs = [
            (parent * group.size + i, parent * group.size + j)
            for parent in range(parents)
            for i, j in combinations(range(group.size), 2)
        ]
        if pairs:
            order = torch.arange(group.total).repeat(len(pairs), 1)
            first, second = torch.tensor(pairs).T
            every = torch.arange(len(pairs))
            order[every, first], order[every, second] = second, first
            yield Action(table, {group.name: order, **_with_parents(table, group, order)}, {})


def _with_parents(table: Architecture, group: NeuronGroup, order: Tensor) -> dict[str, Tensor]:
    """Return the permutations of groups that are nested in a group whose neurons move."""
    found: dict[str, Tensor] = {group.name: order}
    for child in table.groups:
        if isinstance(child.parent, NeuronGroup) and child.parent.name in found:
            above = found[child.parent.name]
            within = torch.arange(child.size)
            found[child.name] = (above.unsqueeze(-1) * child.size + within).reshape(len(order), -1)
    return found
