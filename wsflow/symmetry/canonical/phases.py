"""Phases: whole half periods that bring the biases of sines into the half period around zero, or near to others."""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.activations import PHASE, SIGN
from wsflow.architecture import Architecture
from wsflow.running import take
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical.incoming import incoming_weights, neurons_first
from wsflow.symmetry.centring import compared


def phase_biases(architecture: Architecture) -> dict[str, tuple[Tensor, float]]:
    """Return by wire the columns (neurons,) of the biases that its phases shift, and the half period."""
    return {
        wire: (neurons_first(torch.from_numpy(columns), block, axis)[:, 0], half_period)
        for _, block, columns in architecture.blocks
        for wire, axis, half_period in block.shifts
    }


def reducing_phases(weights: Tensor, columns: Tensor, half_period: float, scale: Tensor) -> Tensor:
    """Return the phases (n, neurons) that reduce the biases of weights (n, d) once they are scaled."""
    # half-open, so that both ends of a period meet
    return -(take(weights, columns) * scale / half_period + 0.5).floor().long()


def with_whole_periods(action: Action, weights: Tensor, reference: Tensor) -> Action:
    """Return an action that also brings biases within half a period, u, of those of a reference (d,) or (n, d).

    What it adds are whole periods, 2 u, which change nothing else.
    """
    biases = phase_biases(action.architecture)
    if not biases:
        return action
    moved, reference = action(weights), reference.to(weights)
    phases = {
        wire: 2 * ((take(reference.reshape(-1, weights.shape[1]) - moved, columns) / (2 * u)).round().long())
        for wire, (columns, u) in biases.items()
    }
    return Action(action.architecture, {}, {}, phases) @ action


def with_nearest_phases(action: Action, weights: Tensor, reference: Tensor) -> Action:
    """Return an action that also reflects sines, sin(pi - z) = sin z, and adds whole periods, towards a reference.

    Neither changes an activation: methods that compare these leave it open. A neuron is reflected where the incoming
    weights come nearer to those of the reference (d,) or (n, d) by it.
    """
    architecture = action.architecture
    biases = phase_biases(architecture)
    if not biases:
        return action
    moved, reference = action(weights), reference.reshape(-1, weights.shape[1]).to(weights)
    circles = compared(moved, architecture) * compared(reference, architecture)
    scales, phases = {}, {}
    for incoming in incoming_weights(architecture):
        wire = incoming.wire
        if wire.name in biases and {SIGN, PHASE} <= wire.scalings:
            cosines = take(circles, biases[wire.name][0])
            others = (incoming.signed_vectors(moved, {}) * incoming.signed_vectors(reference, {})).sum(-1)
            reflected = others + cosines < 0
            scales[wire.name] = torch.where(reflected, -1.0, 1.0).to(weights)
            phases[wire.name] = reflected.long()
    return with_whole_periods(Action(architecture, {}, scales, phases) @ action, weights, reference)
