"""Parameters as lists of labelled blocks: the rows of the one table that describes a network."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from wsflow.architecture.spaces import Fixed, NeuronGroup, Space, groups_of

Role = Literal["weight", "statistic"]


@dataclass(frozen=True)
class Shear:
    """Describe what a flip of a neuron adds to a bias, where a(-z) = amount - a(z), as for the sigmoid.

    Parameters
    ----------
    wire : str
        Whose negative scales are the flips.
    axis : int
        The axis of the consuming block that ranges over the wire.
    bias : str
        The parameter to which the flipped neurons' weights are added, summed over all but `outputs`.
    outputs : int
        The dimension of the block's parameter that the bias ranges over: 0, but 1 for transposed convolutions.
    amount : float
        The constant of the activation.
    """

    wire: str
    axis: int
    bias: str
    outputs: int = 0
    amount: float = 1.0


@dataclass(frozen=True)
class Block:
    """Label each axis of a slice of a reshaped view of a parameter with a space.

    The elements that slices and index choose are reshaped to the sizes of the axes, so that one axis of the
    view may be split, such as features that are channels times pixels.

    Parameters
    ----------
    axes : tuple of Space
        One label for each axis of the view. An axis that is labelled with a nested group has the
        group's own size where another axis carries its parent, else its total size.
    view : tuple of int, optional
        The shape to which the parameter is reshaped first (default: its own shape).
    slices : tuple of (int, int), optional
        Start and stop on each axis of the view (default: all of it).
    index : tuple of (tuple of int or None), optional
        Positions on each axis of what is left, in the space's order, where they are no slice.
    wires : tuple of (str, int, int)
        ``(wire, axis, exponent)``: the block is multiplied with s ** exponent along the axis when the
        wire is scaled by s. +1 where the wire is produced, -1 where it is consumed, 2 for a running
        variance, -k behind ReLU^k.
    shifts : tuple of (str, int, float)
        ``(wire, axis, unit)``: a phase of k adds k units to these biases (pi for the sine), and turns the
        sign of the blocks that consume the wire where k is odd.
    shears : tuple of Shear
        What flips add to biases.

    Examples
    --------
    The query part of a fused qkv weight with 4 heads of 8 channels on 32 features:

    >>> from wsflow.architecture import Block, Fixed, NeuronGroup
    >>> heads = NeuronGroup("heads", 4)
    >>> channels = NeuronGroup("qk", 8, parent=heads)
    >>> Block((Fixed(1), heads, channels, Fixed(32)), view=(3, 4, 8, 32),
    ...       slices=((0, 1), (0, 4), (0, 8), (0, 32)), wires=(("qk", 2, 1),)).extents
    (1, 4, 8, 32)
    """

    axes: tuple[Space, ...]
    view: tuple[int, ...] | None = None
    slices: tuple[tuple[int, int], ...] | None = None
    wires: tuple[tuple[str, int, int], ...] = ()
    index: tuple[tuple[int, ...] | None, ...] | None = None
    shifts: tuple[tuple[str, int, float], ...] = ()
    shears: tuple[Shear, ...] = ()

    @property
    def extents(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(self.extent(axis) for axis in range(len(self.axes)))

    def extent(self, axis: int) -> int:
        """Return the length of one axis: a nested group counts within its parent where that has an axis of its own."""
        space = self.axes[axis]
        return space.size if self.parent_axis(axis) is not None else space.total  # type: ignore[union-attr]

    def parent_axis(self, axis: int) -> int | None:
        """Return the axis of the parent of the group on `axis`: the last one before it, or else the first behind."""
        space = self.axes[axis]
        if not isinstance(space, NeuronGroup) or space.parent is None:
            return None
        carriers = [i for i, other in enumerate(self.axes) if other == space.parent]
        before = [i for i in carriers if i < axis]
        return before[-1] if before else next(iter(carriers), None)

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse a block that is none of a parameter of this shape: a ValueError."""
        view = self.view or shape
        if prod(view) != prod(shape):
            raise ValueError(f"A parameter of shape {shape} has no view of shape {view}: sizes differ.")
        sizes = [
            len(range(*slice(*b).indices(n))) for b, n in zip(self.slices or ((None,),) * len(view), view, strict=True)
        ]
        for index, size in zip(self.index or (), sizes, strict=False):
            if index is not None and not set(index) <= set(range(size)):
                raise ValueError(f"The block's index {max(index, key=abs)} is not one of {size} positions.")
            if index is not None and len(set(index)) < len(index):
                raise ValueError("The block's positions overlap: one is there twice.")
        sizes = [n if i is None else len(i) for i, n in zip(self.index or (None,) * len(view), sizes, strict=True)]
        if not _splits(tuple(sizes), self.extents):
            raise ValueError(
                f"The block's elements have shape {tuple(sizes)}, but its axes are labelled with spaces "
                f"of sizes {self.extents}. Label each axis of the view with a space of its size."
            )

    def positions(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return where the block's elements lie in a flattened parameter of this shape, shaped as `extents`."""
        self.check(shape)
        positions = np.arange(prod(shape)).reshape(self.view or shape)
        if self.slices is not None:
            positions = positions[tuple(slice(*bounds) for bounds in self.slices)]
        for axis, index in enumerate(self.index or ()):
            positions = positions if index is None else positions.take(index, axis)
        return positions.reshape(self.extents)

    def scaled_axes(self) -> tuple[tuple[str, int], ...]:
        """Return the wires that are named, with their axes."""
        named = [(name, axis) for name, axis, _ in (*self.wires, *self.shifts)]
        return (*named, *((shear.wire, shear.axis) for shear in self.shears))

    def neuron_axes(self) -> tuple[int, ...]:
        """Return the axes on which a group acts."""
        return tuple(i for i, space in enumerate(self.axes) if groups_of(space))


def _splits(shape: tuple[int, ...], extents: tuple[int, ...]) -> bool:
    """Return whether each axis of `shape` is a product of consecutive extents."""
    rest = list(extents)
    for size in shape:
        product = rest.pop(0) if rest else 0
        while product < size and rest:
            product *= rest.pop(0)
        if product != size:
            return False
    return all(extent == 1 for extent in rest)


@dataclass(frozen=True)
class Parameter:
    """Describe one named tensor of a network.

    Parameters
    ----------
    name : str
        Its key in the state dict.
    blocks : tuple of Block
        No symmetry moves the elements that no block covers.
    role : {"weight", "statistic"}
        Statistics (batch-norm buffers) are transformed along, but not modelled.
    aliases : tuple of str
        Other keys of the state dict that hold the same tensor: tied weights.

    Examples
    --------
    The bias of eight neurons, which their wire scales:

    >>> from wsflow.architecture import Block, NeuronGroup, Parameter
    >>> bias = Block((NeuronGroup("hidden", 8),), wires=(("hidden", 0, 1),))
    >>> Parameter("0.bias", (8,), (bias,)).size
    8
    """

    name: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    role: Role = "weight"
    aliases: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class ActivationSite:
    """Name the submodule that puts out the activations of a neuron group, and the axis of the group in its output."""

    group: str
    layer: str
    axis: int


def fixed_parameter(name: str, shape: tuple[int, ...], role: Role = "weight") -> Parameter:
    """Return a parameter that no symmetry moves."""
    return Parameter(name, shape, (Block(tuple(Fixed(size) for size in shape)),), role)
