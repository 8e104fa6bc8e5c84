"""The orbit of a network, for couplings modulo its symmetries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsflow.estimators.sources import is_named
from wsflow.flow.couplings import Nearest
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching import weight_matching

if TYPE_CHECKING:
    from wsflow.estimators.flow import WeightFlow


def nearest_of(flow: WeightFlow) -> Nearest | None:
    """What brings targets close to sources by the symmetries that a flow does not tell apart.

    These are signs, flips and phases, and permutations where neurons have no names. Positive scalings have canonical
    forms of their own.

    Parameters
    ----------
    flow : WeightFlow

    Returns
    -------
    callable or None
        From points x and y (n, size) to points of the orbits of y; None unless ``coupling="orbit"``.

    Raises
    ------
    ValueError
        If the architecture is not known.
    """
    if flow.coupling != "orbit":
        return None
    layout, geometry = flow.geometry_.layout, flow.geometry_
    if layout is None:
        raise ValueError("coupling='orbit' knows symmetries, so it needs an architecture: fit a WeightArray.")
    n, named = layout.n_weights, is_named(flow)

    def nearest(x: Tensor, y: Tensor) -> Tensor:
        if not named:
            found = weight_matching(y[:, :n], x[:, :n], layout)
            y = torch.cat([Action(layout, found.permutations, {})(y[:, :n]), y[:, n:]], 1)
        return geometry.nearest(x, y)

    return nearest
