"""Phases: whole half periods that bring the biases of sines into the half period around zero."""

from __future__ import annotations

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.running import take
from wsflow.symmetry.canonical.incoming import neurons_first


def phase_biases(architecture: Architecture) -> dict[str, tuple[Tensor, float]]:
    """Return by wire the columns (neurons,) of the biases that its phases shift, and the half period.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.symmetry.canonical.phases import phase_biases
    >>> {wire: columns.tolist() for wire, (columns, _) in phase_biases(Architecture.mlp([1, 2, 1], "sine")).items()}
    {'hidden1': [2, 3]}
    """
    return {
        wire: (neurons_first(torch.from_numpy(columns), block, axis)[:, 0], half_period)
        for _, block, columns in architecture.blocks
        for wire, axis, half_period in block.shifts
    }


def reducing_phases(weights: Tensor, columns: Tensor, half_period: float, scale: Tensor) -> Tensor:
    """Return the phases (n, neurons) that reduce the biases of weights (n, d) once they are scaled."""
    # half-open, so that both ends of a period meet
    return -(take(weights, columns) * scale / half_period + 0.5).floor().long()
