"""Many networks matched at once: each to a common universe, so that the maps between them are consistent in cycles.

The sum over all pairs of inner products <g_i w_i, g_j w_j> is maximised over relaxed group elements, doubly stochastic
matrices, by Frank-Wolfe: the gradient's best permutations and signs are an assignment problem for each group, and the
best step towards them is exact, because the objective along it is a polynomial. Its result is rounded to permutations,
which are then matched to their mean until nothing changes. What takes network j to network i is g_i^-1 g_j, so going
round any cycle is the identity.

References
----------
Crisostomi, Fumero, Baieri, Bernard and Rodola 2024, "C2M3: Cycle-consistent multi-model merging", arXiv:2405.17897.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture, NeuronGroup
from wsflow.architecture.spaces import groups_of, lineage
from wsflow.progress import Progress, counter
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical.phases import with_whole_periods
from wsflow.symmetry.centring import compared
from wsflow.symmetry.matching.ascent import CoordinateAscent
from wsflow.symmetry.matching.assignment import Parity
from wsflow.symmetry.matching.solution import Matching, Scores, signs_and_phases, solve, stay
from wsflow.symmetry.matching.subblocks import Subblock
from wsflow.symmetry.matching.subproblems import MatchingProblem, Subproblem

# relaxed group elements: matrices of new neurons by old ones, for each group and parity
Relaxed = dict[tuple[str, Parity], Tensor]


def universe_matching(
    weights: Tensor,
    architecture: Architecture,
    max_iter: int = 50,
    max_sweeps: int = 50,
    tolerance: float = 1e-5,
    progress: Progress | None = None,
) -> Action:
    """Take all networks to a common universe; their mean there is a reference for others.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
        Canonical, or scalings will decide.
    architecture : Architecture
        Groups that are nested twice, or in fixed neurons, are matched without the relaxation.
    max_iter : int
        Steps of Frank-Wolfe, and rounds of matching to the mean.
    max_sweeps : int
        Passes over the groups in each of those.
    tolerance : float
        Frank-Wolfe ends where a step raises the objective by less than this part of it.
    progress : callable, optional
        Called with the steps and rounds that were made, and how many there may be.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.matching import universe_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w = torch.randn(1, 23, generator=generator)
    >>> orbit = Action.random(architecture, 5, generator, log_scale=0.0)(w.expand(5, -1))
    >>> aligned = universe_matching(orbit, architecture)(orbit)
    >>> bool((aligned == aligned[0]).all())
    True
    """
    problem = MatchingProblem.of(architecture)
    count = counter(progress, 2 * max_iter)
    rows = compared(weights, architecture)
    start = CoordinateAscent(rows, rows[:1], problem)
    start.initialize()
    start.run(max_sweeps)
    action = start.action()
    if all(len(groups_of(group)) == len(lineage(group)) <= 2 for group in architecture.groups):
        action = _frank_wolfe(_act(action, weights), problem, max_iter, tolerance, count) @ action
    return _to_the_mean(action, weights, problem, max_iter, max_sweeps, count)


def between(action: Action, i: Any, j: Any) -> Action:
    """Return what takes networks j to networks i, by way of the universe: P_ij = P_i^-1 P_j."""
    to, back = (torch.as_tensor(index).reshape(-1) for index in (j, i))
    return action.rows(back).inverse() @ action.rows(to)


def _act(action: Action, weights: Tensor) -> Tensor:
    return compared(action(weights), action.architecture)


def _to_the_mean(
    action: Action, weights: Tensor, problem: MatchingProblem, max_iter: int, max_sweeps: int, count: Callable[[], None]
) -> Action:
    """Match all networks to their mean, again and again: the norm of their sum never falls."""
    for _ in range(max_iter):
        rows = _act(action, weights)
        ascent = CoordinateAscent(rows, rows.mean(0, keepdim=True), problem)
        ascent.run(max_sweeps)
        step = ascent.action()
        if torch.equal(_act(step, action(weights)), rows):
            break
        action = step @ action
        count()
    return with_whole_periods(action, weights, action(weights)[0])


def _frank_wolfe(
    rows: Tensor, problem: MatchingProblem, max_iter: int, tolerance: float, count: Callable[[], None]
) -> Action:
    """Maximise over the relaxed group elements of all rows, from the identity, and round to group elements."""
    values = [subblock.of(rows) for subblock in problem.subblocks]
    n = len(rows)
    relaxed = _matrices(_identity(problem, n, rows), problem, rows)
    degree = 2 * max((len(_innermost_axes(subblock)) for subblock in problem.subblocks), default=0)
    nodes = np.linspace(0, 1, degree + 1)
    for _ in range(max_iter):
        vertex = _matrices(_best(_gradient(relaxed, values, problem), problem), problem, rows)
        heights = [float(_objective(_interpolated(relaxed, vertex, float(t)), values, problem)) for t in nodes]
        step, gain = _line_search(nodes, heights)
        if gain <= tolerance * abs(heights[0]):
            break
        relaxed = _interpolated(relaxed, vertex, step)
        count()
    return _action(_best(relaxed, problem), problem, n)


def _identity(problem: MatchingProblem, n: int, like: Tensor) -> list[Matching]:
    groups = problem.architecture.groups
    return [
        Matching({g: stay(g, like).repeat(n, 1) for g in groups if group in (g, g.parent)}, {})
        for group in groups
        if group.parent is None
    ]


def _innermost_axes(subblock: Subblock) -> list[int]:
    """Return the axes with groups in which nothing on another axis is nested."""
    return [i for i, group in enumerate(subblock.groups) if group is not None and i not in subblock.parents]


def _transformed(relaxed: Relaxed, subblock: Subblock, values: Tensor) -> Tensor:
    """Apply relaxed group elements to a subblock: one matrix for each axis, which includes that of its parents."""
    n, axes = len(values), range(len(subblock.groups))
    new = [2 * i + 1 for i in axes]
    old = [2 * i + 2 if subblock.groups[i] is not None else new[i] for i in axes]
    operands: list[Any] = [values, [0, *old]]
    for axis in _innermost_axes(subblock):
        nested = subblock.nested_axes(axis)
        sizes = [values.shape[1 + i] for i in nested]
        matrix = relaxed[_key(subblock, axis)].reshape(n, *sizes, *sizes)
        operands += [matrix, [0, *(new[i] for i in nested), *(old[i] for i in nested)]]
    return torch.einsum(*operands, [0, *new])


def _key(subblock: Subblock, axis: int) -> tuple[str, Parity]:
    return subblock.groups[axis].name, subblock.odd[axis]  # type: ignore[union-attr]


def _objective(relaxed: Relaxed, values: Sequence[Tensor], problem: MatchingProblem) -> Tensor:
    """Return the sum of inner products over all pairs of networks."""
    total = torch.zeros((), dtype=values[0].dtype, device=values[0].device)
    for subblock, value in zip(problem.subblocks, values, strict=True):
        moved = _transformed(relaxed, subblock, value)
        total = total + (moved.sum(0).square().sum() - moved.square().sum()) / 2
    return total


def _gradient(relaxed: Relaxed, values: Sequence[Tensor], problem: MatchingProblem) -> Relaxed:
    leaves = {key: matrix.detach().requires_grad_() for key, matrix in relaxed.items()}
    with torch.enable_grad():
        objective = _objective(leaves, values, problem)
    found = torch.autograd.grad(objective, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def _best(scores: Relaxed, problem: MatchingProblem) -> list[Matching]:
    """Return the group elements with the largest scores, one matching for each group without a parent."""
    matchings = []
    for group in (group for group in problem.architecture.groups if group.parent is None):
        nested = tuple(g for g in problem.architecture.groups if g.parent == group)
        names = {group.name, *(g.name for g in nested)}
        own: Scores = {key: score.unsqueeze(1) for key, score in scores.items() if key[0] in names}
        present = {name for name, _ in own}
        if own:
            nested = tuple(g for g in nested if g.name in present)
            matchings.append(solve(Subproblem(group, nested, (), frozenset(), frozenset()), own))
    return matchings


def _matrices(matchings: Sequence[Matching], problem: MatchingProblem, like: Tensor) -> Relaxed:
    """Return group elements as matrices, the vertices of the relaxation."""
    permutations = _permutations(matchings, problem)
    signs = {segment: sign for matching in matchings for segment, sign in matching.signs.items()}
    relaxed: Relaxed = {}
    for subblock in problem.subblocks:
        for axis in _innermost_axes(subblock):
            name, parity = key = _key(subblock, axis)
            index = permutations[name]
            values = like.new_ones(index.shape)
            for segment in parity & signs.keys():
                values = values * signs[segment]
            size = index.shape[1]
            relaxed[key] = like.new_zeros(len(index), size, size).scatter_(2, index.unsqueeze(2), values.unsqueeze(2))
    return relaxed


def _permutations(matchings: Sequence[Matching], problem: MatchingProblem) -> dict[str, Tensor]:
    """Return the permutations (n, total) over all parents."""
    within = {group: index for matching in matchings for group, index in matching.within.items()}
    permutations: dict[str, Tensor] = {}
    for group in problem.architecture.groups:
        if group in within:
            permutations[group.name] = _over_parents(group, within[group], permutations)
    return permutations


def _over_parents(group: NeuronGroup, within: Tensor, permutations: dict[str, Tensor]) -> Tensor:
    if group.parent is None:
        return within
    return within + group.size * permutations[group.parent.name].repeat_interleave(group.size, 1)


def _interpolated(a: Relaxed, b: Relaxed, t: float) -> Relaxed:
    return {key: torch.lerp(matrix, b[key], t) for key, matrix in a.items()}


def _line_search(nodes: np.ndarray, heights: Sequence[float]) -> tuple[float, float]:
    """Return where on [0, 1] the polynomial through some points is highest, and how far above its value at 0."""
    scale = max(map(abs, heights)) or 1.0
    polynomial = np.polynomial.Polynomial.fit(nodes, np.array(heights) / scale, len(nodes) - 1)
    roots = polynomial.deriv().roots()
    inside = [float(t) for t in roots.real[abs(roots.imag) < 1e-9] if 0 < float(t) < 1]
    best = max([1.0, *inside], key=lambda t: float(polynomial(t)))
    return best, float(polynomial(best) - polynomial(0)) * scale


def _action(matchings: Sequence[Matching], problem: MatchingProblem, n: int) -> Action:
    architecture = problem.architecture
    signs = {segment: sign for matching in matchings for segment, sign in matching.signs.items()}
    permutations = {name: index.cpu() for name, index in _permutations(matchings, problem).items()}
    permutations = {**Action.identity(architecture, n).permutations, **permutations}
    return Action(architecture, permutations, *signs_and_phases(signs, problem, n))
