"""Matchings: permutations and signs that bring networks close to a reference."""

from wsflow.symmetry.matching.activation import activation_matching
from wsflow.symmetry.matching.chain import best_chain
from wsflow.symmetry.matching.fixed_groups import fixed_groups
from wsflow.symmetry.matching.sinkhorn import sinkhorn_matching
from wsflow.symmetry.matching.straight_through import straight_through_matching
from wsflow.symmetry.matching.universe import universe_matching
from wsflow.symmetry.matching.weight import objective, orbit_matching, weight_matching

__all__ = [
    "activation_matching",
    "best_chain",
    "fixed_groups",
    "objective",
    "orbit_matching",
    "sinkhorn_matching",
    "straight_through_matching",
    "universe_matching",
    "weight_matching",
]
