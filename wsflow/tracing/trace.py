"""What is known while a network is traced: the abstract tensors of its parameters, and the constraints on them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from wsflow.tracing import reshaping
from wsflow.tracing.abstract_tensor import AbstractTensor, Array, Bias, NeuronAxis, unsheared
from wsflow.tracing.constraints import Constraints


class UnknownOperation(ValueError):
    """An operation that the tracer does not understand."""


@dataclass
class ParameterSlice:
    """Rows of a parameter, or a reshaped view of the whole, with an abstract tensor of their own.

    `joint` has the axes on several of its dimensions, whose neurons depend on each other.
    """

    start: int
    stop: int
    tensor: AbstractTensor
    joint: dict[tuple[int, ...], NeuronAxis] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseShift:
    """A bias to which a phase adds `unit`, and the variables that are then signs."""

    parameter: str
    variables: Array
    unit: float


@dataclass(frozen=True)
class FlipShear:
    """A weight and the bias to which flips of the weight's variables add `amount` times its columns."""

    weight: str
    bias: str
    variables: Array
    amount: float


@dataclass
class Trace:
    """The state of a trace; `parameters` has the shapes of all parameters and buffers by name.

    `separate` are names of parameters whose axes are never joined, `nested` those whose joint neurons lie in parents
    along their first axes. `shape` and `n_results` are those of the operation at hand.
    """

    parameters: dict[str, tuple[int, ...]]
    separate: Collection[str] = ()
    nested: Collection[str] = ()
    constraints: Constraints = field(default_factory=Constraints)
    slices: dict[str, list[ParameterSlice]] = field(default_factory=dict)
    statistics: set[str] = field(default_factory=set)
    shifts: list[PhaseShift] = field(default_factory=list)
    shears: list[FlipShear] = field(default_factory=list)
    uses: dict[str, int] = field(default_factory=dict)
    # axes of parameters by their atoms, which increase
    origins: list[tuple[ParameterSlice, NeuronAxis]] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    n_results: int = 1

    def new_tensor(self, shape: tuple[int, ...], name: str = "") -> AbstractTensor:
        """Return a tensor with new neurons along each dimension, as a parameter has them."""
        axes = tuple(self._new_axis((dim,), [size]) for dim, size in enumerate(shape) if size > 1)
        return AbstractTensor(shape, axes, (), parameter=name)

    def _new_axis(self, dims: tuple[int, ...], sizes: Sequence[int]) -> NeuronAxis:
        atoms = self.constraints.new_atoms(sizes)
        return NeuronAxis(dims, atoms, ((1, 1, self.constraints.new_variables(atoms)),))

    def parameter(self, name: str) -> AbstractTensor:
        """Return the tensor of a whole parameter."""
        self.uses[name] = self.uses.get(name, 0) + 1
        shape = self.parameters[name]
        return self._slice(name, 0, shape[0] if shape else 1, shape)

    def rows(self, name: str, start: int, stop: int) -> AbstractTensor:
        """Return the tensor of these rows of a parameter, as if they were a parameter of their own."""
        return replace(self._slice(name, start, stop, (stop - start, *self.parameters[name][1:])), parameter="")

    def _slice(self, name: str, start: int, stop: int, shape: tuple[int, ...]) -> AbstractTensor:
        for known in self.slices.setdefault(name, []):
            if (known.start, known.stop) == (start, stop):
                return known.tensor
        tensor = self.new_tensor(shape, name)
        self.slices[name].append(ParameterSlice(start, stop, tensor))
        if name not in self.separate:
            self.origins += [(self.slices[name][-1], axis) for axis in tensor.axes]
        return tensor

    def origin(self, atom: int) -> tuple[ParameterSlice, NeuronAxis] | None:
        """Return the parameter's axis among whose neurons an atom is, or None."""
        i = bisect_right(self.origins, atom, key=lambda entry: int(entry[1].atoms[0])) - 1
        found = i >= 0 and atom - self.origins[i][1].atoms[0] < len(self.origins[i][1].atoms)
        return self.origins[i] if found else None

    def joint_axis(self, part: ParameterSlice, dims: tuple[int, ...]) -> NeuronAxis:
        """Return the axis of a parameter on several of its dimensions."""
        if dims not in part.joint:
            sizes = [part.tensor.shape[dim] for dim in dims]
            part.joint[dims] = self._new_axis(dims, sizes)
            for k in range(1, len(dims)) if part.tensor.parameter in self.nested else ():
                parents = NeuronAxis(dims[:k], self.constraints.new_atoms(sizes[:k]))
                self.constraints.nest(part.joint[dims], parents, sizes)
        return part.joint[dims]

    def grouped(self, weight: AbstractTensor, groups: int) -> AbstractTensor:
        """Return a kernel as (groups, outputs, inputs, ...) of a group: each group has inputs of its own."""
        name = weight.parameter
        if name and len(weight.shape) > len(self.parameters[name]):
            return weight  # used before, by these groups
        shape = (groups, weight.shape[0] // groups, *weight.shape[1:])
        whole = next((known for known in self.slices.get(name, []) if known.tensor is weight), None)
        if whole is None:
            # no parameter itself: what all groups share is fixed
            return reshaping.reshape(self.constraints, weight, shape)
        axes = [self._new_axis((0, 2), (groups, shape[2]))]
        for axis in weight.axes:
            if axis.dims == (0,):
                axes.insert(0, axis.view((0, 1), shape[:2]))
            elif axis.dims != (1,):
                axes.append(replace(axis, dims=(axis.dims[0] + 1,)))
        whole.tensor = self.constraints.squeeze(AbstractTensor(shape, tuple(axes), (), parameter=name))
        return whole.tensor

    def nest_along(self, tensor: AbstractTensor, dims: Sequence[int]) -> None:
        """Nest neurons along these dimensions, which an operation mixes, in parents along their other dimensions."""
        mixed = {dim % len(tensor.shape) for dim in dims}
        for axis in tensor.axes_on(mixed):
            rest = tuple(dim for dim in axis.dims if dim not in mixed)
            if rest:
                parent = NeuronAxis(rest, self.constraints.new_atoms([tensor.shape[dim] for dim in rest]))
                self.constraints.nest(axis, parent, [tensor.shape[dim] for dim in axis.dims])

    def absorb_flips(
        self, input: AbstractTensor, weight: AbstractTensor, bias: AbstractTensor | None, dim: int, column: int
    ) -> AbstractTensor:
        """Return the input of a linear map whose bias absorbs the constants that flips add; without one, forbid flips.

        The map sums over dimension `dim` of the input and `column` of the weight.
        """
        known = weight.parameter and weight.shape == self.parameters.get(weight.parameter)
        own = next((axis for axis in weight.axes if axis.dims == (column,)), None)
        for axis in input.axes:
            if axis.shear is None:
                continue
            if axis.dims == (dim,) and own is not None and known and bias is not None and bias.parameter:
                self.shears.append(FlipShear(weight.parameter, bias.parameter, own.terms[0][2], axis.shear))
            else:
                self.constraints.require_zero(axis.terms, axis.atoms, positive=False)
        return unsheared(input)

    def phase_shift(self, tensor: AbstractTensor, bias: Bias, phase: float) -> AbstractTensor:
        """Return a tensor behind a sine, where a phase of the bias is a sign."""
        own = self.parameters.get(bias.parameter, ())
        known = self.slices.get(bias.parameter)
        if len(tensor.axes) != 1 or not known or len(own) != 1 or len(known[0].tensor.axes) != 1:
            return tensor
        axis = tensor.axes[0]
        if axis.atoms.shape != own:
            return tensor
        variables = self.constraints.new_variables(axis.atoms)
        self.shifts.append(PhaseShift(bias.parameter, variables, phase / abs(bias.factor)))
        return replace(tensor, axes=(replace(axis, terms=(*axis.terms, (0, 1, variables))),))

    def opaque(self, tensors: Sequence[AbstractTensor]) -> AbstractTensor:
        """Return the result of an operation that is not understood: no symmetry acts on its operands."""
        for tensor in tensors:
            self.constraints.freeze(tensor)
        return AbstractTensor(self.shape)


def scaleless(tensor: AbstractTensor) -> AbstractTensor:
    """Return a tensor of the same neurons, whose numbers do not scale: positions of maxima."""
    return replace(tensor.generic(), axes=tuple(replace(axis, terms=(), shear=None) for axis in tensor.axes))
