"""Weight matching: permutations and signs that bring networks close to a reference, by coordinate ascent.

Flips and phases are signs in the rows that are compared (see `centring`), and statistics are permuted along without
being compared.

References
----------
Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical.phases import with_whole_periods
from wsflow.symmetry.centring import compared
from wsflow.symmetry.matching.ascent import CoordinateAscent
from wsflow.symmetry.matching.subproblems import MatchingProblem


def weight_matching(weights: Tensor, reference: Tensor, architecture: Architecture, max_sweeps: int = 50) -> Action:
    """Find permutations (and signs, where activations are odd, and phases) that bring each row close to its reference.

    It starts from the rows as they are, and compares what it is given: give it canonical weights, or scalings will
    decide. Heads are matched by the best matchings of the channels within them. A group on two axes of one parameter
    (recurrent weights) makes the objective quadratic: there a step is taken only where the objective rises.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
        One for all rows, or one for each.
    max_sweeps : int
        At most so many passes over all groups; a row stops when a pass changes nothing.

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.matching import weight_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w = torch.randn(1, 23, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w)
    >>> torch.allclose(weight_matching(moved, w[0], architecture)(moved), w)
    True
    """
    ascent = _ascent(weights, reference, architecture)
    ascent.run(max_sweeps)
    return with_whole_periods(ascent.action(), weights, reference)


def orbit_matching(weights: Tensor, reference: Tensor, architecture: Architecture, max_sweeps: int = 50) -> Action:
    """Return the weight matching that starts layer by layer, so that all members of an orbit end at one point.

    Weights are first compared between groups already matched, which does not depend on the order of a row's neurons;
    from the identity, members of an orbit end at different local maxima.
    """
    action = ascend(weights, reference, architecture, max_sweeps).action()
    return with_whole_periods(action, weights, reference)


def ascend(
    weights: Tensor,
    reference: Tensor,
    architecture: Architecture,
    max_sweeps: int = 50,
    scaling: Action | None = None,
) -> CoordinateAscent:
    """Return the ascent behind `orbit_matching`, which counts its passes; rows are compared after a scaling."""
    ascent = _ascent(weights, reference, architecture, scaling)
    ascent.initialize()
    ascent.run(max_sweeps)
    return ascent


def objective(weights: Tensor, reference: Tensor, architecture: Architecture) -> Tensor:
    """Return what weight matching maximises (n,): the inner product with the reference, statistics left out."""
    rows, references = _compared(weights, architecture), _compared(reference.to(weights), architecture).clone()
    references[:, torch.from_numpy(architecture.statistic_columns)] = 0
    return rows @ references[0] if len(references) == 1 else torch.linalg.vecdot(rows, references)


def _ascent(
    weights: Tensor, reference: Tensor, architecture: Architecture, scaling: Action | None = None
) -> CoordinateAscent:
    problem, scales = MatchingProblem.of(architecture), {}
    if scaling is not None and problem.scalable:
        # most of the scaled weights need not be written
        scales = scaling.scales
    elif scaling is not None:
        weights = scaling(weights)
    compared = _compared(reference.to(weights), architecture)
    return CoordinateAscent(_compared(weights, architecture), compared, problem, scales)


def _compared(rows: Tensor, architecture: Architecture) -> Tensor:
    """Return rows in which phases are signs; a single one where a row was expanded to all of them."""
    if rows.dim() == 2 and len(rows) and rows.stride(0) == 0 and rows.shape[1] > 1:
        rows = rows[:1]
    return compared(rows.reshape(-1, rows.shape[-1]), architecture)
