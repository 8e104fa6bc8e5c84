"""Abstract tensors: what a symmetry does to each coordinate of a tensor, while a network is traced.

Every coordinate of every axis of a parameter gets an *atom* and a *variable*: the neuron that it belongs to, and the
logarithm of its scale. An abstract tensor has the atom, and the sum of variables, of each of its coordinates. A
*neuron axis* covers several dimensions where neurons lie in neurons (channels in heads). Dimensions without one are
fixed: examples, tokens, pixels; labels say which of their coordinates differ. Running a graph on abstract values is
abstract interpretation.

References
----------
Cousot and Cousot 1977, "Abstract interpretation", POPL.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# the atom of a padded zero, which every permutation and scaling keeps; and the absence of a variable
ABSENT = -1
Array = np.ndarray
# the exponent of a variable for positive scalings and for signs, and the variables themselves
Term = tuple[int | Fraction, int, Array]


@dataclass(frozen=True)
class Coordinates(ABC):
    """What is known of the coordinates of some dimensions (increasing) of a tensor, in arrays of their sizes."""

    dims: tuple[int, ...]

    @abstractmethod
    def map(self, dims: tuple[int, ...], change: Callable[[Array], Array]) -> Self:
        """Return the same on other dimensions, with all arrays rearranged in the same way."""

    def view(self, dims: tuple[int, ...], sizes: Sequence[int]) -> Self:
        """Return the same reshaped to other dimensions of these sizes."""
        return self.map(dims, lambda values: values.reshape(tuple(sizes)))

    def renamed(self, names: Sequence[int] | Mapping[int, int]) -> Self:
        """Return the same with dimension i called names[i], in increasing order again."""
        named = [names[dim] for dim in self.dims]
        order = tuple(int(i) for i in np.argsort(named))
        return self.map(tuple(sorted(named)), lambda values: values.transpose(order))

    def take(self, dim: int, index: Array) -> Self:
        """Return the same at these coordinates of one of the dimensions."""
        return self.map(self.dims, partial(np.take, indices=index, axis=self.dims.index(dim)))

    def drop(self, dim: int) -> Self:
        """Return the same at the first coordinate of one of the dimensions, without that dimension."""
        position = self.dims.index(dim)
        dims = self.dims[:position] + self.dims[position + 1 :]
        return self.map(dims, partial(np.take, indices=0, axis=position))

    def expand(self, dims: tuple[int, ...], sizes: Sequence[int]) -> Self:
        """Return the same repeated along further dimensions."""
        shape = [size if dim in self.dims else 1 for dim, size in zip(dims, sizes, strict=True)]
        return self.map(dims, lambda values: np.broadcast_to(values.reshape(shape), tuple(sizes)))


@dataclass(frozen=True)
class NeuronAxis(Coordinates):
    """Dimensions of a tensor that range over neurons: `atoms` and all variables have their sizes.

    The sum of `terms` is the logarithm of the scale. A flip takes values a to shear - a where there is a shear, else
    to -a.
    """

    atoms: Array
    terms: tuple[Term, ...] = ()
    shear: float | None = None

    def map(self, dims: tuple[int, ...], change: Callable[[Array], Array]) -> NeuronAxis:
        """Return the axis on other dimensions, with atoms and variables rearranged in the same way."""
        terms = tuple((p, s, change(variables)) for p, s, variables in self.terms)
        return replace(self, dims=dims, atoms=change(self.atoms), terms=terms)


@dataclass(frozen=True)
class Labels(Coordinates):
    """Dimensions along which numbers differ for other reasons than neurons: examples, tokens, pixels, masks.

    Where two coordinates have the same labels and the same neurons, their numbers are the same.
    """

    values: Array

    def map(self, dims: tuple[int, ...], change: Callable[[Array], Array]) -> Labels:
        """Return the labels on other dimensions, rearranged."""
        return Labels(dims, change(self.values))

    def onto(self, dims: Container[int]) -> Labels | None:
        """Return labels on those of the dimensions that are among these: equal where all labels there are."""
        kept = [i for i, dim in enumerate(self.dims) if dim in dims]
        if len(kept) == len(self.dims):
            return self
        sizes = tuple(self.values.shape[i] for i in kept)
        rows = np.moveaxis(self.values, kept, range(len(kept))).reshape(prod(sizes), -1)
        values = np.unique(rows, axis=0, return_inverse=True)[1].reshape(sizes)
        return Labels(tuple(self.dims[i] for i in kept), values) if values.any() else None

    def __and__(self, other: Labels) -> Labels:
        """Return the labels that are equal where both are."""
        joint = self.values * (other.values.max(initial=0) + 1) + other.values
        return Labels(self.dims, np.unique(joint, return_inverse=True)[1].reshape(joint.shape))


def distinct(shape: Sequence[int], dims: Iterable[int]) -> tuple[Labels, ...]:
    """Return labels that tell apart all coordinates of each of these dimensions of a shape."""
    return tuple(Labels((dim,), np.arange(shape[dim])) for dim in dims if shape[dim] > 1)


def merged(labels: Iterable[Labels]) -> tuple[Labels, ...]:
    """Return labels once for each set of dimensions, on those along which they differ."""
    found: dict[tuple[int, ...], Labels] = {}
    for own in labels:
        for position, dim in reversed(list(enumerate(own.dims))):
            if (own.values == own.values.take([0], position)).all():
                own = own.drop(dim)
        if own.dims:
            found[own.dims] = found[own.dims] & own if own.dims in found else own
    return tuple(found.values())


def negated(terms: Iterable[Term]) -> tuple[Term, ...]:
    """Return the terms of the inverse scale: a sign is its own inverse."""
    return tuple((-p, s, variables) for p, s, variables in terms)


@dataclass(frozen=True)
class Bias:
    """The parameter that was added to a tensor last, and the factor that the sum was multiplied with since."""

    parameter: str
    factor: float = 1.0


# of a tensor of which nothing is known: all coordinates differ
UNKNOWN: tuple[Labels, ...] = (Labels((), np.empty(0)),)


@dataclass(frozen=True)
class AbstractTensor:
    """A tensor's shape, its neuron axes, and labels of what else tells its coordinates apart: without any, nothing.

    `parameter` is its name where it is a parameter itself, `bias` the bias that was added last, `zero` says whether
    all elements are zero, and `value` has the elements of a constant.
    """

    shape: tuple[int, ...]
    axes: tuple[NeuronAxis, ...] = ()
    labels: tuple[Labels, ...] = UNKNOWN
    parameter: str = ""
    bias: Bias | None = None
    zero: bool = False
    value: Tensor | None = None

    def __post_init__(self) -> None:
        """Tell all coordinates apart where nothing is known."""
        if self.labels is UNKNOWN:
            object.__setattr__(self, "labels", distinct(self.shape, range(len(self.shape))))

    def axes_on(self, dims: Iterable[int]) -> list[NeuronAxis]:
        """Return the neuron axes that cover any of these dimensions."""
        chosen = set(dims)
        return [axis for axis in self.axes if chosen & set(axis.dims)]

    def constant_on(self, dims: Iterable[int]) -> bool:
        """Return whether numbers are the same along all of these dimensions."""
        chosen = set(dims)
        return not any(chosen & set(own.dims) for own in (*self.axes, *self.labels))

    def generic(self) -> AbstractTensor:
        """Return the tensor without what only the next operation may use: its name, bias, being zero and value."""
        return replace(self, parameter="", bias=None, zero=False, value=None)

    def mixed(self, dims: Collection[int], order: bool = False) -> AbstractTensor:
        """Return the tensor behind an operation that mixes numbers along these dimensions, or along their order."""
        others = [dim for dim in range(len(self.shape)) if dim not in dims]
        above = [own.onto(others) for own in self.labels if set(own.dims) & set(dims)]
        found = distinct(self.shape, dims) if order else self.labels
        found += tuple(own for own in self.labels if not set(own.dims) & set(dims)) if order else ()
        return replace(self, labels=merged([*found, *(own for own in above if own is not None)]))


def constant_of(value: Tensor) -> AbstractTensor:
    """Return the tensor of a constant with these elements."""
    # NumPy has no bfloat16
    numbers = value.detach().double() if value.is_floating_point() else value.detach()
    labels = []
    for dim, size in enumerate(value.shape if value.numel() else ()):
        rows = numbers.movedim(dim, 0).reshape(size, -1).numpy()
        labels.append(Labels((dim,), np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)))
    return AbstractTensor(tuple(value.shape), (), merged(labels), zero=not bool(value.any()), value=value)


def unsheared(tensor: AbstractTensor) -> AbstractTensor:
    """Return the tensor behind an operation that took care of flips: itself if there are none."""
    if all(axis.shear is None for axis in tensor.axes):
        return tensor
    return replace(tensor, axes=tuple(replace(axis, shear=None) for axis in tensor.axes))
