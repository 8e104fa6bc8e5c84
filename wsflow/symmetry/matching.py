"""Weight matching: permutations and signs that bring networks close to a reference.

Coordinate ascent on sum_k <r_k, (g.w)_k> over one neuron group at a time, with what is nested in it; each step is a
linear assignment problem, and the objective never falls. Flips are signs in the centred chart, where networks are
compared; phases are left to the canonical form, and statistics go along without a say.

References
----------
Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.symmetry.actions import Action
from wsflow.symmetry.ascent import Ascent
from wsflow.symmetry.assignment import assignment as assignment
from wsflow.symmetry.charts import centred
from wsflow.symmetry.places import Plan


def weight_matching(weights: Tensor, reference: Tensor, architecture: Architecture, max_sweeps: int = 50) -> Action:
    """Permutations (and signs, where activations are odd) that bring each row close to its reference.

    It starts from the rows as they are, and compares what it is given: give it canonical weights, or scalings will
    decide. Heads are matched by the best matchings of the channels within them. A group on two axes of one parameter
    (recurrent weights) makes the objective quadratic: there a step is taken only where the objective rises.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
        One for all rows, or one for each.
    architecture : Architecture
    max_sweeps : int
        At most so many passes over all groups; a row stops when a pass changes nothing.

    Returns
    -------
    Action

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
    ascent.climb(max_sweeps)
    return ascent.action()


def layer_matching(weights: Tensor, reference: Tensor, architecture: Architecture) -> Action:
    """Match one neuron group after the other, looking only at weights between groups that have been reached.

    What it finds does not depend on the order in which a row's neurons come, so coordinate ascent that starts
    from it sends a whole orbit to one point; from the identity, members of an orbit end at different local maxima.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    architecture : Architecture

    Returns
    -------
    Action

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.actions import Action
    >>> from wsflow.symmetry.matching import layer_matching
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> generator = torch.Generator().manual_seed(0)
    >>> w, reference = torch.randn(2, 23, generator=generator)
    >>> moved = Action.random(architecture, 1, generator, log_scale=0.0)(w[None])
    >>> one, two = (layer_matching(rows, reference, architecture)(rows) for rows in (w[None], moved))
    >>> torch.equal(one, two)
    True
    """
    ascent = _ascent(weights, reference, architecture)
    ascent.begin()
    return ascent.action()


def orbit_matching(weights: Tensor, reference: Tensor, architecture: Architecture, max_sweeps: int = 50) -> Action:
    """Weight matching that starts layer by layer, so that all members of an orbit end at one point.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    architecture : Architecture
    max_sweeps : int
        Of the coordinate ascent.

    Returns
    -------
    Action

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.matching import orbit_matching
    >>> w = torch.randn(2, 23, generator=torch.Generator().manual_seed(0))
    >>> len(orbit_matching(w, w[0], Architecture.mlp([4, 3, 2])))
    2
    """
    return ascend(weights, reference, architecture, max_sweeps).action()


def ascend(
    weights: Tensor,
    reference: Tensor,
    architecture: Architecture,
    max_sweeps: int = 50,
    scaling: Action | None = None,
) -> Ascent:
    """Orbit matching, with what it says of itself: the passes that each row took.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    architecture : Architecture
    max_sweeps : int
    scaling : Action, optional
        What is done to the weights before they are compared, which moves no neuron.

    Returns
    -------
    Ascent
    """
    ascent = _ascent(weights, reference, architecture, scaling)
    ascent.begin()
    ascent.climb(max_sweeps)
    return ascent


def objective(weights: Tensor, reference: Tensor, architecture: Architecture) -> Tensor:
    """What weight matching maximises: the inner product with the reference, statistics left out.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    reference : Tensor of shape (d,) or (n, d)
    architecture : Architecture

    Returns
    -------
    Tensor of shape (n,)
    """
    rows, goals = _compared(weights, architecture), _compared(reference.to(weights), architecture).clone()
    goals[:, torch.from_numpy(architecture.statistic_columns)] = 0
    return rows @ goals[0] if len(goals) == 1 else torch.linalg.vecdot(rows, goals)


def _ascent(weights: Tensor, reference: Tensor, architecture: Architecture, scaling: Action | None = None) -> Ascent:
    plan, scales = Plan.of(architecture), {}
    if scaling is not None and plan.scalable:
        # most of the weights are not even written
        scales = scaling.scales
    elif scaling is not None:
        weights = scaling(weights)
    goal = _compared(reference.to(weights), architecture)
    return Ascent(_compared(weights, architecture), goal, plan, scales)


def _compared(rows: Tensor, architecture: Architecture) -> Tensor:
    """Rows in the chart in which flips are signs; one row where all of them are that row, expanded."""
    if rows.dim() == 2 and len(rows) and rows.stride(0) == 0 and rows.shape[1] > 1:
        rows = rows[:1]
    return centred(rows.reshape(-1, rows.shape[-1]), architecture)
