"""The orbit of a network, for couplings modulo its symmetries."""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.flow.couplings import Nearest
from wsflow.geometry import Geometry
from wsflow.symmetry.actions import Action
from wsflow.symmetry.matching import weight_matching


def nearest_in_orbit(geometry: Geometry, is_named: bool) -> Nearest:
    """What brings targets close to sources by the symmetries that a flow does not tell apart.

    These are signs, flips and phases, and permutations where neurons have no names. Positive scalings have canonical
    forms of their own. A ValueError says that it needs an architecture.
    """
    layout = geometry.layout
    if layout is None:
        raise ValueError("coupling='orbit' knows symmetries, so it needs an architecture: fit a WeightArray.")
    n = layout.n_weights

    def permuted(x: Tensor, y: Tensor) -> Tensor:
        found = weight_matching(y[:, :n], x[:, :n], layout)
        return torch.cat([Action(layout, found.permutations, {})(y[:, :n]), y[:, n:]], 1)

    def nearest(x: Tensor, y: Tensor) -> Tensor:
        return geometry.nearest(x, y if is_named else geometry.moved(permuted, x, y))

    return nearest
