"""Whether orbits are one point: a random network and copies moved by group elements, in canonical form and aligned.

It finds what theory does not foresee: members of an orbit that keep scales or signs of their own in canonical form, and
matchings that end in different local maxima of weight matching, which is NP-hard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import canonical_action
from wsflow.symmetry.matching.weight import orbit_matching
from wsflow.tracing.certificate import TOLERANCE, random_weights


@dataclass(frozen=True)
class OrbitCertificate:
    """Hold how far apart members of orbits stay, and what that is due to.

    Parameters
    ----------
    deviation : float
        Largest distance of two members after canonical form and alignment, over the norm of the network: rounding where
        orbits are one point.
    approximations : tuple of str
        Sentences that name the parameters that are only near one point, and why; none where all are.
    """

    deviation: float
    approximations: tuple[str, ...] = ()


def certify_orbits(architecture: Architecture, n_trials: int = 3, seed: int = 0) -> OrbitCertificate:
    """Bring orbits of random networks to one point by canonical forms and weight matching, and measure how well.

    Parameters
    ----------
    n_trials : int
        Random networks, each with so many copies that are moved by random group elements.

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> from wsflow.tracing.orbits import certify_orbits
    >>> certificate = certify_orbits(Architecture.mlp([4, 3, 2], "tanh"))
    >>> certificate.deviation < 1e-12, certificate.approximations
    (True, ())
    """
    generator = torch.Generator().manual_seed(seed)
    if not (architecture.groups or architecture.wires):
        return OrbitCertificate(0.0)
    spreads = torch.stack([_spreads(architecture, n_trials, generator) for _ in range(n_trials)]).amax(0)
    return OrbitCertificate(float(spreads.max()), tuple(_sentences(spreads, architecture)))


def _spreads(architecture: Architecture, n: int, generator: torch.Generator) -> Tensor:
    """Return how far canonical forms are from being permuted alike, and how far aligned ones are apart (2, d)."""
    row, other = random_weights(architecture, 2, generator).split(1)
    rows = row.expand(n, -1)
    action = Action.random(architecture, len(rows), generator)
    permuted = Action(architecture, action.permutations, {})
    canonical, moved = (canonical_action(w, architecture)(w) for w in (rows, action(rows)))
    expected, reference = permuted(canonical), canonical_action(other, architecture)(other)[0]
    aligned = [orbit_matching(w, reference, architecture)(w) for w in (canonical, expected)]
    differences = moved - expected, aligned[1] - aligned[0]
    return torch.stack([difference.abs().amax(0) for difference in differences]) / canonical[0].norm()


def _sentences(spreads: Tensor, architecture: Architecture) -> Iterator[str]:
    reasons = ("have no canonical scale or sign", "end at different local maxima of weight matching")
    for spread, reason in zip(spreads, reasons, strict=True):
        parts = {name: float(spread[columns].max()) for name, columns in architecture.slices.items()}
        names = [name for name, distance in parts.items() if not distance <= TOLERANCE]
        if names:
            yield f"{', '.join(names)}: members of an orbit {reason}, and stay up to {max(parts.values()):.1g} apart."
