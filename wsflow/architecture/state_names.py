"""Which tensors of a state dict are the parameters of an architecture, whatever stands before or within their names.

Wrappers put a component into names (``_orig_mod`` by torch.compile), modules that hold the network put a prefix before
them (``model.``), and beside the network lie metrics, a teacher or averaged weights. Where names are others than the
architecture's, the shapes of layers may fit in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from wsflow.architecture.architecture import Architecture

COUNTER = "num_batches_tracked"  # of batch norms: outputs do not depend on it
# what torch.compile, activation checkpointing, FSDP, Fabric and flattened parameters put into names, and DataParallel
WRAPPED = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module", "_fpw_module")
WRAPPERS = (WRAPPED, (*WRAPPED, "module"))
# what is no part of a network, by the first component of its name
BESIDE = re.compile(
    r"(^|_)(metrics?\w*|loss\w*|criterion|acc|accuracy|auroc|auc|f1|confusion\w*|teacher\w*|ema|swa|n_averaged|optim\w*)"
    r"(_|\d|$)|(metrics?|loss|accuracy|teacher|ema)$",
    re.IGNORECASE,
)
# where several networks fit, the ones to take last
AVERAGED = re.compile(
    r"(^|[._])(ema|teacher|target|avg|averaged?|swa|shadow|momentum|old|prev\w*|best)([._]|\d|$)", re.I
)

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
LEAVES = ("weight", "bias", "running_mean", "running_var")
Layer = dict[str, tuple[str, Shape]]  # from the last component of a name, to the name and the shape


@dataclass(frozen=True)
class Match:
    """Where the tensors of one network are in a state dict."""

    keys: Mapping[str, str]  # from names of the architecture
    prefix: str = ""  # of the keys
    beside: tuple[str, ...] = ()  # keys that are not of the network
    by_order: bool = False  # whether names are others than the architecture's, and shapes fit in order


@dataclass(frozen=True)
class Expected:
    """The names that a state dict has to have for an architecture, of tied tensors any, and those that it may have."""

    required: tuple[tuple[tuple[str, ...], Shape], ...]
    optional: frozenset[str]

    @classmethod
    def of(cls, architecture: Architecture) -> Expected:
        """Collect the names of an architecture."""
        counters = {p.name for p in architecture.parameters if p.name.endswith(COUNTER) and p.shape == ()}
        return cls(
            tuple(((p.name, *p.aliases), p.shape) for p in architecture.parameters if p.name not in counters),
            frozenset(architecture.constants) | counters,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All names that are known."""
        return (*(name for names, _ in self.required for name in names), *self.optional)


def unwrapped(keys: Iterable[str], components: Sequence[str] = WRAPPED) -> dict[str, str]:
    """Return keys by their names without the components of wrappers; where two would be one, they stay as they are."""
    keys = list(keys)
    plain = {".".join(part for part in key.split(".") if part not in components): key for key in keys}
    return plain if len(plain) == len(keys) and "" not in plain else {key: key for key in keys}


def shared_prefix(keys: Iterable[str]) -> str:
    """Return the components before all keys, of which each keeps two, such as ``fc1.weight``."""
    parts = [key.split(".")[:-2] for key in keys]
    shared: list[str] = []
    for components in zip(*parts, strict=False):
        if len(set(components)) > 1:
            break
        shared.append(components[0])
    return "".join(f"{component}." for component in shared)


def matches_by_name(shapes: Shapes, architecture: Architecture) -> list[Match]:
    """Return the networks of an architecture in a state dict, each under its prefix, those of averages last."""
    expected = Expected.of(architecture)
    for names in _views(shapes):
        found = [match for prefix in _prefixes(names, expected) if (match := _match(names, shapes, expected, prefix))]
        complete = [match for match in found if not _further(match, found, expected)]
        if complete:
            return sorted(complete, key=rank_of_match)
    return []


def rank_of_match(match: Match) -> tuple[bool, int]:
    """Return a key that sorts what is likely meant to the front: no averages, and short prefixes."""
    return bool(AVERAGED.search(match.prefix)), match.prefix.count(".")


def _views(shapes: Shapes) -> Iterator[dict[str, str]]:
    """Yield the keys by their names: as they are, without wrappers, without those of DataParallel."""
    dotted = {key.replace("/", "."): key for key in shapes}
    if len(dotted) < len(shapes):
        dotted = {key: key for key in shapes}
    seen: list[dict[str, str]] = []
    for components in ((), *WRAPPERS):
        names = {name: dotted[key] for name, key in unwrapped(dotted, components).items()}
        if names not in seen:
            seen.append(names)
            yield names


def _prefixes(names: Mapping[str, str], expected: Expected) -> list[str]:
    """Return what stands before the first expected name, wherever that is."""
    found = [n.removesuffix(a) for a in expected.required[0][0] for n in names if n == a or n.endswith(f".{a}")]
    return list(dict.fromkeys(found))


def _match(names: Mapping[str, str], shapes: Shapes, expected: Expected, prefix: str) -> Match | None:
    keys = {}
    for aliases, shape in expected.required:
        present = [alias for alias in aliases if prefix + alias in names]
        if not present or shapes[names[prefix + present[0]]] != shape:
            return None
        keys.update({alias: names[prefix + alias] for alias in present})
    keys.update({name: names[prefix + name] for name in expected.optional if prefix + name in names})
    first = next(iter(keys))
    original = keys[first].replace("/", ".")
    before = original.removesuffix(first) if original.endswith(first) else prefix
    used = set(keys.values())
    return Match(keys, before, tuple(key for key in shapes if key not in used))


def _further(match: Match, found: Sequence[Match], expected: Expected) -> list[str]:
    """Return the keys that would be of the network by their prefix, but are not: it is a larger one."""
    others = {key for other in found if other is not match for key in other.keys.values()}
    return [
        key
        for key in match.beside
        if key.replace("/", ".").startswith(match.prefix) and key not in others and not is_beside(key, match.prefix)
    ]


def is_beside(key: str, prefix: str = "") -> bool:
    """Return whether a key is by its name no part of the network whose keys have this prefix."""
    return key.endswith(COUNTER) or bool(BESIDE.search(key.replace("/", ".").removeprefix(prefix).split(".")[0]))


def misfits(shapes: Shapes, architecture: Architecture) -> list[str]:
    """Describe why a state dict is not of an architecture, under the prefix that fits best."""
    expected = Expected.of(architecture)
    pairs = [
        (names, prefix)
        for names in _views(shapes)
        for prefix in ["", *(n.removesuffix(e) for e in expected.names for n in names if n.endswith(f".{e}"))]
    ]
    names, prefix = max(
        pairs, key=lambda pair: sum(any(pair[1] + a in pair[0] for a in aliases) for aliases, _ in expected.required)
    )
    where = f" under its prefix {prefix!r}" if prefix else ""
    missing = [f"has no {a[0]!r}{where}" for a, _ in expected.required if not any(prefix + n in names for n in a)]
    known = {prefix + name for name in expected.names}
    further = [
        f"has a further {key!r}"
        for name, key in names.items()
        if name not in known and name.startswith(prefix) and not is_beside(key, prefix)
    ]
    if missing and not any(prefix + name in names for name in expected.names):
        missing[0] += f", but {', '.join(repr(key) for key in list(shapes)[:2])}{', ...' if len(shapes) > 2 else ''}"
    shaped = [
        f"has {names[prefix + n]!r} of shape {shapes[names[prefix + n]]}, expected {shape}"
        for aliases, shape in expected.required
        for n in aliases
        if prefix + n in names and shapes[names[prefix + n]] != shape
    ]
    return [*missing[:1], *further[:1], *missing[1:], *shaped, *further[1:]]


def matches_by_order(shapes: Shapes, architecture: Architecture, ordered: bool = True) -> list[Match]:
    """Return where the tensors of an architecture are, if layers of each kind fit in their order, or only one fits.

    The kinds are linear layers, convolutions and norms. Where a state dict is not in the order of layers (`ordered` is
    False), their numbers are it, and else their shapes have to differ. What lies beside has to be another such network,
    or by its name something else.
    """
    expected = _layers((p.name, p.shape) for p in architecture.parameters)
    matches = (_match_by_order(shapes, expected, prefix, ordered) for prefix in _groups(shapes))
    found = {frozenset(match.keys.values()): match for match in matches if match is not None}
    used = {key for keys in found for key in keys}
    if any(key not in used and not is_beside(key) for key in shapes):
        return []
    return sorted(found.values(), key=rank_of_match)


def _match_by_order(shapes: Shapes, expected: Sequence[Layer], prefix: str, ordered: bool) -> Match | None:
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
    fits = len(by_shape) == len(found) and set(wanted) == set(by_shape)
    return [by_shape[shape] for shape in wanted] if fits else None
