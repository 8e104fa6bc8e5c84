"""From sums of variables that vanish to wires: which scalings and signs are free, and what moves with each.

All neurons of a group scale by the same rule, so one unknown stands for the variables of a parameter's axis there.
What is demanded of unknowns is a linear system, over the rationals for logarithms of positive scales and modulo 2 for
signs. Its free unknowns are the wires: the earliest in the forward pass stay free, so that a wire is named by what
produces it, with exponent 1, and what consumes it has exponent -1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm

import numpy as np

from wsflow.tracing.labels import Array, Ledger
from wsflow.tracing.neurons import Family, Neurons

# a sum of unknowns with coefficients
Sum = dict[int, Fraction]


@dataclass
class System:
    """Homogeneous linear equations, over the rationals or modulo 2.

    Unknowns that come late are solved for, and before them those of neurons within others: where both are equal, all
    neurons in one parent scale alike.
    """

    depths: Sequence[int]
    modulo: int = 0
    solved: dict[int, Sum] = field(default_factory=dict)

    def demand(self, equation: Sum) -> None:
        """This sum is zero."""
        rest = self.reduced(equation)
        if rest:
            pivot = max(rest, key=self._rank)
            coefficient = rest.pop(pivot)
            self.solved[pivot] = self._normal({k: -v / coefficient for k, v in rest.items()})

    def reduced(self, value: Sum) -> Sum:
        """The sum in terms of unknowns that are free."""
        value = self._normal(value)
        while known := [k for k in value if k in self.solved]:
            pivot = max(known, key=self._rank)
            coefficient = value.pop(pivot)
            for k, v in self.solved[pivot].items():
                value[k] = value.get(k, Fraction(0)) + coefficient * v
            value = self._normal(value)
        return value

    def _rank(self, unknown: int) -> tuple[int, int]:
        return self.depths[unknown], unknown

    def _normal(self, value: Sum) -> Sum:
        if self.modulo:
            value = {k: v % self.modulo for k, v in value.items()}
        return {k: v for k, v in value.items() if v}


@dataclass(frozen=True)
class Unknowns:
    """The unknowns of a network.

    Parameters
    ----------
    of_variable : ndarray of int
        The unknown of each variable; -1 where neurons do not move, which are not scaled.
    families : list of Family
        The group whose neurons each unknown scales.
    """

    of_variable: Array
    families: list[Family]


def unknowns(ledger: Ledger, neurons: Neurons) -> Unknowns:
    """One unknown for the variables of one owner whose neurons have one colour, and for each time that they occur."""
    result: list[Array] = []
    families: list[Family] = []
    for owner in ledger.owners:
        keys: dict[tuple[int, int], int] = {}
        seen: dict[int, int] = {}
        own = np.full(owner.size, -1, dtype=np.int64)
        for i, neuron in enumerate(neurons.of_atom[owner].tolist()):
            occurrence = seen[neuron] = seen.get(neuron, -1) + 1
            if not neurons.own[neuron]:
                continue
            key = (int(neurons.colours[neuron]), occurrence)
            if key not in keys:
                keys[key] = len(families)
                families.append(neurons.places[neuron][-1][0])
            own[i] = keys[key]
        result.append(own)
    return Unknowns(np.concatenate([*result, np.empty(0, dtype=np.int64)]), families)


@dataclass(frozen=True)
class Thread:
    """A wire that has no name yet: one free unknown, with the exponents of all others.

    Parameters
    ----------
    unknown : int
    kinds : frozenset of {"positive", "sign"}
    exponents : dict from int to int
        By unknown.
    """

    unknown: int
    kinds: frozenset[str]
    exponents: dict[int, int]


def threads(ledger: Ledger, known: Unknowns, phases: Iterable[int] = ()) -> list[Thread]:
    """The free scalings and signs of a network, in the order of the forward pass.

    Parameters
    ----------
    ledger : Ledger
    known : Unknowns
    phases : iterable of int
        Unknowns that are signs behind a sine, which no parameter has: what they turn has exponent -1.
    """
    depths = [family.depth for family in known.families]
    positive, sign, oriented = System(depths), System(depths, modulo=2), System(depths)
    phases = set(phases)
    for unknown in phases:
        positive.demand({unknown: Fraction(1)})
    for (is_positive, is_sign), rows in _equations(ledger, known):
        for row in rows:
            scale = _sum((unknown, coefficient) for unknown, coefficient, _ in row)
            if is_positive:
                positive.demand(scale)
            if is_sign:
                sign.demand(_sum((unknown, coefficient) for unknown, _, coefficient in row))
                oriented.demand(scale)
    count = len(known.families)
    found = []
    for unknown in range(count):
        scales, signs = _exponents(positive, unknown, count), _exponents(sign, unknown, count)
        if unknown in phases:
            signs = {k: -1 for k in signs if k != unknown}
        elif phases & set(signs):
            # a sign that needs a phase at once, as sin(pi - z) = sin z in front of a maximum: no wire says that
            signs = {}
        else:
            signs = _directed(signs, _exponents(oriented, unknown, count))
        if scales and signs and _odd(scales) == _odd(signs):
            found.append(Thread(unknown, frozenset({"positive", "sign"}), scales))
            continue
        kinds = (("positive", scales), ("sign", signs))
        found += [Thread(unknown, frozenset({kind}), exponents) for kind, exponents in kinds if exponents]
    return found


def alone(found: list[Thread], flipped: set[int]) -> list[Thread]:
    """Without signs of which several flip the same values: two at once leave nothing behind, which no wire says."""
    several = {
        i
        for unknown in flipped
        for own in [[i for i, t in enumerate(found) if "sign" in t.kinds and t.exponents.get(unknown, 0) % 2]]
        if len(own) > 1
        for i in own
    }
    kept = [replace(t, kinds=t.kinds - {"sign"}) if i in several else t for i, t in enumerate(found)]
    return [thread for thread in kept if thread.kinds]


def _sum(terms: Iterable[tuple[int, int]]) -> Sum:
    result: Sum = {}
    for unknown, coefficient in terms:
        if unknown >= 0:
            result[unknown] = result.get(unknown, Fraction(0)) + coefficient
    return result


def _equations(ledger: Ledger, known: Unknowns) -> Iterable[tuple[tuple[int, int], list[list[tuple[int, int, int]]]]]:
    """What vanishes, as lists of (unknown, coefficient for scales, for signs); equal ones once."""
    padded = np.append(known.of_variable, -1)
    for kinds, terms in ledger.vanishing:
        columns = np.stack([padded[variables.reshape(-1)] for _, _, variables in terms], 1)
        rows = np.unique(columns, axis=0).tolist()
        yield kinds, [[(u, p, s) for u, (p, s, _) in zip(row, terms, strict=True)] for row in rows]


def _exponents(system: System, unknown: int, count: int) -> dict[int, int]:
    """What moves with a free unknown; nothing if it is not free."""
    if unknown in system.solved:
        return {}
    column: Sum = {unknown: Fraction(1)}
    for other in system.solved:
        value = system.reduced({other: Fraction(1)}).get(unknown)
        if value:
            column[other] = value
    scale = lcm(*(value.denominator for value in column.values()))
    return {k: int(v * scale) for k, v in column.items() if k < count}


def _odd(exponents: dict[int, int]) -> set[int]:
    return {k for k, v in exponents.items() if v % 2}


def _directed(signs: dict[int, int], oriented: dict[int, int]) -> dict[int, int]:
    """Exponents of signs as 1 or -1, where the equations say which produces and which consumes."""
    return oriented if signs and _odd(oriented) == set(signs) else signs
