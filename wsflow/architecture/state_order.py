"""State dicts whose names are others than the architecture's, where the shapes of their layers fit in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from wsflow.architecture.architecture import Architecture
from wsflow.architecture.state_names import COUNTER, Match, Shape, Shapes, is_beside, rank_of_match

LEAVES = ("weight", "bias", "running_mean", "running_var")

Layer = dict[str, tuple[str, Shape]]  # from the last component of a name, to the name and the shape


def matches_by_order(shapes: Shapes, architecture: Architecture, ordered: bool = True) -> list[Match]:
    """Return where the tensors of an architecture are, if layers of each kind fit in their order, or only one fits.

    The kinds are linear layers, convolutions and norms. Where a state dict is not in the order of layers (`ordered` is
    False), their numbers are it, and else their shapes have to differ. What lies beside has to be another such network,
    or by its name something else.
    """
    expected = _layers((p.name, p.shape) for p in architecture.parameters)
    found = {
        frozenset(m.keys.values()): m for prefix in _groups(shapes) if (m := _match(shapes, expected, prefix, ordered))
    }
    used = {key for keys in found for key in keys}
    if any(key not in used and not is_beside(key) for key in shapes):
        return []
    return sorted(found.values(), key=rank_of_match)


def _match(shapes: Shapes, expected: Sequence[Layer], prefix: str, ordered: bool) -> Match | None:
    keys = [key for key in shapes if key.startswith(prefix)]
    found = _layers((key, shapes[key]) for key in keys if not is_beside(key, prefix) or key.endswith(COUNTER))
    pairs = _pairs(expected, found, ordered)
    if pairs is None:
        return None
    names = {a[leaf][0]: b[leaf][0] for a, b in pairs for leaf in a if leaf in b}
    used = set(names.values())
    return Match(names, prefix, tuple(key for key in shapes if key not in used), by_order=True)


def _groups(shapes: Shapes) -> list[str]:
    """Return the prefixes of the names, the shortest first."""
    prefixes = {key[: m.end()] for key in shapes for m in re.finditer(r"\.", key)}
    return sorted({"", *prefixes}, key=lambda prefix: (prefix.count("."), prefix))


def _layers(tensors: Iterable[tuple[str, Shape]]) -> list[Layer]:
    layers: dict[str, Layer] = {}
    for name, shape in tensors:
        parent, _, leaf = name.rpartition(".")
        layers.setdefault(parent, {})[leaf] = (name, shape)
    return list(layers.values())


def _kind(layer: Layer) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((leaf, len(shape)) for leaf, (_, shape) in layer.items() if leaf != COUNTER))


def _shape(layer: Layer) -> tuple[tuple[str, Shape], ...]:
    return tuple(sorted((leaf, shape) for leaf, (_, shape) in layer.items() if leaf != COUNTER))


def _pairs(expected: Sequence[Layer], found: Sequence[Layer], ordered: bool) -> list[tuple[Layer, Layer]] | None:
    """Return which layer is which, or None where they do not fit."""
    if not all(set(layer) <= {*LEAVES, COUNTER} for layer in expected) or len(expected) != len(found):
        return None
    pairs: list[tuple[Layer, Layer]] = []
    for kind in {_kind(layer) for layer in expected}:
        ours = [layer for layer in expected if _kind(layer) == kind]
        theirs = [layer for layer in found if _kind(layer) == kind]
        if not ordered:
            sorted_theirs = _sorted(theirs, ours)
            if sorted_theirs is None:
                return None
            theirs = sorted_theirs
        if [*map(_shape, ours)] != [*map(_shape, theirs)]:
            return None
        pairs += zip(ours, theirs, strict=True)
    return pairs


def _sorted(found: Sequence[Layer], expected: Sequence[Layer]) -> list[Layer] | None:
    """Return layers by their numbers, where their names differ in numbers only, or by their shapes if these differ."""
    names = [next(iter(layer.values()))[0].rpartition(".")[0] for layer in found]
    if len({re.sub(r"\d+", "#", name) for name in names}) == 1:
        order = sorted(range(len(found)), key=lambda i: [int(n) for n in re.findall(r"\d+", names[i])])
        return [found[i] for i in order]
    by_shape = {_shape(layer): layer for layer in found}
    wanted = [_shape(layer) for layer in expected]
    return (
        [by_shape[shape] for shape in wanted] if len(by_shape) == len(found) and set(wanted) == set(by_shape) else None
    )
