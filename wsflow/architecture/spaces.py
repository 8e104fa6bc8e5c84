"""What an axis of a weight tensor ranges over, and what flows along it.

A *space* labels an axis: `Fixed` coordinates, a `NeuronGroup` on which the symmetric group acts
(inside each neuron of a parent, where it has one: a wreath product), or a `DirectSum` of those. A
`Wire` is an activation tensor: a space with the scalings that all its consumers commute with.

References
----------
Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin", arXiv:2209.04836 (axes with permutations);
Godfrey et al. 2022, arXiv:2205.14258 (intertwiner groups).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fixed:
    """Label an axis whose coordinates nothing permutes: input features, outputs, pixels, positions in a kernel.

    Parameters
    ----------
    size : int
    name : str
        Of coordinates in which a neuron group is nested, such as heads that keep their places.
    """

    size: int
    name: str = ""

    @property
    def total(self) -> int:
        """Number of coordinates."""
        return self.size


@dataclass(frozen=True)
class NeuronGroup:
    """Label an axis of neurons (or channels) that may be permuted together.

    Parameters
    ----------
    name : str
        Unique within an architecture.
    size : int
        Number of neurons; for a nested group the number within each neuron of the parent.
    parent : NeuronGroup or Fixed, optional
        What this group is nested in, such as the channels within each head; fixed coordinates have a name then.

    Examples
    --------
    >>> from wsflow.architecture import NeuronGroup
    >>> heads = NeuronGroup("heads", 4)
    >>> NeuronGroup("channels", 8, parent=heads).total
    32
    """

    name: str
    size: int
    parent: NeuronGroup | Fixed | None = None

    @property
    def total(self) -> int:
        """Number of neurons, over all neurons of the parent."""
        return self.size * (self.parent.total if self.parent else 1)


@dataclass(frozen=True)
class DirectSum:
    """Label an axis with several spaces one after the other: a concatenation, or padded channels.

    Examples
    --------
    >>> from wsflow.architecture import DirectSum, Fixed, NeuronGroup
    >>> DirectSum((NeuronGroup("channels", 8), Fixed(2))).total
    10
    """

    parts: tuple[Fixed | NeuronGroup, ...]

    @property
    def total(self) -> int:
        """Number of coordinates, over all summands."""
        return sum(part.total for part in self.parts)


Space = Fixed | NeuronGroup | DirectSum


@dataclass(frozen=True)
class Wire:
    """Describe an activation tensor: its space, and the scalings that commute with all its consumers.

    Parameters
    ----------
    name : str
        Unique within an architecture.
    scalings : frozenset of {"positive", "sign", "flip", "phase"}
        The changes that keep the function when producers and consumers change together: scalings; flips, which
        are signs that add a constant to a later bias (the sigmoid); phases, which shift a bias (the sine).

    Examples
    --------
    >>> from wsflow.architecture import Architecture
    >>> wire = Architecture.mlp([4, 3, 2], "tanh").wires[0]
    >>> wire.name, wire.space.total, sorted(wire.scalings)
    ('hidden1', 3, ['sign'])
    """

    name: str
    space: Space
    scalings: frozenset[str] = frozenset()


def lineage(group: NeuronGroup) -> tuple[NeuronGroup | Fixed, ...]:
    """Return what a group is nested in, the outermost first, and the group itself."""
    above = lineage(group.parent) if isinstance(group.parent, NeuronGroup) else (group.parent,) if group.parent else ()
    return (*above, group)


def groups_of(space: Space) -> tuple[NeuronGroup, ...]:
    """Return the neuron groups of a space, parents first."""
    if isinstance(space, NeuronGroup):
        return (*(groups_of(space.parent) if space.parent else ()), space)
    if isinstance(space, DirectSum):
        return tuple(group for part in space.parts for group in groups_of(part))
    return ()
