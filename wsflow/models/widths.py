"""Networks of other hidden widths, or channels, from a flow that was fitted at one width.

Where neurons have no names (``identity=None``), the flow itself works at any width. Where they have names, a wide
network is made of several sampled ones: neuron J of a group is neuron J mod w of network J // w, and the next layer
takes the mean over the neurons of the same name. With one hidden layer its outputs are, at a multiple of the width, the
mean of the networks' outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wsflow.architecture import Architecture, Block, DirectSum, NeuronGroup, Parameter
from wsflow.architecture.resizing import resized
from wsflow.running.program_widths import at_widths

# the certificate of an architecture whose program was rewritten
EXACT = 1e-8


def of_hidden(architecture: Architecture, hidden: Sequence[int] | Mapping[str, int]) -> Architecture:
    """The same layers at other hidden widths.

    Parameters
    ----------
    architecture : Architecture
    hidden : sequence of int, or mapping from str to int
        The size of each neuron group, in order, or by name.

    Raises
    ------
    ValueError
        If the network has another number of neuron groups, or its program has a width that cannot be rewritten.

    Examples
    --------
    >>> from wsflow import Architecture
    >>> from wsflow.models.widths import of_hidden
    >>> of_hidden(Architecture.mlp([4, 8, 2]), [32]) == Architecture.mlp([4, 32, 2])
    True
    """
    names = [group.name for group in architecture.groups]
    if not isinstance(hidden, Mapping) and len(hidden) != len(names):
        raise ValueError(
            f"{architecture} does not have {len(hidden)} hidden layers: give the width of each that it has"
            f"{', ' + ', '.join(names) if names else ''}."
        )
    sizes = dict(hidden) if isinstance(hidden, Mapping) else dict(zip(names, hidden, strict=True))
    other = resized(architecture, sizes)
    if architecture.program is None:
        return other
    known = {g.name: g for g in other.groups}
    pairs = [(g.size, known[g.name].size) for g in architecture.groups]
    pairs += [(g.total, known[g.name].total) for g in architecture.groups]
    before, after = ({p.name: p.shape for p in table.parameters} for table in (architecture, other))
    other = replace(other, program=at_widths(architecture.program, before, after, pairs))
    if not other.certify(n_trials=1) < EXACT:
        raise ValueError(
            f"At the sizes {sizes} the program of these networks does not have their symmetries: it has a width as a "
            "constant. Read a module of that width with Architecture.from_module, and pass its architecture."
        )
    return other


def check_width(own: Architecture, architecture: Architecture, is_named: bool, rated: bool = False) -> None:
    """Refuse an architecture that is not a flow's own at another hidden width, with a ValueError.

    `is_named` says whether the flow knows its neurons by name, `rated` whether log-densities are asked for.
    """
    if not _same_but_for_widths(own, architecture):
        raise ValueError(
            f"Another width means the same layers, with other numbers of neurons or channels: {own} against "
            f"{architecture}."
        )
    pairs = list(zip(own.groups, architecture.groups, strict=True))
    if is_named and any(a.total > b.total for a, b in pairs):
        raise ValueError(
            f"A flow that knows its neurons by name makes wider networks, not narrower ones: {own} against "
            f"{architecture}. Fit with velocity=NeuronTransformer(identity=None)."
        )
    joined = any(isinstance(space, DirectSum) for _, block, _ in own.blocks for space in block.axes)
    if is_named and (joined or any(a.parent is not None for a, _ in pairs)):
        raise ValueError(
            f"Wider networks are not made of several whose neuron groups are nested or joined, such as {own}. Fit with "
            "velocity=NeuronTransformer(identity=None)."
        )
    if is_named and rated:
        raise ValueError(
            "A network made of several sampled ones has no log-density here. Fit with "
            "velocity=NeuronTransformer(identity=None)."
        )


def copies_needed(narrow: Architecture, wide: Architecture) -> int:
    """How many narrow networks one wide network is made of."""
    return max([-(-b.size // a.size) for a, b in zip(narrow.groups, wide.groups, strict=True)], default=1)


def combined(weights: Tensor, narrow: Architecture, wide: Architecture) -> Tensor:
    """Make wide networks (n, wide d), each of as many successive rows of (n * copies, d) as it needs.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.models.widths import combined
    >>> from wsflow.running import forward
    >>> narrow, wide = Architecture.mlp([4, 3, 2]), Architecture.mlp([4, 6, 2])
    >>> rows, x = torch.randn(2, 23), torch.randn(5, 4)
    >>> mean = forward(rows, narrow, x).mean(0)
    >>> torch.allclose(forward(combined(rows, narrow, wide), wide, x)[0], mean, atol=1e-5)
    True
    """
    copies = copies_needed(narrow, wide)
    rows = weights.reshape(-1, copies, weights.shape[1])
    made = rows.new_zeros(len(rows), wide.n_weights)
    sizes = {b.name: (a.size, b.size) for a, b in zip(narrow.groups, wide.groups, strict=True)}
    consumed = _consumed_by_layer(narrow)
    for (parameter, small, columns), (_, _, places) in zip(narrow.blocks, wide.blocks, strict=True):
        values = rows[..., torch.from_numpy(columns.reshape(-1))].reshape(*rows.shape[:2], *columns.shape)
        axes = {
            axis: _Group.of(*sizes[space.name])
            for axis, space in enumerate(small.axes)
            if isinstance(space, NeuronGroup)
        }
        beside = sizes.get(consumed.get(parameter.name.rpartition(".")[0], ""))
        produced = [axis for axis in axes if axis in _produced_axes(parameter, small)]
        new = _wide(values, axes, produced, None if beside is None else _Group.of(*beside))
        made[:, torch.from_numpy(places.reshape(-1))] = new.reshape(len(rows), -1)
    return made


@dataclass(frozen=True)
class _Group:
    """The neurons of a wide group: of which copy and by which name each is, and its share in the mean of its name."""

    copy: Tensor
    name: Tensor
    share: Tensor

    @classmethod
    def of(cls, narrow: int, wide: int) -> _Group:
        """The group of a wide network that is made of narrow ones."""
        index = torch.arange(wide)
        name = index % narrow
        return cls(index // narrow, name, 1 / torch.bincount(name, minlength=narrow)[name].double())

    def parts(self, copies: int) -> Tensor:
        """The part of each copy in the group."""
        part = torch.bincount(self.copy, minlength=copies).double()
        return part / part.sum()


def _wide(values: Tensor, axes: Mapping[int, _Group], produced: Sequence[int], beside: _Group | None) -> Tensor:
    """From the elements (n, copies, ...) of a block to those of a wide network.

    Neurons that a block produces are those of their copies; what a block consumes is a mean over the neurons of one
    name. A block of no neurons is the mean of the copies, by their parts in the neurons that its layer consumes.
    """
    if not axes:
        copies = values.shape[1]
        part = torch.full((copies,), 1 / copies, dtype=torch.float64) if beside is None else beside.parts(copies)
        return torch.einsum("nc...,c->n...", values, part.to(values))
    owner = next(iter(produced or axes))
    moved = values.movedim(owner + 2, 2)[:, axes[owner].copy, axes[owner].name].movedim(1, owner + 1)
    for axis, group in axes.items():
        if axis != owner:
            moved = moved.index_select(axis + 1, group.name)
        if axis not in produced:
            share = group.share.to(values)
            moved = moved * share.reshape(-1, *[1] * (moved.dim() - axis - 2))
    return moved


def _produced_axes(parameter: Parameter, block: Block) -> tuple[int, ...]:
    """The axes of neurons that a block produces: by its wires, and where it has none, those of its first dimension."""
    wired = {axis: exponent for _, axis, exponent in block.wires}
    groups = [axis for axis, space in enumerate(block.axes) if isinstance(space, NeuronGroup)]
    alone = len(parameter.shape) == 1
    return tuple(axis for axis in groups if wired.get(axis, 1 if alone or axis == 0 else -1) > 0)


def _consumed_by_layer(architecture: Architecture) -> dict[str, str]:
    """The name of a group that each layer consumes."""
    found: dict[str, str] = {}
    for parameter, block, _ in architecture.blocks:
        for axis, space in enumerate(block.axes):
            if isinstance(space, NeuronGroup) and axis not in _produced_axes(parameter, block):
                found.setdefault(parameter.name.rpartition(".")[0], space.name)
    return found


def _same_but_for_widths(one: Architecture, other: Architecture) -> bool:
    if [group.name for group in one.groups] != [group.name for group in other.groups]:
        return False
    try:
        table = resized(one, {group.name: group.size for group in other.groups})
    except ValueError:
        return False
    return table == replace(other, program=None, module=None) and _steps(one) == _steps(other)


def _steps(architecture: Architecture) -> list[tuple[str, str]]:
    operations = () if architecture.program is None else architecture.program.operations
    return [(operation.function, operation.layer) for operation in operations]
