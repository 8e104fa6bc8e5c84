"""Canonical forms: one representative of each orbit of scalings, signs, flips and phases."""

from wsflow.symmetry.canonical.balanced import balanced_scales
from wsflow.symmetry.canonical.incoming import Bias, incoming_columns
from wsflow.symmetry.canonical.unit import Form, canonical_action

__all__ = ["Bias", "Form", "balanced_scales", "canonical_action", "incoming_columns"]
