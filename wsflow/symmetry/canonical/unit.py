"""The canonical action: to one representative of each orbit of scalings, signs, phases and flips.

In the order of the forward pass, each neuron whose activation commutes with positive scalings gets incoming
weights of unit norm, s_i = 1 / |(W_i, b_i)|, and what it took away goes into the weights behind it; a neuron that
has signs or flips gets a sign, and one with phases a bias within half a period of zero. Wires that wait for each other
are decided together, by a convex minimum and by the largest weights. The balanced form goes on from there to the scales
with the smallest sum of squares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from wsflow.activations import FLIP, POSITIVE, SIGN
from wsflow.architecture import Architecture, Wire
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical.balanced import balanced_scales
from wsflow.symmetry.canonical.incoming import Bias, IncomingWeights, incoming_weights
from wsflow.symmetry.canonical.joint import joint_scales, joint_signs
from wsflow.symmetry.canonical.phases import phase_biases, reducing_phases
from wsflow.symmetry.canonical.signs import orientation

Form = Literal["unit", "balanced"]


def canonical_action(
    weights: Tensor, architecture: Architecture, bias: Bias = "inside", signs: bool = True, form: Form = "unit"
) -> Action:
    """Return the scalings (and signs, flips and phases) that bring each network to its canonical form.

    A dead neuron, whose incoming weights are all zero, has no direction: it keeps its scale. Where wires feed back
    into what produces them, such as a residual stream, unit norm is that of the producers that come first, which
    the wires behind do not change. Wires that cross, such as those of rows and columns of one matrix of gains, and
    circles that nothing enters have no first producer: `joint_scales` and `joint_signs` decide on them. The sign
    convention is that the incoming weights have a sum that is not negative, or where it is zero the sum of their cubes,
    and so on; it is applied in the unit form, and kept in the balanced one.

    Parameters
    ----------
    weights : Tensor of shape (n, d)
    bias : {"inside", "outside"}
        Whether norms include the biases. Inside, a neuron with zero weights and a bias
        stays defined; outside is the choice of Erdogan 2025.
    signs : bool
        Whether to apply the sign convention, and to reduce phases; no, where a reference has decided.
    form : {"unit", "balanced"}
        Unit norm of the incoming weights, or the smallest sum of squares of all weights.

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
    if weights.dtype != torch.float64 and action.is_extreme:
        return canonical_action(weights.double(), architecture, bias, signs, form)
    if form == "balanced":
        # from the unit form, on which signs and flips of the whole orbit agree
        action = Action(architecture, {}, balanced_scales(action(weights), architecture, bias)) @ action
    return action


def _steps(weights: Tensor, architecture: Architecture, bias: Bias, signs: bool) -> Iterator[Action]:
    """Yield the actions of one wire after the other, each made from what the ones before have left."""
    biases = phase_biases(architecture)
    # scalings alone need not be carried out on all weights to see what they leave: the next norms tell
    adds = any(block.shifts or block.shears for _, block, _ in architecture.blocks)
    scales: dict[str, Tensor] = {}
    order = incoming_weights(architecture)
    first = next((i for i, incoming in enumerate(order) if not incoming.acyclic), len(order))
    for i, incoming in enumerate(order):
        if i == first:
            weights, scales = Action(architecture, {}, scales)(weights), {}
            step = _joint_step(weights, architecture, [d.wire for d in order[i:]], bias, signs)
            weights = step(weights)
            yield step
        name, scale, phases = incoming.wire.name, _scale(weights, incoming, scales, bias, signs), {}
        if signs and name in biases:
            phases[name] = reducing_phases(weights, *biases[name], scale)
        step = Action(architecture, {}, {name: scale}, phases)
        if adds:
            weights = step(weights)
        else:
            scales.update(step.scales)
        yield step


def _joint_step(weights: Tensor, architecture: Architecture, wires: Sequence[Wire], bias: Bias, signs: bool) -> Action:
    """Return one action for all these wires: what comes first among them cannot be told, and the others follow it."""
    positive = [wire.name for wire in wires if POSITIVE in wire.scalings]
    scaling = Action(architecture, {}, joint_scales(weights, architecture, positive, bias))
    if not signs:
        return scaling
    phases = {
        name: reducing_phases(scaling(weights), *where, torch.ones(()))
        for name, where in phase_biases(architecture).items()
    }
    action = Action(architecture, {}, {}, phases) @ scaling
    turned = [wire.name for wire in wires if wire.scalings & {SIGN, FLIP}]
    return Action(architecture, {}, joint_signs(action(weights), architecture, turned)) @ action


def _scale(weights: Tensor, incoming: IncomingWeights, scales: dict[str, Tensor], bias: Bias, signs: bool) -> Tensor:
    scale = weights.new_ones(len(weights), incoming.wire.space.total)
    if POSITIVE in incoming.wire.scalings and incoming.acyclic:
        norm = incoming.norms(weights, scales, bias)
        scale = torch.where(norm > 0, 1 / norm, scale)
    if signs and incoming.acyclic and incoming.wire.scalings & {SIGN, FLIP}:
        scale = scale * orientation(incoming.signed_vectors(weights, scales))
    return scale
