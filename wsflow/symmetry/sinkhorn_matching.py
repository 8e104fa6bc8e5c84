"""Sinkhorn re-basin: gradient descent on soft permutations, which end as hard ones.

A doubly stochastic matrix P = Sinkhorn(S / T) for each neuron group moves the network; the scores S descend on a loss
while the temperature T falls, and an assignment rounds what they arrive at. The losses are

    l2        |r - P w|^2
    midpoint  L((r + P w) / 2)
    random    L((1 - t) r + t P w),  t uniform in (0, 1), drawn at each step

The scores start as correlations of activations (or cosines of weights) instead of at random, as in the paper: on
MLPs, midpoints from there are far better.

References
----------
Pena, Medeiros, Dubail, Aminbeidokhti, Granger and Pedersoli 2023, "Re-basin via implicit Sinkhorn
differentiation", arXiv:2212.12042.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.running.activation_statistics import has_activations
from wsflow.symmetry.actions import Action
from wsflow.symmetry.activation_matching import activation_matching, activation_scores, weight_scores
from wsflow.symmetry.choice import Best, concatenated
from wsflow.symmetry.examples import Examples, rows_at_once
from wsflow.symmetry.matching import weight_matching
from wsflow.symmetry.relaxation import Relaxation, Scores
from wsflow.symmetry.sinkhorn import sinkhorn

TaskTensors = tuple[Tensor, Tensor, str]
# of the rounded permutations, compared so many times on the way
CHECKS = 10
# examples for comparing permutations, and for comparing activations
SELECTION, READ = 2048, 4096


def _l2(moved: Tensor, reference: Tensor, examples: Examples | None, generator: torch.Generator) -> Tensor:
    return (moved - reference).square().sum(1)


def _midpoint(moved: Tensor, reference: Tensor, examples: Examples | None, generator: torch.Generator) -> Tensor:
    assert examples is not None
    return examples.losses((moved + reference) / 2)


def _random(moved: Tensor, reference: Tensor, examples: Examples | None, generator: torch.Generator) -> Tensor:
    assert examples is not None
    t = torch.rand((), generator=generator).item()
    return examples.losses(torch.lerp(reference, moved, t))


LOSSES: dict[str, Callable[[Tensor, Tensor, Examples | None, torch.Generator], Tensor]] = {
    "l2": _l2,
    "midpoint": _midpoint,
    "random": _random,
}


@dataclass(frozen=True)
class Schedule:
    """How soft permutations descend.

    Parameters
    ----------
    steps : int
    learning_rate : float
        Of Adam, on scores that start between 0 and 1.
    temperatures : (float, float)
        First and last; between them they fall geometrically.
    iterations : int
        Of Sinkhorn in each step, from the potentials of the step before.
    batch_size : int
        Examples in each step.
    differentiation : {"implicit", "unrolled"}
    tolerance : float
        The descent ends where no midpoint's loss exceeds the mean of the ends' by more, in parts of the loss of a
        constant prediction.
    """

    steps: int = 150
    learning_rate: float = 0.02
    temperatures: tuple[float, float] = (0.2, 0.02)
    iterations: int = 5
    batch_size: int = 256
    differentiation: str = "implicit"
    tolerance: float = 0.0

    def temperature(self, step: int) -> float:
        """The temperature of a step.

        Parameters
        ----------
        step : int

        Returns
        -------
        float
        """
        first, last = self.temperatures
        return float(first * (last / first) ** (step / max(self.steps, 1)))


def sinkhorn_matching(
    weights: Tensor,
    reference: Tensor,
    architecture: Architecture,
    task_tensors: TaskTensors | None = None,
    *,
    loss: str = "l2",
    differentiation: str = "implicit",
    generator: torch.Generator | None = None,
    start: Action | None = None,
    steps: int = 150,
    learning_rate: float = 0.02,
    temperatures: tuple[float, float] = (0.2, 0.02),
    iterations: int = 5,
    batch_size: int = 256,
    tolerance: float = 0.0,
) -> Action:
    """Permutations (and signs) found by gradient descent on soft ones.

    Of ten rounded permutations along the way, and of the start, it returns the best for each network: the nearest for
    ``"l2"``, else the one with the lowest loss at the midpoint.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
        One for all rows, or one for each.
    architecture : Architecture
    task_tensors : (inputs, targets, loss), optional
        What ``"midpoint"`` and ``"random"`` are measured on, and activations are compared on.
    loss : {"l2", "midpoint", "random"}
    differentiation : {"implicit", "unrolled"}
    generator : torch.Generator, optional
        Draws the batches (default: one with seed 0).
    start : Action, optional
        Where to start (default: activation matching, or weight matching where activations cannot be read).
    steps, learning_rate, temperatures, iterations, batch_size, tolerance
        As in `Schedule`.

    Returns
    -------
    Action

    Raises
    ------
    ValueError
        If the loss is unknown, or is measured on a task and there is none.

    References
    ----------
    Pena et al. 2023, arXiv:2212.12042.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.sinkhorn_matching import sinkhorn_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w = torch.randn(1, 23, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w)
    >>> torch.allclose(sinkhorn_matching(moved, w[0], architecture)(moved), w)
    True
    """
    _check(loss, task_tensors)
    schedule = Schedule(steps, learning_rate, temperatures, iterations, batch_size, differentiation, tolerance)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    relaxation = Relaxation.of(architecture)
    examples = None if task_tensors is None else Examples.of(architecture, *task_tensors)
    inputs = None if examples is None or not has_activations(architecture) else examples.draw(READ, generator).inputs
    if start is None and inputs is not None:
        start = activation_matching(weights, reference, architecture, inputs)
    start = weight_matching(weights, reference, architecture) if start is None else start
    moved, goal = start(weights), reference.expand(weights.shape)
    scores = _start_scores(moved, reference, relaxation, inputs)
    # every part of the rows sees the same batches, so what is found does not depend on the parts
    seed = int(torch.randint(2**62, (), generator=generator))
    found = [
        descend(moved[rows], goal[rows], relaxation, scores.rows(rows), examples, loss, schedule, seed)
        for rows in torch.arange(len(weights)).split(rows_at_once(weights))
    ]
    return concatenated(architecture, found) @ start


def _check(loss: str, task_tensors: TaskTensors | None) -> None:
    if loss not in LOSSES:
        raise ValueError(f"The 'loss' of Sinkhorn matching is one of {', '.join(LOSSES)}; got {loss!r}.")
    if loss != "l2" and task_tensors is None:
        raise ValueError(f"The loss {loss!r} of Sinkhorn matching is measured on a task. Give one, or take loss='l2'.")


def _start_scores(moved: Tensor, reference: Tensor, relaxation: Relaxation, inputs: Tensor | None) -> Scores:
    """Correlations of activations, and cosines of weights where there are none."""
    read = Scores() if inputs is None else activation_scores(moved, reference, relaxation, inputs)
    parents = {group.parent.name for group in relaxation.groups.values() if group.parent is not None}
    rest = [name for name in relaxation.groups if name not in read.values and name not in parents]
    seen = weight_scores(moved, reference, relaxation, rest)
    return Scores({**seen.values, **read.values}, {**seen.signs, **read.signs})


def descend(
    weights: Tensor,
    reference: Tensor,
    relaxation: Relaxation,
    scores: Scores,
    examples: Examples | None,
    loss: str,
    schedule: Schedule,
    seed: int,
) -> Action:
    """The best of the permutations along a descent that starts at some scores.

    Parameters
    ----------
    weights, reference : Tensor of shape (n, d)
    relaxation : Relaxation
    scores : Scores
        Between -1 and 1.
    examples : Examples or None
    loss : {"l2", "midpoint", "random"}
    schedule : Schedule
    seed : int
        Of the batches.

    Returns
    -------
    Action
    """
    generator = torch.Generator().manual_seed(seed)
    examples = None if loss == "l2" else examples
    judge = None if examples is None else examples.draw(SELECTION, generator)
    best = Best(weights, reference, relaxation.plan.architecture, judge)
    best.offer(best.action)
    if not scores.values:
        return best.action
    soft = _Soft(relaxation, scores, schedule)
    optimizer = torch.optim.Adam(soft.logits.values(), lr=schedule.learning_rate)
    checks = {round(schedule.steps * (i + 1) / CHECKS) for i in range(CHECKS)}
    for step in range(1, schedule.steps + 1):
        batch = None if examples is None else examples.draw(schedule.batch_size, generator)
        moved = relaxation.move(weights, soft.matrices(step), soft.signs)
        optimizer.zero_grad()
        torch.autograd.backward(LOSSES[loss](moved, reference, batch, generator).sum())
        optimizer.step()
        if step in checks:
            best.offer(soft.rounded(step))
            if judge is not None and bool((best.excess <= schedule.tolerance * judge.trivial).all()):
                break
    return best.action


class _Soft:
    """Soft permutations of all groups: scores that descend, and the Sinkhorn potentials of the last step."""

    def __init__(self, relaxation: Relaxation, scores: Scores, schedule: Schedule) -> None:
        self._relaxation, self._scores, self._schedule = relaxation, scores, schedule
        self._potentials: dict[str, Tensor] = {}
        self.signs = {name: relaxation.pairs(name, sign) for name, sign in scores.signs.items()}
        # to scores of parents come sums over what is nested in them: all begin between -1 and 1
        inside = Counter[str]()
        for name in scores.values:
            if (parent := relaxation.groups[name].parent) is not None:
                inside[parent.name] += relaxation.groups[name].size
        start = relaxation.matrices(scores)
        self.logits = {name: (m / max(inside[name], 1)).requires_grad_() for name, m in start.items()}

    def matrices(self, step: int) -> dict[str, Tensor]:
        result = {}
        for name, logit in self.logits.items():
            result[name], self._potentials[name] = sinkhorn(
                logit / self._schedule.temperature(step),
                self._schedule.iterations,
                self._potentials.get(name),
                self._schedule.differentiation,
            )
        return result

    @torch.no_grad()
    def rounded(self, step: int) -> Action:
        return self._relaxation.rounded(self.matrices(step), self._scores.signs)
