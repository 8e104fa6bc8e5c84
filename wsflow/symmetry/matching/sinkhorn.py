"""Sinkhorn re-basin: gradient descent on soft permutations, which end as hard ones.

A doubly stochastic matrix P = Sinkhorn(S / T) for each neuron group moves the network; the similarities S descend on a
loss while the temperature T falls, and an assignment rounds what they arrive at. The losses are

    l2        |r - P w|^2
    midpoint  L((r + P w) / 2)
    random    L((1 - t) r + t P w),  t uniform in (0, 1), drawn at each step

The similarities start as correlations of activations (or cosines of weights) instead of at random, as in the paper: on
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
from typing import Any

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.progress import Progress
from wsflow.running.activation_statistics import has_activations
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching.activation import activation_matching, activation_similarities, weight_similarities
from wsflow.symmetry.matching.examples import Examples
from wsflow.symmetry.matching.relaxation import Relaxation, Similarities
from wsflow.symmetry.matching.selection import BestAction, checkpoints, in_chunks
from wsflow.symmetry.matching.sinkhorn_operator import sinkhorn
from wsflow.symmetry.matching.weight import weight_matching

TaskTensors = tuple[Any, ...]
# examples on which permutations are compared, and on which activations are
SELECTION, READ = 2048, 4096


def _l2(moved: Tensor, reference: Tensor, examples: Examples | None, generator: torch.Generator) -> Tensor:
    return (moved - reference).square().sum(1)


def _midpoint(moved: Tensor, reference: Tensor, examples: Examples | None, generator: torch.Generator) -> Tensor:
    assert examples is not None
    return examples.losses((moved + reference) / 2)


def _random(moved: Tensor, reference: Tensor, examples: Examples | None, generator: torch.Generator) -> Tensor:
    assert examples is not None
    t = torch.rand((), generator=generator, dtype=torch.float32).item()
    return examples.losses(torch.lerp(reference, moved, t))


LOSSES: dict[str, Callable[[Tensor, Tensor, Examples | None, torch.Generator], Tensor]] = {
    "l2": _l2,
    "midpoint": _midpoint,
    "random": _random,
}


@dataclass(frozen=True)
class Annealing:
    """A descent on similarities between 0 and 1 by Adam, while the temperature falls geometrically from first to last.

    Each step makes so many Sinkhorn iterations, from the potentials of the step before, on one batch of examples. The
    descent ends where no midpoint's loss exceeds the mean of the ends' by more than the tolerance, as a share of the
    loss of a constant prediction.
    """

    steps: int = 150
    learning_rate: float = 0.02
    temperatures: tuple[float, float] = (0.2, 0.02)
    iterations: int = 5
    batch_size: int = 256
    differentiation: str = "implicit"
    tolerance: float = 0.0

    def temperature(self, step: int) -> float:
        """Return the temperature of a step."""
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
    progress: Progress | None = None,
) -> Action:
    """Find permutations (and signs) by gradient descent on soft ones.

    Of ten rounded permutations along the way, and of the start, it returns the best for each network: the nearest for
    ``"l2"``, else the one with the lowest loss at the midpoint.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
        One for all rows, or one for each.
    task_tensors : (inputs, targets, loss), optional
        What ``"midpoint"`` and ``"random"`` are measured on, and activations are compared on. A fourth tensor has
        weights of the examples, with mean 1.
    loss : {"l2", "midpoint", "random"}
    differentiation : {"implicit", "unrolled"}
    generator : torch.Generator, optional
        Draws the batches (default: one with seed 0).
    start : Action, optional
        Where to start (default: activation matching, or weight matching where activations cannot be read).
    steps, learning_rate, temperatures, iterations, batch_size, tolerance
        As in `Annealing`.
    progress : callable, optional
        Called with the steps done and their number, counted for each network.

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
    >>> from wsflow.symmetry.matching import sinkhorn_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w = torch.randn(1, 23, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w)
    >>> torch.allclose(sinkhorn_matching(moved, w[0], architecture)(moved), w)
    True
    """
    _check(loss, task_tensors)
    annealing = Annealing(steps, learning_rate, temperatures, iterations, batch_size, differentiation, tolerance)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    relaxation = Relaxation.of(architecture)
    examples = None if task_tensors is None else Examples.of(architecture, *task_tensors)
    inputs = None if examples is None or not has_activations(architecture) else examples.draw(READ, generator).inputs
    if start is None and inputs is not None:
        start = activation_matching(weights, reference, architecture, inputs)
    start = weight_matching(weights, reference, architecture) if start is None else start
    moved, references = start(weights), reference.expand(weights.shape)
    similarities = _start_similarities(moved, reference, relaxation, inputs)

    def descend_rows(rows: Tensor, generator: torch.Generator, progress: Progress | None) -> Action:
        own = similarities.rows(rows)
        return descend(moved[rows], references[rows], relaxation, own, examples, loss, annealing, generator, progress)

    return in_chunks(weights, architecture, generator, descend_rows, progress) @ start


def _check(loss: str, task_tensors: TaskTensors | None) -> None:
    if loss not in LOSSES:
        raise ValueError(f"The 'loss' of Sinkhorn matching is one of {', '.join(LOSSES)}; got {loss!r}.")
    if loss != "l2" and task_tensors is None:
        raise ValueError(f"The loss {loss!r} of Sinkhorn matching is measured on a task. Give one, or take loss='l2'.")


def _start_similarities(
    moved: Tensor, reference: Tensor, relaxation: Relaxation, inputs: Tensor | None
) -> Similarities:
    """Return correlations of activations, and cosines of weights where there are none."""
    read = Similarities() if inputs is None else activation_similarities(moved, reference, relaxation, inputs)
    parents = {group.parent.name for group in relaxation.groups.values() if group.parent is not None}
    rest = [name for name in relaxation.groups if name not in read.values and name not in parents]
    by_weights = weight_similarities(moved, reference, relaxation, rest)
    return Similarities({**by_weights.values, **read.values}, {**by_weights.signs, **read.signs})


def descend(
    weights: Tensor,
    reference: Tensor,
    relaxation: Relaxation,
    similarities: Similarities,
    examples: Examples | None,
    loss: str,
    annealing: Annealing,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Action:
    """Return the best of the permutations along a descent of networks (n, d) from similarities between -1 and 1."""
    examples = None if loss == "l2" else examples
    compared = None if examples is None else examples.draw(SELECTION, generator)
    best = BestAction(weights, reference, relaxation.problem.architecture, compared)
    best.update(best.action)
    if not similarities.values:
        return best.action
    soft = _SoftPermutations(relaxation, similarities, annealing)
    optimizer = torch.optim.Adam(soft.logits.values(), lr=annealing.learning_rate)
    for step in range(1, annealing.steps + 1):
        batch = None if examples is None else examples.draw(annealing.batch_size, generator)
        moved = relaxation.apply(weights, soft.matrices(step), soft.signs)
        optimizer.zero_grad()
        torch.autograd.backward(LOSSES[loss](moved, reference, batch, generator).sum())
        optimizer.step()
        if progress is not None:
            progress(step, annealing.steps)
        if step in checkpoints(annealing.steps):
            best.update(soft.rounded(step))
            if compared is not None and bool((best.excess <= annealing.tolerance * compared.constant_loss).all()):
                break
    return best.action


class _SoftPermutations:
    """Soft permutations of all groups: similarities that descend, and the Sinkhorn potentials of the last step."""

    def __init__(self, relaxation: Relaxation, similarities: Similarities, annealing: Annealing) -> None:
        self._relaxation, self._similarities, self._annealing = relaxation, similarities, annealing
        self._potentials: dict[str, Tensor] = {}
        self.signs = {name: relaxation.by_parents(name, sign) for name, sign in similarities.signs.items()}
        # those of parents are sums over what is nested in them: all begin between -1 and 1
        inside = Counter[str]()
        for name in similarities.values:
            if (parent := relaxation.groups[name].parent) is not None:
                inside[parent.name] += relaxation.groups[name].size
        start = relaxation.matrices(similarities)
        self.logits = {name: (m / max(inside[name], 1)).requires_grad_() for name, m in start.items()}

    def matrices(self, step: int) -> dict[str, Tensor]:
        result = {}
        for name, logit in self.logits.items():
            result[name], self._potentials[name] = sinkhorn(
                logit / self._annealing.temperature(step),
                self._annealing.iterations,
                self._potentials.get(name),
                self._annealing.differentiation,
            )
        return result

    @torch.no_grad()
    def rounded(self, step: int) -> Action:
        return self._relaxation.rounded(self.matrices(step), self._similarities.signs)
