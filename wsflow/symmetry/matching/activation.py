"""Activation matching: permutations and signs that pair neurons which do the same on data.

The similarity of a pair of neurons is the correlation (or covariance) of their activations over the examples, or its
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

from wsflow.architecture import Architecture, Fixed
from wsflow.running.activation_sizes import examples_for
from wsflow.running.activation_statistics import Moments, activations, check_has_activations
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical.phases import with_nearest_phases
from wsflow.symmetry.matching.examples import chunk_size
from wsflow.symmetry.matching.relaxation import Relaxation, Similarities

STATISTICS = ("correlation", "covariance")
# of the largest activation of the networks that run together, for the examples at a time
KEPT_NUMBERS = 2**23
SWEEPS, ROUNDS = 20, 4


def activation_matching(
    weights: Tensor, reference: Tensor, architecture: Architecture, inputs: Tensor, *, statistic: str = "correlation"
) -> Action:
    """Pair neurons of each network with those of its reference by their activations, by permutations (and signs).

    Groups whose activations cannot be read are then matched by their weights, the others fixed. Neurons that are
    constant on the inputs have no correlations: they are paired with the neurons that are left.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
        One for all rows, or one for each.
    architecture : Architecture
        One that has layers, or a module with activation sites.
    inputs : Tensor of shape (b, ...)
    statistic : {"correlation", "covariance"}

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
    >>> from wsflow.symmetry.matching import activation_matching
    >>> architecture = Architecture.mlp([4, 3, 2], "tanh")
    >>> generator = torch.Generator().manual_seed(0)
    >>> w = torch.randn(1, 23, generator=generator)
    >>> moved = Action.random(architecture, 1, generator)(w)
    >>> found = activation_matching(moved, w[0], architecture, torch.randn(50, 4, generator=generator))
    >>> torch.allclose(found(moved), w)
    True
    """
    relaxation = Relaxation.of(architecture)
    action, similarities = Action.identity(architecture, len(weights)), Similarities()
    for _ in range(ROUNDS if _has_sites_with_two_groups(architecture) else 1):
        before = action
        similarities = activation_similarities(action(weights), reference, relaxation, inputs, statistic)
        action = relaxation.assign(similarities) @ action
        if _same(before, action):
            break
    unread = list(_unread_groups(relaxation, similarities))
    for _ in range(SWEEPS if unread else 0):
        before = action
        for names, fixed in unread:
            step = relaxation.assign(weight_similarities(action(weights), reference, relaxation, names), fixed)
            action = step @ action
        if _same(before, action):
            break
    return with_nearest_phases(action, weights, reference)


def _has_sites_with_two_groups(architecture: Architecture) -> bool:
    """Return whether neurons are on two axes of one output: those of one are samples to the other, and must agree."""
    axes = {(site.layer, site.axis) for site in architecture.activation_sites}
    return len({layer for layer, _ in axes}) < len(axes)


def _unread_groups(relaxation: Relaxation, similarities: Similarities) -> Iterator[tuple[list[str], set[str]]]:
    """Yield the groups without activations, with what is nested in them, and the groups that are fixed meanwhile."""
    done = set(similarities.values)
    groups = relaxation.groups.values()
    done |= {g.parent.name for g in groups if g.parent is not None and g.name in done}
    for group in groups:
        if group.name in done:
            continue
        children = [g.name for g in groups if g.parent == group]
        if group.parent is None:
            yield children or [group.name], set()
        elif group.parent.name in done or isinstance(group.parent, Fixed):
            yield [group.name], {group.parent.name}


def _same(before: Action, after: Action) -> bool:
    permuted = all(
        name in before.permutations and torch.equal(p, before.permutations[name])
        for name, p in after.permutations.items()
    )
    return permuted and all(
        name in before.scales and torch.equal(s, before.scales[name]) for name, s in after.scales.items()
    )


def activation_similarities(
    weights: Tensor, reference: Tensor, relaxation: Relaxation, inputs: Tensor, statistic: str = "correlation"
) -> Similarities:
    """Return correlations or covariances of the activations on inputs (b, ...), for the groups that can be read."""
    if statistic not in STATISTICS:
        raise ValueError(
            f"The 'statistic' of activation matching is one of {', '.join(STATISTICS)}; got {statistic!r}."
        )
    architecture = relaxation.problem.architecture
    check_has_activations(architecture)
    reference = reference.reshape(-1, reference.shape[-1]).to(weights)
    parts: list[Similarities] = []
    for rows in torch.arange(len(weights)).split(chunk_size(weights)):
        own = reference if len(reference) == 1 else reference[rows]
        moments = Moments()
        for batch in inputs.split(examples_for(architecture, inputs, len(rows), KEPT_NUMBERS)):
            moments.add(activations(own, architecture, batch), activations(weights[rows], architecture, batch))
        pairs = moments.correlation() if statistic == "correlation" else moments.covariance()
        parts.append(_by_group(pairs, relaxation, weights.dtype))
    first = parts[0] if parts else Similarities()
    return Similarities(
        {name: torch.cat([part.values[name] for part in parts]) for name in first.values},
        {name: torch.cat([part.signs[name] for part in parts]) for name in first.signs},
    )


def _by_group(pairs: list[tuple[str, Tensor]], relaxation: Relaxation, dtype: torch.dtype) -> Similarities:
    """Return the means over all sites of each group, with the signs of its first site."""
    found: dict[str, list[Tensor]] = {}
    for name, value in pairs:
        if name in relaxation.groups:
            found.setdefault(name, []).append(value.to(dtype))
    values = {
        name: torch.stack([value.abs() if name in relaxation.sign_segments else value for value in read]).mean(0)
        for name, read in found.items()
    }
    return Similarities(values, {name: _sign(read[0]) for name, read in found.items() if name in relaxation.signed})


def _sign(values: Tensor) -> Tensor:
    return torch.where(values < 0, -1.0, 1.0).to(values)


def weight_similarities(weights: Tensor, reference: Tensor, relaxation: Relaxation, names: list[str]) -> Similarities:
    """Return cosines of the weights of all pairs of neurons of the named groups, all other groups as they are."""
    reference = reference.reshape(-1, reference.shape[-1]).to(weights)
    result = Similarities()
    for name in names:
        group = relaxation.groups[name]
        even = weights.new_zeros(len(weights), group.total, group.total)
        odd = torch.zeros_like(even)
        squares = [rows.new_zeros(len(rows), group.total) for rows in (reference, weights)]
        for subblock in relaxation.problem.subblocks:
            for axis in (i for i, other in enumerate(subblock.groups) if other == group):
                axes = subblock.nested_axes(axis)
                new, old = (_neurons_first(subblock.of(rows), axes, group.total) for rows in (reference, weights))
                signed = relaxation.signed.get(name) in subblock.odd[axis]
                (odd if signed else even).add_(new @ old.transpose(1, 2))
                squares[0] += new.square().sum(-1)
                squares[1] += old.square().sum(-1)
        norms = (squares[0].unsqueeze(2) * squares[1].unsqueeze(1)).sqrt()
        norms = torch.where(norms > 0, norms, 1.0)
        result.values[name] = (even + (odd.abs() if name in relaxation.signed else odd)) / norms
        if name in relaxation.signed:
            result.signs[name] = _sign(odd)
    return result


def _neurons_first(values: Tensor, axes: tuple[int, ...], total: int) -> Tensor:
    """Return values (n, *extents) as rows (n, total, rest) of the neurons over some axes."""
    order = (*axes, *(i for i in range(values.dim() - 1) if i not in axes))
    return values.permute(0, *(1 + i for i in order)).reshape(len(values), total, -1)
