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
    """What a flip of a neuron moves into a bias, where a(-z) = amount - a(z), as for the sigmoid.

    Parameters
    ----------
    wire : str
        Whose negative scales are the flips.
    axis : int
        The block's axis that ranges over the wire: the block consumes it.
    bias : str
        The parameter that takes the flipped neurons' weights, summed over all but `outputs`.
    outputs : int
        The dimension of the block's parameter that the bias ranges over: 0, but 1 for transposed convolutions.
    amount : float
    """

    wire: str
    axis: int
    bias: str
    outputs: int = 0
    amount: float = 1.0


@dataclass(frozen=True)
class Block:
    """A slice of a reshaped view of a parameter, each of its axes labelled with a space.

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
        Positions on each axis of what is left, in the space's order, where slices cannot say it.
    wires : tuple of (str, int, int)
        ``(wire, axis, exponent)``: what the block is multiplied with, along which axis, when the
        wire is scaled by s: s ** exponent. +1 where the wire is produced, -1 where it is consumed,
        2 for a running variance, -k behind ReLU^k.
    shifts : tuple of (str, int, float)
        ``(wire, axis, unit)``: a phase of k adds k units to these biases (pi for the sine), and turns the
        sign of the blocks that consume the wire where k is odd.
    shears : tuple of Shear
        What a flip moves out of this block.

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
        """Length of one axis: a nested group counts within its parent where that has an axis of its own.

        Parameters
        ----------
        axis : int

        Returns
        -------
        int
        """
        space = self.axes[axis]
        return space.size if self.parent_axis(axis) is not None else space.total  # type: ignore[union-attr]

    def parent_axis(self, axis: int) -> int | None:
        """The axis that carries the parent of the group on `axis`, if there is one: the last one before it, if any.

        Parameters
        ----------
        axis : int

        Returns
        -------
        int or None
        """
        space = self.axes[axis]
        if not isinstance(space, NeuronGroup) or space.parent is None:
            return None
        carriers = [i for i, other in enumerate(self.axes) if other == space.parent]
        before = [i for i in carriers if i < axis]
        return before[-1] if before else next(iter(carriers), None)

    def positions(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where the block's elements lie in the flattened parameter.

        Parameters
        ----------
        shape : tuple of int
            The parameter's shape.

        Returns
        -------
        ndarray of int, shape `extents`

        Raises
        ------
        ValueError
            If view, slices and axes do not fit the shape or each other.
        """
        view = self.view or shape
        if prod(view) != prod(shape):
            raise ValueError(f"A parameter of shape {shape} has no view of shape {view}: sizes differ.")
        positions = np.arange(prod(shape)).reshape(view)
        if self.slices is not None:
            positions = positions[tuple(slice(*bounds) for bounds in self.slices)]
        for axis, index in enumerate(self.index or ()):
            positions = positions if index is None else positions.take(index, axis)
        if _splits(positions.shape, self.extents):
            return positions.reshape(self.extents)
        raise ValueError(
            f"The block's elements have shape {positions.shape}, but its axes are labelled with spaces "
            f"of sizes {self.extents}. Label each axis of the view with a space of its size."
        )

    def neuron_axes(self) -> tuple[int, ...]:
        """The axes on which some group acts.

        Returns
        -------
        tuple of int
        """
        return tuple(i for i, space in enumerate(self.axes) if groups_of(space))


def _splits(shape: tuple[int, ...], extents: tuple[int, ...]) -> bool:
    """Whether each axis of `shape` is a product of consecutive extents."""
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
    """One named tensor of a network.

    Parameters
    ----------
    name : str
        Its key in the state dict.
    shape : tuple of int
    blocks : tuple of Block
        What no block covers is moved by no symmetry.
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
    """Where the activations of a group's neurons can be read, in a network that a module runs.

    Parameters
    ----------
    group : str
    layer : str
        Name of the submodule whose output it is.
    axis : int
        The axis of that output that ranges over the group's neurons, in their order.
    """

    group: str
    layer: str
    axis: int


def fixed_parameter(name: str, shape: tuple[int, ...], role: Role = "weight") -> Parameter:
    """A parameter that no symmetry moves.

    Parameters
    ----------
    name : str
    shape : tuple of int
    role : {"weight", "statistic"}

    Returns
    -------
    Parameter
    """
    return Parameter(name, shape, (Block(tuple(Fixed(size) for size in shape)),), role)
