"""Canonical forms: one representative of each orbit of scalings, signs, phases and flips.

In the order of the forward pass, each neuron whose activation commutes with positive scalings gets incoming
weights of unit norm, s_i = 1 / |(W_i, b_i)|, and what it took away goes into the weights behind it; a neuron that
has signs or flips gets a sign, and one with phases a bias within half a period of zero. The balanced form goes on
from there to the scales with the smallest sum of squares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from wsflow.activations import FLIP, POSITIVE, SIGN
from wsflow.architecture import Architecture, Wire
from wsflow.running import take
from wsflow.symmetry.actions import Action
from wsflow.symmetry.balanced import balanced_scales
from wsflow.symmetry.decisions import Bias, Decision, decisions, shifted_biases

Form = Literal["unit", "balanced"]


def incoming(weights: Tensor, architecture: Architecture, wire: Wire, bias: Bias = "inside") -> Tensor:
    """The incoming weights of each neuron of a wire that decide on its scale.

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
    """The columns of the incoming weights of each neuron of a wire that decide on its scale.

    They are those of all producers, or, where wires feed back, of those that come first: see `decisions`.

    Parameters
    ----------
    architecture : Architecture
    wire : Wire
    bias : {"inside", "outside"}

    Returns
    -------
    LongTensor of shape (neurons, fan_in)
    """
    found = (d.columns(bias) for d in decisions(architecture) if d.wire.name == wire.name)
    return next(found, torch.empty(wire.space.total, 0, dtype=torch.long))


def canonical_action(
    weights: Tensor, architecture: Architecture, bias: Bias = "inside", signs: bool = True, form: Form = "unit"
) -> Action:
    """The scalings (and signs, flips and phases) that bring each network to its canonical form.

    A dead neuron, whose incoming weights are all zero, has no direction: it keeps its scale. Where wires feed back
    into what produces them, such as a residual stream, unit norm is that of the producers that come first, which
    the wires behind do not change; a circle of wires that nothing enters keeps its scale. The sign convention is that
    the incoming weights have a sum that is not negative, or where it is zero the sum of their cubes, and so on; it is
    applied in the unit form, and kept in the balanced one.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    architecture : Architecture
    bias : {"inside", "outside"}
        Whether norms include the biases. Inside, a neuron with zero weights and a bias
        stays defined; outside is the choice of Erdogan 2025.
    signs : bool
        Whether to apply the sign convention; no, where a reference has decided. Phases are reduced in any case.
    form : {"unit", "balanced"}
        Unit norm of the incoming weights, or the smallest sum of squares of all weights.

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
    for step in _steps(weights, architecture, bias, signs):
        action = step @ action
    if form == "balanced":
        # from the unit form, on which signs and flips of the whole orbit agree
        action = Action(architecture, {}, balanced_scales(action(weights), architecture, bias)) @ action
    return action


def _steps(weights: Tensor, architecture: Architecture, bias: Bias, signs: bool) -> Iterator[Action]:
    """The actions of one wire after the other, each made from what the ones before have left."""
    biases = {wire: (columns, unit) for wire, columns, unit in shifted_biases(architecture)}
    # scalings alone need not be carried out on all weights to see what they leave: the next norms tell
    adds = any(block.shifts or block.shears for _, block, _ in architecture.blocks)
    scales: dict[str, Tensor] = {}
    for decision in decisions(architecture):
        scale = _scale(weights, decision, scales, bias, signs)
        phases = {}
        if decision.wire.name in biases:
            columns, unit = biases[decision.wire.name]
            # half-open, so that both ends of a period meet
            phases[decision.wire.name] = -(take(weights, columns) * scale / unit + 0.5).floor().long()
        step = Action(architecture, {}, {decision.wire.name: scale}, phases)
        if adds:
            weights = step(weights)
        else:
            scales.update(step.scales)
        yield step


def _scale(weights: Tensor, decision: Decision, scales: dict[str, Tensor], bias: Bias, signs: bool) -> Tensor:
    scale = weights.new_ones(len(weights), decision.wire.space.total)
    if POSITIVE in decision.wire.scalings and decision.free:
        norm = decision.norms(weights, scales, bias)
        scale = torch.where(norm > 0, 1 / norm, scale)
    if signs and decision.wire.scalings & {SIGN, FLIP}:
        scale = scale * orientation(decision.oriented(weights, scales))
    return scale


def orientation(rows: Tensor) -> Tensor:
    """The sign that makes the first odd power sum of each vector positive that is not zero up to rounding.

    A vector whose odd power sums all vanish is its own negative up to the order of its entries: it keeps its sign.

    Parameters
    ----------
    rows : Tensor of shape (..., fan_in)

    Returns
    -------
    Tensor of shape (...)
        1 or -1.

    Examples
    --------
    >>> import torch
    >>> from wsflow.symmetry.canonical import orientation
    >>> orientation(torch.tensor([[1.0, -3.0], [2.0, -2.0], [0.0, 0.0]]))
    tensor([-1.,  1.,  1.])
    >>> orientation(torch.tensor([1.0, 2.0, -3.0]))
    tensor(-1.)
    """
    sign = _clear(rows.sum(-1), torch.linalg.vector_norm(rows, 1, dim=-1))
    open_ = sign == 0
    # higher powers take long, and few neurons need them
    if rows.shape[-1] and open_.any():
        sign[open_] = _higher(rows[open_])
    return torch.where(sign == 0, 1.0, sign)


def _higher(rows: Tensor) -> Tensor:
    rows = rows / rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    sign = rows.new_zeros(rows.shape[:-1])
    for power in (3, 5, 7):
        found = _clear((rows**power).sum(-1), (rows.abs() ** power).sum(-1))
        sign = torch.where(sign == 0, found, sign)
    return sign


def _clear(moment: Tensor, size: Tensor) -> Tensor:
    """The sign of a sum, or zero where it is rounding."""
    return torch.where(moment.abs() > torch.finfo(moment.dtype).eps ** (2 / 3) * size, moment.sign(), 0.0)
