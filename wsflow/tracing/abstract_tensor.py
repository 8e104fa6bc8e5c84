"""Abstract tensors: what a symmetry does to each coordinate of a tensor, while a network is traced.

Every coordinate of every axis of a parameter gets an *atom* and a *variable*: the neuron that it belongs to, and the
logarithm of its scale. An abstract tensor has the atom, and the sum of variables, of each of its coordinates. A
*neuron axis* covers several dimensions where neurons lie in neurons (channels in heads). Dimensions without one are
fixed: examples, tokens, pixels. Running a graph on abstract values is abstract interpretation.

References
----------
Cousot and Cousot 1977, "Abstract interpretation", POPL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

# the atom of a padded zero, which every permutation and scaling keeps; and the absence of a variable
ABSENT = -1
Array = np.ndarray
# the exponent of a variable for positive scalings and for signs, and the variables themselves
Term = tuple[int, int, Array]


@dataclass(frozen=True)
class NeuronAxis:
    """Dimensions (increasing) of a tensor that range over neurons: `atoms` and all variables have their sizes.

    The sum of `terms` is the logarithm of the scale. A flip takes values a to shear - a where there is a shear, else
    to -a.
    """

    dims: tuple[int, ...]
    atoms: Array
    terms: tuple[Term, ...] = ()
    shear: float | None = None

    def map(self, dims: tuple[int, ...], change: Callable[[Array], Array]) -> NeuronAxis:
        """Return the axis on other dimensions, with atoms and variables rearranged in the same way."""
        terms = tuple((p, s, change(variables)) for p, s, variables in self.terms)
        return replace(self, dims=dims, atoms=change(self.atoms), terms=terms)

    def view(self, dims: tuple[int, ...], sizes: Sequence[int]) -> NeuronAxis:
        """Return the axis reshaped to other dimensions of these sizes."""
        return self.map(dims, lambda values: values.reshape(tuple(sizes)))

    def renamed(self, names: Sequence[int] | Mapping[int, int]) -> NeuronAxis:
        """Return the axis with dimension i called names[i], in increasing order again."""
        named = [names[dim] for dim in self.dims]
        order = tuple(int(i) for i in np.argsort(named))
        return self.map(tuple(sorted(named)), lambda values: values.transpose(order))

    def take(self, dim: int, index: Array) -> NeuronAxis:
        """Return the axis at these coordinates of one of its dimensions."""
        return self.map(self.dims, partial(np.take, indices=index, axis=self.dims.index(dim)))

    def drop(self, dim: int) -> NeuronAxis:
        """Return the axis at the first coordinate of one of its dimensions, without that dimension."""
        position = self.dims.index(dim)
        dims = self.dims[:position] + self.dims[position + 1 :]
        return self.map(dims, partial(np.take, indices=0, axis=position))

    def expand(self, dims: tuple[int, ...], sizes: Sequence[int]) -> NeuronAxis:
        """Return the axis repeated along further dimensions."""
        shape = [size if dim in self.dims else 1 for dim, size in zip(dims, sizes, strict=True)]
        return self.map(dims, lambda values: np.broadcast_to(values.reshape(shape), tuple(sizes)))


def negated(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Return the terms of the inverse scale: a sign is its own inverse."""
    return tuple((-p, s, variables) for p, s, variables in terms)


@dataclass(frozen=True)
class Bias:
    """The parameter that was added to a tensor last, and the factor that the sum was multiplied with since."""

    parameter: str
    factor: float = 1.0


@dataclass(frozen=True)
class AbstractTensor:
    """A tensor's shape, its neuron axes, and the dimensions along which it is constant.

    `parameter` is its name where it is a parameter itself, `bias` the bias that was added last, and `zero` says
    whether all elements are zero.
    """

    shape: tuple[int, ...]
    axes: tuple[NeuronAxis, ...] = ()
    constant: frozenset[int] = frozenset()
    parameter: str = ""
    bias: Bias | None = None
    zero: bool = False

    def axes_on(self, dims: Iterable[int]) -> list[NeuronAxis]:
        """Return the neuron axes that cover any of these dimensions."""
        chosen = set(dims)
        return [axis for axis in self.axes if chosen & set(axis.dims)]

    def generic(self) -> AbstractTensor:
        """Return the tensor without what only the next operation may use: its name, bias and being zero."""
        return replace(self, parameter="", bias=None, zero=False)


def unsheared(tensor: AbstractTensor) -> AbstractTensor:
    """Return the tensor behind an operation that took care of flips."""
    return replace(tensor, axes=tuple(replace(axis, shear=None) for axis in tensor.axes))
