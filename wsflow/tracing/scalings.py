"""From sums of variables that vanish to wires: which scalings and signs are free, and what scales with each.

All neurons of a group scale by the same rule, so one unknown stands for the variables of a parameter's axis there.
The constraints on unknowns are a linear system, over the rationals for logarithms of positive scales and modulo 2 for
signs. Its free unknowns are the wires: the earliest in the forward pass stay free, so that a wire is named by what
produces it, with exponent 1, and what consumes it has exponent -1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm

import numpy as np

from wsflow.activations import POSITIVE, SIGN
from wsflow.tracing.abstract_tensor import Array
from wsflow.tracing.constraints import Constraints
from wsflow.tracing.neuron_groups import DraftGroup, Neurons

# a sum of unknowns with coefficients
Sum = dict[int, Fraction]


@dataclass
class LinearSystem:
    """Homogeneous linear equations, over the rationals or modulo 2.

    Unknowns that come late are solved for, and before them those of neurons within others: where both are equal, all
    neurons in one parent scale alike.
    """

    depths: Sequence[int]
    modulo: int = 0
    solved: dict[int, Sum] = field(default_factory=dict)

    def add(self, equation: Sum) -> None:
        """Add the equation that this sum is zero."""
        rest = self.reduced(equation)
        if rest:
            pivot = max(rest, key=self._rank)
            coefficient = rest.pop(pivot)
            self.solved[pivot] = self._normal({k: -v / coefficient for k, v in rest.items()})

    def reduced(self, value: Sum) -> Sum:
        """Return the sum in terms of free unknowns."""
        value = self._normal(value)
        while known := [k for k in value if k in self.solved]:
            pivot = max(known, key=self._rank)
            coefficient = value.pop(pivot)
            for k, v in self.solved[pivot].items():
                value[k] = value.get(k, Fraction(0)) + coefficient * v
            value = self._normal(value)
        return value

    def exponents(self, unknown: int) -> dict[int, int]:
        """Return the exponents of all unknowns that scale with a free one, and of itself; nothing if it is not free."""
        if unknown in self.solved:
            return {}
        column: Sum = {unknown: Fraction(1)}
        for other in self.solved:
            value = self.reduced({other: Fraction(1)}).get(unknown)
            if value:
                column[other] = value
        scale = lcm(*(value.denominator for value in column.values()))
        return {k: int(v * scale) for k, v in column.items()}

    def _rank(self, unknown: int) -> tuple[int, int]:
        return self.depths[unknown], unknown

    def _normal(self, value: Sum) -> Sum:
        if self.modulo:
            value = {k: v % self.modulo for k, v in value.items()}
        return {k: v for k, v in value.items() if v}


@dataclass(frozen=True)
class Unknowns:
    """The unknown of each variable (-1 for neurons that do not move, which are not scaled), and the group it scales."""

    of_variable: Array
    groups: list[DraftGroup]


def find_unknowns(constraints: Constraints, neurons: Neurons) -> Unknowns:
    """Return one unknown for the variables made together of neurons of one colour, for each time that they occur."""
    result: list[Array] = []
    groups: list[DraftGroup] = []
    for owner in constraints.owners:
        keys: dict[tuple[int, int], int] = {}
        seen: dict[int, int] = {}
        own = np.full(owner.size, -1, dtype=np.int64)
        for i, neuron in enumerate(neurons.of_atom[owner.reshape(-1)].tolist()):
            occurrence = seen[neuron] = seen.get(neuron, -1) + 1
            # on a joint axis, a neuron that is alone in its parent scales with that, as outputs of members do
            if not neurons.own[neuron] and not (owner.ndim > 1 and len(neurons.coordinates[neuron]) == 1):
                continue
            key = (int(neurons.colours[neuron]), occurrence)
            if key not in keys:
                keys[key] = len(groups)
                groups.append(neurons.coordinates[neuron][-1][0])
            own[i] = keys[key]
        result.append(own)
    return Unknowns(np.concatenate([*result, np.empty(0, dtype=np.int64)]), groups)


@dataclass(frozen=True)
class FreeScaling:
    """A wire that gets its name later: a free unknown, its kinds (positive, sign), and exponents of all unknowns."""

    unknown: int
    kinds: frozenset[str]
    exponents: dict[int, int]


def free_scalings(constraints: Constraints, unknowns: Unknowns, phases: set[int]) -> list[FreeScaling]:
    """Return the free scalings and signs of a network, in the order of the forward pass.

    `phases` are unknowns that are signs behind a sine, which no parameter has: those of their sign have exponent -1.
    """
    depths = [group.depth for group in unknowns.groups]
    positive, sign, oriented = LinearSystem(depths), LinearSystem(depths, modulo=2), LinearSystem(depths)
    for unknown in phases:
        positive.add({unknown: Fraction(1)})
    for (is_positive, is_sign), rows in _equations(constraints, unknowns):
        for row in rows:
            scale = _sum((unknown, coefficient) for unknown, coefficient, _ in row)
            if is_positive:
                positive.add(scale)
            if is_sign:
                sign.add(_sum((unknown, coefficient) for unknown, _, coefficient in row))
                oriented.add(scale)
    found = []
    for unknown in range(len(depths)):
        scales, signs = positive.exponents(unknown), sign.exponents(unknown)
        if unknown in phases:
            signs = {k: -1 for k in signs if k != unknown}
        elif phases & set(signs):
            # a sign that needs a phase at once, as sin(pi - z) = sin z in front of a maximum: no wire has that
            signs = {}
        else:
            # as 1 or -1, where the equations tell producers from consumers
            directed = oriented.exponents(unknown)
            signs = directed if signs and _odd(directed) == set(signs) else signs
        if scales and signs and _odd(scales) == _odd(signs):
            found.append(FreeScaling(unknown, frozenset({POSITIVE, SIGN}), scales))
            continue
        kinds = ((POSITIVE, scales), (SIGN, signs))
        found += [FreeScaling(unknown, frozenset({kind}), exponents) for kind, exponents in kinds if exponents]
    return found


def without_joint_flips(found: list[FreeScaling], flipped: set[int]) -> list[FreeScaling]:
    """Return the scalings without signs of which several flip the same values: two at once add nothing, unlike one."""
    joint = {
        i
        for unknown in flipped
        for own in [[i for i, s in enumerate(found) if SIGN in s.kinds and s.exponents.get(unknown, 0) % 2]]
        if len(own) > 1
        for i in own
    }
    kept = [replace(s, kinds=s.kinds - {SIGN}) if i in joint else s for i, s in enumerate(found)]
    return [scaling for scaling in kept if scaling.kinds]


def _sum(terms: Iterable[tuple[int, int | Fraction]]) -> Sum:
    result: Sum = {}
    for unknown, coefficient in terms:
        if unknown >= 0:
            result[unknown] = result.get(unknown, Fraction(0)) + coefficient
    return result


def _equations(
    constraints: Constraints, unknowns: Unknowns
) -> Iterable[tuple[tuple[int, int], list[list[tuple[int, int | Fraction, int]]]]]:
    """Yield the sums that vanish, as lists of (unknown, coefficient for scales, for signs); equal ones once."""
    padded = np.append(unknowns.of_variable, -1)
    for kinds, terms in constraints.zero_sums:
        columns = np.stack([padded[variables.reshape(-1)] for _, _, variables in terms], 1)
        rows = np.unique(columns, axis=0).tolist()
        yield kinds, [[(u, p, s) for u, (p, s, _) in zip(row, terms, strict=True)] for row in rows]


def _odd(exponents: dict[int, int]) -> set[int]:
    return {k for k, v in exponents.items() if v % 2}
