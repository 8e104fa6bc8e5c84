"""The architecture of a plain MLP or CNN from the tensors of a checkpoint, in which other things lie beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wsflow.architecture import Architecture
from wsflow.architecture.state_names import AVERAGED, is_beside, shared_prefix, unwrapped
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.choice import AXES
from wsflow.populations.importers.layouts import torch_layout
from wsflow.populations.importers.leaves import Leaf

# names of several networks of one file, the first component before the layers
MEMBERS = re.compile(
    r"^(\[\d+\]|\d+|\w*(seed|run|fold|member|trial|replica|step|epoch|iter|ckpt|checkpoint)\w*)$", re.I
)

Leaves = Mapping[str, Leaf]


def infer(leaves: Leaves, activation: str, ordered: bool) -> Architecture:
    """Return the architecture of the network, or of the first of several; refuse what is not clear."""
    for key, leaf in leaves.items():
        if hasattr(leaf.value, "check_dense"):
            leaf.value.check_dense(key)
    try:
        return _of_one(torch_layout(leaves), activation, ordered)
    except ValueError as error:
        for axis in AXES:
            stacked = {key: leaf.stacked(axis) for key, leaf in leaves.items() if leaf.has_axis(axis)}
            # all tensors have one length along the axis
            alike = len(stacked) == len(leaves) and len({leaf.value.shape[axis] for leaf in leaves.values()}) == 1
            if alike and (found := _or_none(torch_layout(stacked), activation, ordered)):
                return found
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(str(error)) from error


def _or_none(leaves: Leaves, activation: str, ordered: bool) -> Architecture | None:
    try:
        return _of_one(leaves, activation, ordered)
    except ValueError:
        return None


def _of_one(leaves: Leaves, activation: str, ordered: bool) -> Architecture:
    names = _network_names(leaves)
    groups = _groups(names)
    if _are_twins(groups):
        first = min(groups, key=lambda name: bool(AVERAGED.search(f"{name}.")))
        return _of_one(groups[first], activation, ordered)
    try:
        return Architecture.from_state_dict(names, activation, ordered=ordered)
    except ValueError as error:
        fitting = {g: a for g, named in groups.items() if (a := _or_none(named, activation, ordered))}
        if not fitting or _layers_beside(names, groups, list(fitting)):
            raise
        if len(set(fitting.values())) > 1:
            raise InvalidInputError(
                f"there are several networks, {', '.join(map(repr, fitting))}, of different architectures. Choose one "
                "with key= (--key)."
            ) from error
        return next(iter(fitting.values()))


def _network_names(leaves: Leaves) -> dict[str, Leaf]:
    """Return the tensors without what wrappers add and what all names have in common, and without what lies beside."""
    dotted = {name: leaves[key] for name, key in unwrapped(leaves).items()}
    inside = {
        name: leaf for name, leaf in dotted.items() if not is_beside(name) or name.endswith("num_batches_tracked")
    }
    kept = inside if any(len(leaf.shape) > 1 for leaf in inside.values()) else dotted
    prefix = shared_prefix(kept)
    stripped = {name.removeprefix(prefix): leaf for name, leaf in kept.items()}
    return _network_names(stripped) if prefix else stripped


def _groups(names: Leaves) -> dict[str, dict[str, Leaf]]:
    """Return the tensors by the first component of their names, of which each leaves a layer and a kind."""
    groups: dict[str, dict[str, Leaf]] = {}
    for name, leaf in names.items():
        first, _, rest = name.partition(".")
        groups.setdefault(first, {})[rest] = leaf
    return {first: named for first, named in groups.items() if all("." in name for name in named)}


def _layers_beside(names: Leaves, groups: Mapping[str, Leaves], fitting: list[str]) -> bool:
    """Return whether there are layers outside the groups that are networks."""
    taken = next(iter(groups[fitting[0]].values()))
    outside = {name: leaf for name, leaf in names.items() if name.partition(".")[0] not in fitting}
    return any(leaf.is_layer_beside(name, taken) for name, leaf in outside.items())


def _are_twins(groups: Mapping[str, Leaves]) -> bool:
    """Return whether the groups are networks of one architecture, and no layers that follow one another."""
    shapes = [{name: leaf.shape for name, leaf in named.items()} for named in groups.values()]
    if len(shapes) < 2 or any(other != shapes[0] for other in shapes):
        return False
    nested = all(leaf.path[-1:] == (name,) for named in groups.values() for name, leaf in named.items())
    return nested or any(AVERAGED.search(f"{first}.") or MEMBERS.match(first) for first in groups)
