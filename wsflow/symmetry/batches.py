"""Batches of group elements: chosen row by row, concatenated, or extended to a larger group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.symmetry.actions import Action, space_index


def where(condition: Tensor, first: Action, second: Action) -> Action:
    """Return the group elements of one action where a condition (n,) holds, else those of another."""
    first, second = _with_equal_names((first, second))
    chosen = condition.unsqueeze(1)

    def mixed(ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.where(chosen, one, others[name].to(one)) for name, one in ones.items()}

    return Action(
        first.architecture,
        mixed(first.permutations, second.permutations),
        mixed(first.scales, second.scales),
        mixed(first.phases, second.phases),
    )


def replaced(action: Action, chosen: Tensor, replacement: Action) -> Action:
    """Return an action with the group elements of the chosen networks (n,) replaced by those of a smaller one."""
    return where(chosen, replacement.rows((chosen.cumsum(0) - 1).clamp_min(0)), action)


def concatenate(architecture: Architecture, actions: Sequence[Action]) -> Action:
    """Return the group elements of several actions, one after the other."""
    if not actions:
        return Action.identity(architecture, 0)
    first, *_ = actions = _with_equal_names(actions)
    parts = ([getattr(action, part) for action in actions] for part in ("permutations", "scales", "phases"))
    names = (first.permutations, first.scales, first.phases)
    return Action(
        architecture,
        *({k: torch.cat([d[k] for d in dicts]) for k in keys} for keys, dicts in zip(names, parts, strict=True)),
    )


def extended(action: Action, architecture: Architecture, n: int) -> Action:
    """Return an action of a restricted architecture as one of the whole that leaves the fixed groups as they are."""
    identity = Action.identity(architecture, n).permutations
    return Action(architecture, {**identity, **action.permutations}, action.scales, action.phases)


def _with_equal_names(actions: Sequence[Action]) -> list[Action]:
    """Return the same actions of one architecture, which all name the same groups and wires."""
    scaled, shifted = (sorted({name for a in actions for name in getattr(a, part)}) for part in ("scales", "phases"))
    dtype = next((s.dtype for action in actions for s in action.scales.values()), torch.get_default_dtype())

    def completed(action: Action) -> Action:
        architecture, n = action.architecture, len(action)
        totals = {wire.name: wire.space.total for wire in architecture.wires}
        scales = {name: torch.ones(n, totals[name], dtype=dtype) for name in scaled}
        phases = {name: torch.zeros(n, totals[name], dtype=torch.long) for name in shifted}
        permutations = {group.name: space_index(group, action.permutations, n) for group in architecture.groups}
        return Action(architecture, permutations, {**scales, **action.scales}, {**phases, **action.phases})

    return [completed(action) for action in actions]
