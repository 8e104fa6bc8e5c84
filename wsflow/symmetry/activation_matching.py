"""Activation matching: permutations and signs that pair neurons which do the same on data.

The score of a pair of neurons is the correlation (or covariance) of their activations over the examples, or its
absolute value where a sign may be chosen. Each neuron group is one linear assignment problem.

References
----------
Li, Yosinski, Clune, Lipson and Hopcroft 2016, "Convergent learning", arXiv:1511.07543; Ainsworth, Hayase and
Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.running.activation_statistics import Moments, activations
from wsflow.symmetry.actions import Action
from wsflow.symmetry.examples import rows_at_once
from wsflow.symmetry.relaxation import Relaxation, Scores

STATISTICS = ("correlation", "covariance")
# examples at a time; a module may keep images in many channels
LAYER_BLOCK, MODULE_BLOCK = 1024, 64
SWEEPS, READINGS = 20, 4


def activation_matching(
    weights: Tensor, reference: Tensor, architecture: Architecture, inputs: Tensor, *, statistic: str = "correlation"
) -> Action:
    """Permutations (and signs) that pair neurons of each network with those of its reference by their activations.

    Groups whose activations cannot be read are then matched by their weights, the others held. Neurons that are
    constant on the inputs have no correlations: they take the places that are left.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
        One for all rows, or one for each.
    architecture : Architecture
        One that has layers, or a module with sites.
    inputs : Tensor of shape (b, ...)
    statistic : {"correlation", "covariance"}

    Returns
    -------
    Action

    Raises
    ------
    ValueError
        If the statistic is unknown, or the architecture does not say where to read activations.

    References
    ----------
    Li et al. 2016, arXiv:1511.07543; Ainsworth et al. 2023, arXiv:2209.04836.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.activation_matching import activation_matching
    >>> architecture = Architecture.mlp([4, 3, 2], "tanh")
    >>> generator = torch.Generator().manual_seed(0)
    >>> w = torch.randn(1, 23, generator=generator)
    >>> moved = Action.random(architecture, 1, generator)(w)
    >>> found = activation_matching(moved, w[0], architecture, torch.randn(50, 4, generator=generator))
    >>> torch.allclose(found(moved), w)
    True
    """
    relaxation = Relaxation.of(architecture)
    action, scores = Action.identity(architecture, len(weights)), Scores()
    for _ in range(READINGS if _crossed(architecture) else 1):
        before = action
        scores = activation_scores(action(weights), reference, relaxation, inputs, statistic)
        action = relaxation.choose(scores) @ action
        if _same(before, action):
            break
    families = list(_families(relaxation, scores))
    for _ in range(SWEEPS if families else 0):
        before = action
        for names, held in families:
            step = relaxation.choose(weight_scores(action(weights), reference, relaxation, names), held)
            action = step @ action
        if _same(before, action):
            break
    return action


def _crossed(architecture: Architecture) -> bool:
    """Whether something is read that has neurons on two axes: those of one are samples to the other, and must agree."""
    places = {(site.layer, site.axis) for site in architecture.activation_sites}
    return len({layer for layer, _ in places}) < len(places)


def _families(relaxation: Relaxation, scores: Scores) -> Iterator[tuple[list[str], set[str]]]:
    """Groups without activations, with what is nested in them; and which groups they must not move."""
    done = set(scores.values)
    groups = relaxation.groups.values()
    done |= {g.parent.name for g in groups if g.parent is not None and g.name in done}
    for group in groups:
        if group.name in done:
            continue
        children = [g.name for g in groups if g.parent == group]
        if group.parent is None:
            yield children or [group.name], set()
        elif group.parent.name in done:
            yield [group.name], {group.parent.name}


def _same(before: Action, after: Action) -> bool:
    permuted = all(
        name in before.permutations and torch.equal(p, before.permutations[name])
        for name, p in after.permutations.items()
    )
    return permuted and all(
        name in before.scales and torch.equal(s, before.scales[name]) for name, s in after.scales.items()
    )


def activation_scores(
    weights: Tensor, reference: Tensor, relaxation: Relaxation, inputs: Tensor, statistic: str = "correlation"
) -> Scores:
    """Correlations or covariances of the activations of all pairs of neurons.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    relaxation : Relaxation
    inputs : Tensor of shape (b, ...)
    statistic : {"correlation", "covariance"}

    Returns
    -------
    Scores
        Of the groups whose activations can be read.

    Raises
    ------
    ValueError
        If the statistic is unknown, or the architecture does not say where to read activations.
    """
    if statistic not in STATISTICS:
        raise ValueError(
            f"The 'statistic' of activation matching is one of {', '.join(STATISTICS)}; got {statistic!r}."
        )
    architecture = relaxation.plan.architecture
    reference = reference.reshape(-1, reference.shape[-1]).to(weights)
    parts: list[Scores] = []
    for rows in torch.arange(len(weights)).split(rows_at_once(weights)):
        goal = reference if len(reference) == 1 else reference[rows]
        moments = Moments()
        for block in inputs.split(LAYER_BLOCK if architecture.layers else MODULE_BLOCK):
            moments.add(activations(goal, architecture, block), activations(weights[rows], architecture, block))
        pairs = moments.correlation() if statistic == "correlation" else moments.covariance()
        parts.append(_by_group(pairs, relaxation, weights.dtype))
    first = parts[0] if parts else Scores()
    return Scores(
        {name: torch.cat([part.values[name] for part in parts]) for name in first.values},
        {name: torch.cat([part.signs[name] for part in parts]) for name in first.signs},
    )


def _by_group(pairs: list[tuple[str, Tensor]], relaxation: Relaxation, dtype: torch.dtype) -> Scores:
    """The means over all places where a group's activations are read; signs are those of the first."""
    found: dict[str, list[Tensor]] = {}
    for name, value in pairs:
        if name in relaxation.groups:
            found.setdefault(name, []).append(value.to(dtype))
    values = {
        name: torch.stack([value.abs() if name in relaxation.flipping else value for value in read]).mean(0)
        for name, read in found.items()
    }
    return Scores(values, {name: _sign(read[0]) for name, read in found.items() if name in relaxation.signed})


def _sign(values: Tensor) -> Tensor:
    return torch.where(values < 0, -1.0, 1.0).to(values)


def weight_scores(weights: Tensor, reference: Tensor, relaxation: Relaxation, names: list[str]) -> Scores:
    """Cosines of the weights of all pairs of neurons, all other groups as they are.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    relaxation : Relaxation
    names : list of str
        Of neuron groups.

    Returns
    -------
    Scores
    """
    reference = reference.reshape(-1, reference.shape[-1]).to(weights)
    result = Scores()
    for name in names:
        group = relaxation.groups[name]
        even = weights.new_zeros(len(weights), group.total, group.total)
        odd, norms = torch.zeros_like(even), torch.zeros_like(even)
        squares = [rows.new_zeros(len(rows), group.total) for rows in (reference, weights)]
        for piece in relaxation.plan.pieces:
            for axis in (i for i, other in enumerate(piece.groups) if other == group):
                new, old = (_neurons(piece.of(rows), piece.chain(axis), group.total) for rows in (reference, weights))
                signed = relaxation.signed.get(name) in piece.odd[axis]
                (odd if signed else even).add_(new @ old.transpose(1, 2))
                squares[0] += new.square().sum(-1)
                squares[1] += old.square().sum(-1)
        norms = (squares[0].unsqueeze(2) * squares[1].unsqueeze(1)).sqrt()
        norms = torch.where(norms > 0, norms, 1.0)
        result.values[name] = (even + (odd.abs() if name in relaxation.signed else odd)) / norms
        if name in relaxation.signed:
            result.signs[name] = _sign(odd)
    return result


def _neurons(values: Tensor, chain: tuple[int, ...], total: int) -> Tensor:
    """A piece with the neurons of one axis (and their parents) first."""
    order = (*chain, *(i for i in range(values.dim() - 1) if i not in chain))
    return values.permute(0, *(1 + i for i in order)).reshape(len(values), total, -1)
