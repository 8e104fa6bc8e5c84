"""Canonical forms: one representative of each orbit of scalings and signs.

Along the forward pass, each neuron whose activation commutes with positive scalings gets incoming
weights of unit norm, s_i = 1 / |(W_i, b_i)|, and what it took away goes into the weights behind it. One pass is
canonical where each wire is produced before it is consumed; wires that feed back into what produces
them, such as a residual stream, would need several.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wsflow.activations import POSITIVE, SIGN
from wsflow.architecture import Architecture, Wire
from wsflow.networks import take
from wsflow.symmetry.actions import Action

Bias = Literal["inside", "outside"]


def incoming(weights: Tensor, architecture: Architecture, wire: Wire, bias: Bias = "inside") -> Tensor:
    """The incoming weights of each neuron of a wire.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture
    wire : Wire
    bias : {"inside", "outside"}
        Whether biases belong to the neuron's vector.

    Returns
    -------
    Tensor of shape (n, neurons, fan_in)
    """
    return take(weights, incoming_columns(architecture, wire, bias))


def incoming_columns(architecture: Architecture, wire: Wire, bias: Bias = "inside") -> Tensor:
    """The columns of the incoming weights of each neuron of a wire.

    Parameters
    ----------
    architecture : Architecture
    wire : Wire
    bias : {"inside", "outside"}

    Returns
    -------
    LongTensor of shape (neurons, fan_in)
    """
    parts = []
    for parameter, axis, parent, columns in architecture.produced_by(wire):
        if bias == "outside" and len(parameter.shape) == 1:
            continue
        # a nested group has its parent on an axis of its own
        axes = (axis,) if parent is None else (parent, axis)
        parts.append(torch.from_numpy(columns).movedim(axes, tuple(range(len(axes)))).reshape(wire.space.total, -1))
    return torch.cat(parts, 1)


def canonical_action(weights: Tensor, architecture: Architecture, bias: Bias = "inside", signs: bool = True) -> Action:
    """The scalings (and signs) that bring each network to its canonical form.

    A dead neuron, whose incoming weights are all zero, has no direction: it keeps its scale.
    The sign convention is that the incoming weights have a sum that is not negative.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture
    bias : {"inside", "outside"}
        Whether the unit norm includes the bias. Inside, a neuron with zero weights and a bias
        stays defined; outside is the choice of Erdogan 2025.
    signs : bool
        Whether to apply the sign convention; no, where a reference has decided.

    Returns
    -------
    Action

    Examples
    --------
    >>> import torch
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.canonical import canonical_action
    >>> architecture = Architecture.mlp([4, 3, 2])
    >>> w = torch.randn(1, 23)
    >>> canonical = canonical_action(w, architecture)(w)
    >>> torch.allclose(canonical[0, :12].square().sum() + canonical[0, 12:15].square().sum(), torch.tensor(3.0))
    True
    """
    action = Action.identity(architecture, len(weights))
    for wire in architecture.wires:
        scale = torch.ones(len(weights), wire.space.total, dtype=weights.dtype, device=weights.device)
        if POSITIVE in wire.scalings:
            norm = torch.linalg.vector_norm(incoming(weights, architecture, wire, bias), dim=-1)
            scale = torch.where(norm > 0, 1 / norm, scale)
        if SIGN in wire.scalings and signs:
            total = incoming(weights, architecture, wire).sum(-1)
            scale = torch.where(total < 0, -scale, scale)
        if not wire.scalings:
            continue
        step = Action(architecture, action.permutations, {wire.name: scale})
        weights = step(weights)
        action = step @ action
    return action
