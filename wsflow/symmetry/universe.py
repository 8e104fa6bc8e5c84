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

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsflow.architecture import Architecture, NeuronGroup
from wsflow.symmetry.actions import Action
from wsflow.symmetry.ascent import Ascent, Move, Scores, solve
from wsflow.symmetry.assignment import Parity
from wsflow.symmetry.charts import centred
from wsflow.symmetry.places import Piece, Plan, Unit

# relaxed group elements: new neurons by old ones, for each group and each set of wires whose flip turns the sign
Soft = dict[tuple[str, Parity], Tensor]


def universe_matching(
    weights: Tensor, architecture: Architecture, max_iter: int = 50, max_sweeps: int = 50, tolerance: float = 1e-5
) -> Action:
    """Group elements that take all networks to a common universe; their mean there is a reference for others.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
        Canonical, or scalings will decide.
    architecture : Architecture
        Groups nested twice are matched without the relaxation.
    max_iter : int
        Steps of Frank-Wolfe, and rounds of matching to the mean.
    max_sweeps : int
        Passes over the groups in each of those.
    tolerance : float
        Frank-Wolfe ends where a step raises the objective by less than this part of it.

    Returns
    -------
    Action

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.universe import universe_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w = torch.randn(1, 23, generator=generator)
    >>> orbit = Action.random(architecture, 5, generator, log_scale=0.0)(w.expand(5, -1))
    >>> aligned = universe_matching(orbit, architecture)(orbit)
    >>> bool((aligned == aligned[0]).all())
    True
    """
    plan = Plan.of(architecture)
    rows = centred(weights, architecture)
    start = Ascent(rows, rows[:1], plan)
    start.begin()
    start.climb(max_sweeps)
    action = start.action()
    if all(group.parent is None or group.parent.parent is None for group in architecture.groups):
        action = _relaxed(_act(action, weights), plan, max_iter, tolerance) @ action
    return _to_the_mean(action, weights, plan, max_iter, max_sweeps)


def between(action: Action, i: Any, j: Any) -> Action:
    """What takes networks j to networks i, by way of the universe: P_ij = P_i^-1 P_j.

    Parameters
    ----------
    action : Action
        To the universe.
    i, j : int, list of int or LongTensor
        Rows of it.

    Returns
    -------
    Action

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.universe import between, universe_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> w = torch.randn(3, 23, generator=torch.Generator().manual_seed(0))
    >>> g = universe_matching(w, architecture)
    >>> around = between(g, 0, 1) @ between(g, 1, 2) @ between(g, 2, 0)
    >>> around.permutations["hidden1"].tolist()
    [[0, 1, 2]]
    """
    to, back = (torch.as_tensor(index).reshape(-1) for index in (j, i))
    return action.rows(back).inverse() @ action.rows(to)


def _act(action: Action, weights: Tensor) -> Tensor:
    return centred(action(weights), action.architecture)


def _to_the_mean(action: Action, weights: Tensor, plan: Plan, max_iter: int, max_sweeps: int) -> Action:
    """Match all networks to their mean, again and again: the norm of their sum never falls."""
    for _ in range(max_iter):
        rows = _act(action, weights)
        ascent = Ascent(rows, rows.mean(0, keepdim=True), plan)
        ascent.climb(max_sweeps)
        step = ascent.action()
        if torch.equal(_act(step, action(weights)), rows):
            break
        action = step @ action
    return action


def _relaxed(rows: Tensor, plan: Plan, max_iter: int, tolerance: float) -> Action:
    """Frank-Wolfe over the relaxed group elements of all rows, from the identity, rounded to group elements."""
    values = [piece.of(rows) for piece in plan.pieces]
    n = len(rows)
    soft = _vertex(_stay(plan, n, rows), plan, rows)
    degree = 2 * max((len(_leaves(piece)) for piece in plan.pieces), default=0)
    nodes = np.linspace(0, 1, degree + 1)
    for _ in range(max_iter):
        target = _vertex(_best(_gradient(soft, values, plan), plan), plan, rows)
        heights = [float(_objective(_between(soft, target, float(t)), values, plan)) for t in nodes]
        step, gain = _highest(nodes, heights)
        if gain <= tolerance * abs(heights[0]):
            break
        soft = _between(soft, target, step)
    return _action(_best(soft, plan), plan, n)


def _stay(plan: Plan, n: int, like: Tensor) -> list[Move]:
    groups = [group for group in plan.architecture.groups if group.parent is None]
    return [
        Move(
            {
                g: torch.arange(g.total, device=like.device).remainder(g.size).repeat(n, 1)
                for g in plan.architecture.groups
                if group in (g, g.parent)
            },
            {},
        )
        for group in groups
    ]


def _leaves(piece: Piece) -> list[int]:
    """The axes with groups in which nothing on another axis is nested."""
    return [i for i, group in enumerate(piece.groups) if group is not None and i not in piece.parents]


def _transformed(soft: Soft, piece: Piece, values: Tensor) -> Tensor:
    """What relaxed group elements make of a piece: one matrix for each axis, which has the parents' within it."""
    n, axes = len(values), range(len(piece.groups))
    new = [2 * i + 1 for i in axes]
    old = [2 * i + 2 if piece.groups[i] is not None else new[i] for i in axes]
    operands: list[Any] = [values, [0, *old]]
    for axis in _leaves(piece):
        chain = piece.chain(axis)
        sizes = [values.shape[1 + i] for i in chain]
        matrix = soft[_key(piece, axis)].reshape(n, *sizes, *sizes)
        operands += [matrix, [0, *(new[i] for i in chain), *(old[i] for i in chain)]]
    return torch.einsum(*operands, [0, *new])


def _key(piece: Piece, axis: int) -> tuple[str, Parity]:
    return piece.groups[axis].name, piece.odd[axis]  # type: ignore[union-attr]


def _objective(soft: Soft, values: Sequence[Tensor], plan: Plan) -> Tensor:
    """The sum of inner products over all pairs of networks."""
    total = torch.zeros((), dtype=values[0].dtype, device=values[0].device)
    for piece, value in zip(plan.pieces, values, strict=True):
        moved = _transformed(soft, piece, value)
        total = total + (moved.sum(0).square().sum() - moved.square().sum()) / 2
    return total


def _gradient(soft: Soft, values: Sequence[Tensor], plan: Plan) -> Soft:
    leaves = {key: matrix.detach().requires_grad_() for key, matrix in soft.items()}
    with torch.enable_grad():
        objective = _objective(leaves, values, plan)
    found = torch.autograd.grad(objective, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def _best(scores: Soft, plan: Plan) -> list[Move]:
    """The group elements with the largest scores, one move for each group that is in no other."""
    moves = []
    for group in (group for group in plan.architecture.groups if group.parent is None):
        inner = tuple(g for g in plan.architecture.groups if g.parent == group)
        names = {group.name, *(g.name for g in inner)}
        table: Scores = {key: score.unsqueeze(1) for key, score in scores.items() if key[0] in names}
        present = {name for name, _ in table}
        if table:
            unit = Unit(group, tuple(g for g in inner if g.name in present), (), frozenset(), frozenset())
            moves.append(solve(unit, table))
    return moves


def _vertex(moves: Sequence[Move], plan: Plan, like: Tensor) -> Soft:
    """Group elements as matrices."""
    places, signs = _places(moves, plan), {part: sign for move in moves for part, sign in move.signs.items()}
    soft: Soft = {}
    for piece in plan.pieces:
        for axis in _leaves(piece):
            name, parity = key = _key(piece, axis)
            index = places[name]
            values = like.new_ones(index.shape)
            for part in parity & signs.keys():
                values = values * signs[part]
            size = index.shape[1]
            soft[key] = like.new_zeros(len(index), size, size).scatter_(2, index.unsqueeze(2), values.unsqueeze(2))
    return soft


def _places(moves: Sequence[Move], plan: Plan) -> dict[str, Tensor]:
    """Old neurons of new ones, over all parents."""
    within = {group: index for move in moves for group, index in move.within.items()}
    places: dict[str, Tensor] = {}
    for group in plan.architecture.groups:
        if group in within:
            places[group.name] = _nested(group, within[group], places)
    return places


def _nested(group: NeuronGroup, within: Tensor, places: dict[str, Tensor]) -> Tensor:
    if group.parent is None:
        return within
    return within + group.size * places[group.parent.name].repeat_interleave(group.size, 1)


def _between(a: Soft, b: Soft, t: float) -> Soft:
    return {key: torch.lerp(matrix, b[key], t) for key, matrix in a.items()}


def _highest(nodes: np.ndarray, heights: Sequence[float]) -> tuple[float, float]:
    """Where on [0, 1] the polynomial through some points is highest, and how far above its start."""
    scale = max(map(abs, heights)) or 1.0
    polynomial = np.polynomial.Polynomial.fit(nodes, np.array(heights) / scale, len(nodes) - 1)
    roots = polynomial.deriv().roots()
    inside = [float(t) for t in roots.real[abs(roots.imag) < 1e-9] if 0 < float(t) < 1]
    best = max([1.0, *inside], key=lambda t: float(polynomial(t)))
    return best, float(polynomial(best) - polynomial(0)) * scale


def _action(moves: Sequence[Move], plan: Plan, n: int) -> Action:
    scales: dict[str, Tensor] = {}
    for (name, offset), sign in ((part, sign) for move in moves for part, sign in move.signs.items()):
        total = plan.architecture.wire(name).space.total
        scale = scales.setdefault(name, torch.ones(n, total, dtype=sign.dtype))
        scale[:, offset : offset + sign.shape[1]] = sign.cpu()
    places = {name: index.cpu() for name, index in _places(moves, plan).items()}
    return Action(plan.architecture, {**Action.identity(plan.architecture, n).permutations, **places}, scales)
