"""What makes a table of parameters, wires and layers an architecture: names, sizes, blocks and references."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from wsflow.architecture.parameters import Parameter
from wsflow.architecture.sequential import check_shapes
from wsflow.architecture.spaces import NeuronGroup, Wire
from wsflow.exceptions import InvalidInputError
from wsflow.memory import check_memory

DOUBLE = 8  # bytes of a number
# control characters, halves of surrogate pairs, ends of lines and of paragraphs
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def check(architecture: Any) -> None:
    """Raise a ValueError that names what is wrong with an architecture."""
    if not architecture.parameters:
        raise ValueError("An architecture needs parameters: it is empty.")
    if empty := [p for p in architecture.parameters if p.role == "weight" and not p.size]:
        raise InvalidInputError(
            f"{empty[0].name!r} has shape {tuple(empty[0].shape)}, without a number. Leave out layers without neurons."
        )
    check_names("parameter", [name for p in architecture.parameters for name in (p.name, *p.aliases)])
    check_names("wire", [wire.name for wire in architecture.wires])
    check_names("constant", architecture.constants)
    n = architecture.n_weights
    check_memory(f"The numbers of one network of {n:.3g} weights", DOUBLE * n, "Describe a smaller network.", share=1)
    wires = {wire.name: wire for wire in architecture.wires}
    for parameter in architecture.parameters:
        _check_blocks(parameter, wires)
    groups: dict[str, NeuronGroup] = {}
    for group in architecture.groups:
        if groups.setdefault(group.name, group) != group:
            raise ValueError(f"The neuron group {group.name!r} is declared twice, with different sizes or parents.")
    check_names("neuron group", groups)
    _check_references(architecture)


def _check_blocks(parameter: Parameter, wires: Mapping[str, Wire]) -> None:
    try:
        overlap = _overlap(parameter)
    except ValueError as error:
        raise ValueError(f"Parameter {parameter.name!r}: {error}") from error
    if overlap:
        raise ValueError(f"Two blocks of parameter {parameter.name!r} overlap: each element belongs to one.")
    for block in parameter.blocks:
        for wire, axis in block.scaled_axes():
            if wire not in wires or axis not in range(len(block.axes)) or wires[wire].space != block.axes[axis]:
                raise ValueError(
                    f"A block of parameter {parameter.name!r} names the wire {wire!r} on axis {axis}, which is "
                    "not a wire of this architecture with that axis' space. Declare it in wires=."
                )


def _overlap(parameter: Parameter) -> bool:
    """Return whether two blocks share an element, or refuse blocks whose sizes do not fit."""
    if len(parameter.blocks) == 1:
        # its elements need not be listed, which would take more memory than the weights
        parameter.blocks[0].check(parameter.shape)
        return False
    seen = np.zeros(parameter.size, dtype=bool)
    for block in parameter.blocks:
        positions = block.positions(parameter.shape)
        if seen[positions].any():
            return True
        seen[positions] = True
    return False


def _check_references(architecture: Any) -> None:
    """Refuse outputs, layers and programs of other parameters, or of parameters of other shapes."""
    shapes = {parameter.name: parameter.shape for parameter in architecture.parameters}
    biases = {shear.bias for p in architecture.parameters for block in p.blocks for shear in block.shears}
    used = architecture.program.parameters() if architecture.program else frozenset()
    named = (("Its outputs", architecture.outputs), ("Its shears", biases), ("The program", used))
    for user, names in named:
        if unknown := sorted(set(names) - set(shapes)):
            raise ValueError(f"{user} uses {unknown[0]!r}, which is no parameter of this architecture.")
    check_shapes(architecture.layers, shapes)


def check_names(what: str, names: Iterable[str]) -> None:
    """Refuse a name that is empty, has characters that cannot be printed, or is there twice."""
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"The name of a {what} is a string that is not empty, got {name!r}.")
        if any(unicodedata.category(character) in UNPRINTABLE for character in name):
            raise ValueError(
                f"The name of a {what} has no control characters and no ends of lines, got {name!r}. Rename it."
            )
        if name in seen:
            raise ValueError(f"The name {name!r} of a {what} is repeated: each {what} has a name of its own.")
        seen.add(name)
