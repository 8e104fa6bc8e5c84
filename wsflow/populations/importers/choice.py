"""Which networks of a checkpoint are taken: those that fit the architecture, and of several the likely ones.

Of a plain MLP or CNN the tensors say the architecture, though other things lie beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from wsflow.architecture import Architecture
from wsflow.architecture.state_names import AVERAGED, Match, is_beside, shared_prefix, unwrapped
from wsflow.architecture.state_rows import find_networks
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.layouts import channel_major, torch_layout
from wsflow.populations.importers.leaves import Leaf

AXES = (0, -1, 1)  # along which networks are stacked
STEPS = re.compile(r"step|epoch|iter|ckpt|checkpoint|snapshot", re.IGNORECASE)
MENTIONED = 5
# names of several networks of one file, the first component before the layers
MEMBERS = re.compile(
    r"^(\[\d+\]|\d+|\w*(seed|run|fold|member|trial|replica|step|epoch|iter|ckpt|checkpoint)\w*)$", re.I
)

Leaves = Mapping[str, Leaf]


@dataclass(frozen=True)
class Choice:
    """The networks that are taken from a file, and what was not."""

    networks: tuple[dict[str, np.ndarray], ...]
    labels: tuple[str, ...] = ("",)  # of the networks in the file, of a list their numbers
    prefix: str = ""  # of the keys, up to what differs between the networks
    one_run: bool = True  # whether the networks are of one run
    steps: tuple[int, ...] | None = None
    others: tuple[str, ...] = ()  # prefixes of other networks that fit
    left_out: tuple[str, ...] = ()  # further keys
    layers_left_out: tuple[str, ...] = ()  # those of them that are weights of layers
    cast: tuple[str, ...] = ()  # precisions below single
    notes: dict[str, str] = field(default_factory=dict)

    def warning(self) -> str:
        """Return what the user should know about the choice, or nothing."""
        if self.others:
            names = ", ".join(repr(prefix) for prefix in self.others[:MENTIONED])
            return f"several networks fit. {self.prefix!r} was taken, and not {names}: key= (--key) chooses another one"
        if self.layers_left_out:
            names = ", ".join(repr(key) for key in self.layers_left_out[:MENTIONED])
            more = ", ..." if len(self.layers_left_out) > MENTIONED else ""
            return f"{self.prefix!r} was taken, and not what else is there: {names}{more}"
        return ""


def restricted(leaves: Mapping[str, Leaf], key: str | None) -> dict[str, Leaf]:
    """Return the tensors below a key, all of them without one."""
    if key is None:
        return dict(leaves)
    prefix = key.rstrip(".") + "."
    found = {name.removeprefix(prefix): leaf for name, leaf in leaves.items() if name.startswith(prefix)}
    if not found:
        firsts = dict.fromkeys(name.split(".")[0] for name in leaves)
        raise InvalidInputError(
            f"there is nothing under the key {key!r}, only under {', '.join(map(repr, list(firsts)[:10]))}. Choose one."
        )
    return found


def choose(leaves: Mapping[str, Leaf], architecture: Architecture, ordered: bool, channels_last: bool) -> Choice | None:
    """Return the networks of the architecture, or None if none fits."""
    found = torch_layout(leaves, channels_last)
    matches = find_networks(found, architecture, ordered)
    if matches:
        return _chosen(found, architecture, matches)
    stacks = [_stacked(leaves, architecture, ordered, channels_last, axis) for axis in AXES]
    fitting = [choice for choice in stacks if choice is not None]
    if len(fitting) > 1:
        others = tuple(choice.notes["networks"] for choice in fitting[1:])
        return replace(fitting[0], others=(*fitting[0].others, *others))
    return fitting[0] if fitting else None


def _chosen(leaves: Mapping[str, Leaf], architecture: Architecture, matches: Sequence[Match]) -> Choice:
    families: dict[str, list[Match]] = {}
    for match in matches:
        families.setdefault(re.sub(r"\d+", "#", match.prefix), []).append(match)
    first, *others = families.values()
    first = sorted(first, key=lambda match: [int(number) for number in re.findall(r"\d+", match.prefix)])
    used = {key for match in matches for key in match.keys.values()}
    left = tuple(key for key in leaves if key not in used)
    taken = leaves[next(iter(first[0].keys.values()))]
    labels, prefix = _labels([match.prefix for match in first])
    return Choice(
        tuple(_network(leaves, architecture, match.keys) for match in first),
        tuple(label.strip("[]") for label in labels),
        prefix,
        one_run=len(first) == 1 or bool(STEPS.search(labels[0])) or labels[0].startswith("["),
        steps=_steps(labels) if len(first) > 1 else None,
        others=tuple(match.prefix for family in others for match in family),
        left_out=left,
        layers_left_out=tuple(key for key in left if leaves[key].is_layer_beside(key, taken)),
        cast=_cast(leaves, first[0].keys),
        notes=_notes(leaves, first[0]),
    )


def _labels(prefixes: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return what differs between prefixes, and what comes before it."""
    if len(prefixes) == 1:
        return ("",), prefixes[0]
    parts = [prefix.split(".") for prefix in prefixes]
    place = next(i for i, components in enumerate(zip(*parts, strict=True)) if len(set(components)) > 1)
    return tuple(components[place] for components in parts), "".join(f"{part}." for part in parts[0][:place])


def _steps(labels: Sequence[str]) -> tuple[int, ...] | None:
    numbers = [re.findall(r"\d+", label) for label in labels]
    if not STEPS.search(labels[0]) or not all(numbers):
        return None
    return tuple(int(number[-1]) for number in numbers)


def _notes(leaves: Mapping[str, Leaf], match: Match) -> dict[str, str]:
    taken = [leaves[key] for key in match.keys.values()]
    kernels = any(leaf.permutation is not None for leaf in taken)
    return {
        **({"names": "others than the architecture's, taken in the order of layers"} if match.by_order else {}),
        **({"layout": "kernels were transposed"} if kernels else {}),
    }


def _cast(leaves: Mapping[str, Leaf], keys: Mapping[str, str]) -> tuple[str, ...]:
    taken = [leaves[key] for key in keys.values()]
    # the bits of a dtype such as float16, bfloat16 or float8_e4m3fn
    halves = [leaf for leaf in taken if leaf.floating and int(re.findall(r"float(\d+)", leaf.dtype)[0]) < 32]
    return tuple(sorted({leaf.dtype for leaf in halves}))


def _network(leaves: Mapping[str, Leaf], architecture: Architecture, keys: Mapping[str, str]) -> dict[str, np.ndarray]:
    arrays = {name: leaves[key].array(key) for name, key in keys.items()}
    for parameter in architecture.parameters:
        if parameter.name in keys and leaves[keys[parameter.name]].channels_last:
            arrays[parameter.name] = channel_major(arrays[parameter.name], parameter)
    return arrays


def _stacked(
    leaves: Mapping[str, Leaf], architecture: Architecture, ordered: bool, channels_last: bool, axis: int
) -> Choice | None:
    """Return networks that are stacked along an axis of every tensor."""
    slices = {key: leaf.stacked(axis) for key, leaf in leaves.items() if leaf.has_axis(axis)}
    found = torch_layout(slices, channels_last)
    matches = find_networks(found, architecture, ordered)
    if not matches:
        return None
    keys = matches[0].keys
    counts = {found[key].value.shape[axis] for key in keys.values()}
    if len(counts) > 1 or not (n := int(counts.pop())):
        return None
    whole = {key: Leaf(Leaf(leaf.value).array(key)) for key, leaf in slices.items()}
    networks = []
    for i in range(n):
        member = torch_layout({key: leaf.stacked(axis, i) for key, leaf in whole.items()}, channels_last)
        networks.append(_network(member, architecture, keys))
    return Choice(
        tuple(networks),
        tuple(map(str, range(n))),
        matches[0].prefix,
        one_run=False,
        others=tuple(match.prefix for match in matches[1:]),
        left_out=tuple(key for key in found if key not in set(keys.values())),
        cast=_cast(found, keys),
        notes={**_notes(found, matches[0]), "networks": f"stacked along axis {axis}"},
    )


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
