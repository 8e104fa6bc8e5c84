"""The solution of the constraints of a trace: which neurons change places, and which scalings are free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from wsflow.tracing.abstract_tensor import AbstractTensor, Array, NeuronAxis, negated
from wsflow.tracing.neuron_groups import Coordinates, DraftGroup, Neurons, find_neurons
from wsflow.tracing.scalings import FreeScaling, Unknowns, find_unknowns, free_scalings, without_joint_flips
from wsflow.tracing.stacking import link
from wsflow.tracing.trace import ParameterSlice, Trace

# what a coordinate is scaled by: the numbers of free scalings, and their exponents
Scale = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Solution:
    """The neurons and free scalings of a network.

    `phases` are the unknowns that are signs behind a sine, `flipped` those of weights whose flips add to a bias.
    """

    neurons: Neurons
    unknowns: Unknowns
    phases: set[int]
    flipped: set[int]
    scalings: list[FreeScaling]
    exponents: dict[int, list[tuple[int, int]]]

    def coordinates(self, atom: int) -> Coordinates:
        """Return where the neuron of an atom lies in its groups."""
        return self.neurons.coordinates[self.neurons.of_atom[atom]]

    def scale(self, variable: int) -> Scale:
        """Return what scales the coordinates of a variable."""
        unknown = int(self.unknowns.of_variable[variable]) if variable >= 0 else -1
        return tuple(self.exponents.get(unknown, ()))


def solve(trace: Trace) -> Solution:
    """Return the solution of a trace's constraints, to which its parameters are added first."""
    for name, slices in trace.slices.items():
        _unify_rows(trace, name, slices)
    for slices in trace.slices.values():
        for part in slices:
            link(trace.constraints, part)
            joint = {dim for dims in part.joint for dim in dims}
            own = [axis for axis in part.tensor.axes if joint.isdisjoint(axis.dims)]
            part.tensor = replace(part.tensor, axes=(*own, *part.joint.values()))
            for axis in part.tensor.axes:
                trace.constraints.mark(axis.atoms)
    neurons = find_neurons(trace.constraints)
    unknowns = find_unknowns(trace.constraints, neurons)
    phases = _of_variables(unknowns, (shift.variables for shift in trace.shifts))
    flipped = _of_variables(unknowns, (shear.variables for shear in trace.shears))
    scalings = without_joint_flips(free_scalings(trace.constraints, unknowns, phases), flipped)
    exponents: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for i, scaling in enumerate(scalings):
        for unknown, exponent in scaling.exponents.items():
            exponents[unknown].append((i, exponent))
    return Solution(neurons, unknowns, phases, flipped, scalings, dict(exponents))


def crossing(trace: Trace, solution: Solution) -> set[str]:
    """Return names of parameters whose joint neurons cannot be told by one axis after the other.

    They only move along with two parents, as shared units do; or they are one group over several axes, although some
    were nested along them.
    """
    return {name for name, axis in _joint_axes(trace) if _has_two_parents(solution, axis) or _spread(solution, axis)}


def spread(trace: Trace, solution: Solution) -> set[str]:
    """Return a parameter of each group that lies on several of its axes: units of members that are summed at once.

    A block permutes one axis within another, so that of such a group the permutations within each coordinate of the
    first axis, and those of its coordinates, are kept.
    """
    found = {group: name for name, axis in reversed(list(_joint_axes(trace))) for group in _spread(solution, axis)}
    return set(found.values())


def _joint_axes(trace: Trace) -> Iterator[tuple[str, NeuronAxis]]:
    return ((n, axis) for n, slices in trace.slices.items() for part in slices for axis in part.joint.values())


def _has_two_parents(solution: Solution, axis: NeuronAxis) -> bool:
    return any(
        b.parent is not a
        for neuron in np.unique(solution.neurons.of_atom[axis.atoms]).tolist()
        for (a, _), (b, _) in pairwise(solution.neurons.coordinates[neuron])
    )


def _spread(solution: Solution, axis: NeuronAxis) -> list[DraftGroup]:
    """Return the groups that have their neurons along several dimensions of a joint axis."""
    dims: dict[DraftGroup, set[int]] = defaultdict(set)
    for dim in range(axis.atoms.ndim):
        along = np.moveaxis(axis.atoms, dim, 0)
        for atom, following in zip(along[:-1].flat, along[1:].flat, strict=True):
            places = zip(solution.coordinates(int(atom)), solution.coordinates(int(following)), strict=False)
            here, there = next(((a, b) for a, b in places if a != b), (None, None))
            if here is not None and there is not None and here[0] is there[0]:
                dims[here[0]].add(dim)
    return [group for group, found in dims.items() if len(found) > 1]


def _of_variables(unknowns: Unknowns, variables: Iterable[Array]) -> set[int]:
    return {unknown for own in variables for unknown in unknowns.of_variable[own.reshape(-1)].tolist()} - {-1}


def _unify_rows(trace: Trace, name: str, slices: list[ParameterSlice]) -> None:
    """Replace rows that overlap by the whole parameter, with the constraints of all; add rows that nothing uses."""
    shape = trace.parameters[name]
    spans = sorted((part.start, part.stop) for part in slices)
    if all(a[1] <= b[0] for a, b in pairwise(spans)):
        covered = {row for start, stop in spans for row in range(start, stop)}
        unused = [row for row in range(shape[0] if shape else 1) if row not in covered]
        slices += [ParameterSlice(row, row + 1, AbstractTensor((1, *shape[1:]))) for row in unused]
        return
    whole = next((part for part in slices if part.stop - part.start == shape[0]), None)
    whole = whole or ParameterSlice(0, shape[0], trace.new_tensor(shape))
    for part in slices:
        link(trace.constraints, part, shared=True)
        part.joint.clear()
        for axis in part.tensor.axes if part is not whole else ():
            own = next(other for other in whole.tensor.axes if other.dims == axis.dims)
            own = own.take(0, np.arange(part.start, part.stop)) if axis.dims == (0,) else own
            trace.constraints.unify(axis.atoms, own.atoms)
            trace.constraints.require_zero([*axis.terms, *negated(own.terms)], axis.atoms)
    slices[:] = [whole]
