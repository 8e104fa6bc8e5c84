"""Functionals of networks that guidance descends: a task's loss, robustness, sparsity, fairness, and their sums.

A functional is any differentiable callable from weights (n, d), a tensor, to values (n,), each of its own network.
Those of this file run networks, so they are bound to an architecture first, and to a generator for their minibatches.

References
----------
Goodfellow, Shlens and Szegedy 2015, arXiv:1412.6572 (the fast gradient sign method); Hoyer 2004,
arXiv:cs/0408058 (sparseness); Dwork et al. 2012, arXiv:1104.3913 (statistical parity).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.running import forward, losses, matched, predictions, tensors_of
from wsflow.running.compatibility import check_task
from wsflow.task import Task

Bound = Callable[[Tensor], Tensor]


class Functional(ABC):
    """What knows how to value networks of an architecture; sums and multiples of functionals are functionals."""

    @abstractmethod
    def bind(self, architecture: Architecture, generator: torch.Generator) -> Bound:
        """Return the map from weights (n, d) to values (n,), with minibatches and noise from a generator."""

    def __add__(self, other: Functional) -> Sum:
        return Sum((*_terms(self), *_terms(other)))

    def __mul__(self, factor: float) -> Sum:
        return Sum(tuple((factor * weight, term) for weight, term in _terms(self)))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Sum(Functional):
    """sum_k w_k f_k.

    Parameters
    ----------
    terms : tuple of (float, Functional or callable)
        A plain callable maps weights (n, d) to values (n,).

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Task
    >>> from wsflow.objectives.functionals import Sparsity, TaskLoss
    >>> both = TaskLoss(Task(np.eye(4), [0, 1, 0, 1])) + 0.1 * Sparsity("hoyer")
    >>> [weight for weight, _ in both.terms]
    [1.0, 0.1]
    """

    terms: tuple[tuple[float, Any], ...]

    def bind(self, architecture: Architecture, generator: torch.Generator) -> Bound:
        bound = [(weight, bind(term, architecture, generator)) for weight, term in self.terms]
        return lambda weights: torch.stack([w * f(weights) for w, f in bound]).sum(0)


@dataclass(frozen=True)
class TaskLoss(Functional):
    """The mean loss on a task.

    Parameters
    ----------
    task : Task
    batch_size : int, optional
        Examples of a fresh minibatch at each evaluation, the same for all networks; None takes all.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from wsflow import Architecture, Task
    >>> from wsflow.objectives.functionals import TaskLoss
    >>> loss = TaskLoss(Task(np.eye(4), [0, 1, 0, 1])).bind(Architecture.mlp([4, 3, 2]), torch.Generator())
    >>> loss(torch.zeros(2, 23))
    tensor([0.6931, 0.6931])
    """

    task: Task
    batch_size: int | None = None

    def bind(self, architecture: Architecture, generator: torch.Generator) -> Bound:
        draw = minibatches(self.task, self.batch_size, architecture, generator)

        def loss(weights: Tensor) -> Tensor:
            inputs, targets, share = draw(weights)
            return losses(forward(weights, architecture, inputs), targets, self.task.loss, share)

        return loss


def by_noise(
    weights: Tensor, architecture: Architecture, batch: tuple[Tensor, Tensor], loss: Any, generator: torch.Generator
) -> Tensor:
    """Standard normal directions (b, p), one draw for all networks."""
    inputs, _ = batch
    return torch.randn(inputs.shape, generator=generator, dtype=torch.float32).to(inputs)


def by_sign(
    weights: Tensor, architecture: Architecture, batch: tuple[Tensor, Tensor], loss: Any, generator: torch.Generator
) -> Tensor:
    """The signs (n, b, p) of each network's own gradient of the loss by its inputs (the fast gradient sign method)."""
    inputs, targets = batch
    with torch.enable_grad():
        leaf = inputs.expand(len(weights), *inputs.shape).clone().requires_grad_()
        total = losses(forward(weights.detach(), architecture, leaf), targets, loss).sum()
        return torch.autograd.grad(total, leaf)[0].sign()


ATTACKS: dict[str, Callable[..., Tensor]] = {"noise": by_noise, "sign": by_sign}


@dataclass(frozen=True)
class Robustness(Functional):
    """The mean loss on a task whose inputs are disturbed.

    Parameters
    ----------
    task : Task
    radius : float
        Of the disturbance: standard deviation of noise, or the change of each input by its sign.
    attack : {"noise", "sign"}
        Noise, or one step of the fast gradient sign method against each network.
    batch_size : int, optional

    Raises
    ------
    ValueError
        If there is no such attack.
    """

    task: Task
    radius: float = 0.1
    attack: str = "noise"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        _check("attack", self.attack, ATTACKS)

    def bind(self, architecture: Architecture, generator: torch.Generator) -> Bound:
        draw = minibatches(self.task, self.batch_size, architecture, generator)
        attack = ATTACKS[self.attack]
        if self.task.X.dtype.kind != "f":
            raise ValueError(
                f"Robustness disturbs inputs of real numbers, and those of this task are {self.task.X.dtype}. Use the "
                "loss of the task, or another functional."
            )

        def loss(weights: Tensor) -> Tensor:
            inputs, targets, share = draw(weights)
            worse = attack(weights, architecture, (inputs, targets), self.task.loss, generator)
            return losses(forward(weights, architecture, inputs + self.radius * worse), targets, self.task.loss, share)

        return loss


def mean_size(weights: Tensor) -> Tensor:
    """The mean of |w| for each network."""
    return weights.abs().mean(1)


def density(weights: Tensor) -> Tensor:
    """(|w|_1 / |w|_2 - 1) / (sqrt(d) - 1), which is one minus Hoyer's sparseness.

    It is 0 for a single weight and 1 where all are equally large, at any scale.

    Examples
    --------
    >>> import torch
    >>> from wsflow.objectives.functionals import density
    >>> density(torch.tensor([[3.0, 0.0, 0.0, 0.0], [2.0, -2.0, 2.0, 2.0]]))
    tensor([0., 1.])
    """
    length = torch.linalg.vector_norm(weights, dim=1).clamp_min(torch.finfo(weights.dtype).tiny)
    return (weights.abs().sum(1) / length - 1) / (weights.shape[1] ** 0.5 - 1)


PENALTIES: dict[str, Bound] = {"l1": mean_size, "hoyer": density}


@dataclass(frozen=True)
class Sparsity(Functional):
    """How far weights are from sparse.

    Parameters
    ----------
    penalty : {"l1", "hoyer"}

    Raises
    ------
    ValueError
        If there is no such penalty.
    """

    penalty: str = "l1"

    def __post_init__(self) -> None:
        _check("penalty", self.penalty, PENALTIES)

    def bind(self, architecture: Architecture, generator: torch.Generator) -> Bound:
        """As `Functional.bind`; nothing is drawn."""
        return PENALTIES[self.penalty]


@dataclass(frozen=True, eq=False)
class Fairness(Functional):
    """The gap of demographic parity: how much mean predictions differ between a group and the others.

    For a classification it is the total variation between the two mean distributions, which for two classes is the
    difference of the rates of a positive answer; for several labels the mean of those of each label, and for a
    regression the mean absolute difference of mean predictions.

    Parameters
    ----------
    task : Task
        Only its inputs are used, with their weights.
    group : array-like of bool, shape (b,)
        Who belongs to the group.

    Raises
    ------
    ValueError
        If the group has not one truth value for each example, or is all or nobody.
    """

    task: Task
    group: Any

    def __post_init__(self) -> None:
        group, weights = np.asarray(self.group), self.task.weights
        counted = group if weights is None or group.shape != weights.shape else group[weights > 0]
        if group.dtype != np.bool_ or group.shape != (len(self.task.X),) or counted.all() or not counted.any():
            raise ValueError(
                f"The 'group' of Fairness says of each of the {len(self.task.X)} examples, by True or False, whether "
                f"it is in the group, and neither all nor none are; got {group.dtype} of shape {group.shape}."
            )
        object.__setattr__(self, "group", group)

    def bind(self, architecture: Architecture, generator: torch.Generator) -> Bound:
        """As `Functional.bind`; nothing is drawn."""
        draw = minibatches(self.task, None, architecture, generator)
        group = torch.from_numpy(self.group if self.task.weights is None else self.group[self.task.weights > 0])

        def gap(weights: Tensor) -> Tensor:
            inputs, _, share = draw(weights)
            predicted = predictions(forward(weights, architecture, inputs), self.task.loss)
            difference = (_mean(predicted, group, share) - _mean(predicted, ~group, share)).abs()
            one_distribution = self.task.is_classification and self.task.n_labels == 1
            return 0.5 * difference.sum(1) if one_distribution else difference.mean(1)

        return gap


def as_functional(objective: Any, batch_size: int | None = None) -> Any:
    """Turn a task into its loss, and give a functional without a batch size the one given.

    A TypeError says that it is no task, functional or callable.
    """
    if isinstance(objective, Task):
        return TaskLoss(objective, batch_size)
    if not callable(objective) and not isinstance(objective, Functional):
        raise TypeError(
            f"Guidance descends a Task, a functional of wsflow.objectives.functionals, or a callable from weights "
            f"(n, d) to values (n,), got {type(objective).__name__}."
        )
    if batch_size is not None and getattr(objective, "batch_size", batch_size) is None:
        return replace(objective, batch_size=batch_size)
    return objective


def bind(objective: Any, architecture: Architecture, generator: torch.Generator) -> Bound:
    """Bind a functional to an architecture, or check what a plain callable returns: values (n,) for weights (n, d)."""
    if isinstance(objective, Functional):
        return objective.bind(architecture, generator)

    def checked(weights: Tensor) -> Tensor:
        values = objective(weights)
        if not isinstance(values, Tensor) or values.shape != weights.shape[:1]:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"A functional gives one value for each of the {len(weights)} networks, as a tensor of shape "
                f"({len(weights)},), got {got}."
            )
        return values

    return checked


def minibatches(
    task: Task, batch_size: int | None, architecture: Architecture, generator: torch.Generator
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]:
    """Return what draws inputs (b, p), targets and weights in the precision of networks' weights; None takes all.

    They are drawn with replacement. An InvalidInputError says that the task is not one of these networks.
    """
    check_task(architecture, task)
    inputs, targets, shares = tensors_of(task)

    def draw(weights: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        rows = slice(None) if batch_size is None else torch.randint(len(inputs), (batch_size,), generator=generator)
        share = None if shares is None else shares[rows].to(weights)
        return matched(inputs[rows], weights), matched(targets[rows], weights), share

    return draw


def _mean(predicted: Tensor, group: Tensor, share: Tensor | None) -> Tensor:
    """Return the mean prediction (n, k) of a group, whose members may have weights."""
    if share is None:
        return predicted[:, group].mean(1)
    return torch.einsum("b,nbk->nk", share[group] / share[group].sum(), predicted[:, group])


def _terms(functional: Any) -> tuple[tuple[float, Any], ...]:
    return functional.terms if isinstance(functional, Sum) else ((1.0, functional),)


def _check(name: str, value: str, table: dict[str, Any]) -> None:
    if value not in table:
        raise ValueError(f"The {name!r} of a functional is one of {tuple(table)}, got {value!r}.")
