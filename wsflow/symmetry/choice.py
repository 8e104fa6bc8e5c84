"""Choosing among actions, network by network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.symmetry.actions import Action, space_index
from wsflow.symmetry.examples import Examples


class Best:
    """The best action so far, for each network.

    The best is the one with the lowest loss at the midpoint of the network and its reference. Below the mean loss of
    the two ends nothing is better than something else: there, as without examples, the nearest one is the best.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    examples : Examples, optional

    Attributes
    ----------
    action : Action
        The identity, until something is offered.
    cost : Tensor of shape (n,)
        Loss at the midpoint, but at least the ends'; zero without examples.
    distance : Tensor of shape (n,)
        Squared distance to the reference.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.choice import Best
    >>> architecture, w = Architecture.mlp([4, 3, 2]), torch.arange(23.0).reshape(1, 23)
    >>> stay, swap = (Action(architecture, {"hidden1": torch.tensor([p])}, {}) for p in ([0, 1, 2], [1, 0, 2]))
    >>> best = Best(swap(w), w, architecture)
    >>> _ = best.offer(stay), best.offer(swap)
    >>> best.action.permutations["hidden1"].tolist(), best.distance.tolist()
    ([[1, 0, 2]], [0.0])
    """

    def __init__(
        self, weights: Tensor, reference: Tensor, architecture: Architecture, examples: Examples | None = None
    ) -> None:
        self.action = Action.identity(architecture, len(weights))
        self.cost = weights.new_full((len(weights),), torch.inf)
        self.distance = self.cost.clone()
        self._weights, self._reference, self._examples = weights, reference, examples
        self._ends = torch.zeros_like(self.cost)
        if examples is not None:
            ends = examples.evaluate(reference.reshape(-1, reference.shape[-1]))
            self._ends = (examples.evaluate(weights) + ends) / 2

    @property
    def excess(self) -> Tensor:
        """Tensor of shape (n,): the loss at the midpoint above the mean of the ends', not negative."""
        return self.cost - self._ends

    def offer(self, action: Action) -> Tensor:
        """Take an action where it is better than the best so far, by more than rounding.

        Parameters
        ----------
        action : Action

        Returns
        -------
        Tensor of shape (n, d)
            The networks that it has moved.
        """
        moved = action(self._weights)
        distance = (moved - self._reference).square().sum(1)
        cost = torch.zeros_like(distance)
        if self._examples is not None:
            cost = self._examples.evaluate((moved + self._reference) / 2)
            # a loss that is not finite is worse than every other one
            cost = torch.where(cost.isfinite(), torch.maximum(cost, self._ends), torch.finfo(cost.dtype).max)
        lower, higher = _less(cost, self.cost), _less(self.cost, cost)
        better = lower | (~higher & _less(distance, self.distance))
        self.action = where(better.cpu(), action, self.action)
        self.cost = torch.where(better, cost, self.cost)
        self.distance = torch.where(better, distance, self.distance)
        return moved


def _less(first: Tensor, second: Tensor) -> Tensor:
    """Whether numbers that are not negative are smaller, by more than rounding."""
    return first < second * (1 - 16 * torch.finfo(second.dtype).eps)


def where(condition: Tensor, first: Action, second: Action) -> Action:
    """The group elements of one action where a condition holds, else those of another.

    Parameters
    ----------
    condition : BoolTensor of shape (n,)
    first, second : Action

    Returns
    -------
    Action
    """
    first, second = alike((first, second))
    chosen = condition.unsqueeze(1)

    def mixed(ones: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.where(chosen, one, others[name].to(one)) for name, one in ones.items()}

    return Action(
        first.architecture,
        mixed(first.permutations, second.permutations),
        mixed(first.scales, second.scales),
        mixed(first.phases, second.phases),
    )


def alike(actions: Sequence[Action]) -> list[Action]:
    """The same actions, which all name the same groups and wires.

    Parameters
    ----------
    actions : sequence of Action
        Of one architecture.

    Returns
    -------
    list of Action
    """
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


def replaced(action: Action, chosen: Tensor, some: Action) -> Action:
    """An action with the group elements of some of the networks replaced.

    Parameters
    ----------
    action : Action
        Of n networks.
    chosen : BoolTensor of shape (n,)
    some : Action
        Of the networks that are chosen.

    Returns
    -------
    Action
    """
    return where(chosen, some.rows((chosen.cumsum(0) - 1).clamp_min(0)), action)


def concatenated(architecture: Architecture, actions: Sequence[Action]) -> Action:
    """The group elements of several actions, one after the other.

    Parameters
    ----------
    architecture : Architecture
    actions : sequence of Action

    Returns
    -------
    Action
    """
    if not actions:
        return Action.identity(architecture, 0)
    first, *_ = actions = alike(actions)
    parts = ([getattr(action, part) for action in actions] for part in ("permutations", "scales", "phases"))
    names = (first.permutations, first.scales, first.phases)
    return Action(
        architecture,
        *({k: torch.cat([d[k] for d in dicts]) for k in keys} for keys, dicts in zip(names, parts, strict=True)),
    )
