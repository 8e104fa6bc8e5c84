"""What is in a file, and its tensors by their names: nested dictionaries, lists and modules laid flat."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wsflow.architecture import Architecture
from wsflow.architecture.state_names import is_beside
from wsflow.architecture.state_rows import as_array
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.damaged import SAVE
from wsflow.populations.importers.unpickling import Global, Opaque

MAXIMUM_DEPTH = 32
MAXIMUM_NODES = 500_000
# what belongs to training, whose moments have the shapes of weights
TRAINING = re.compile(
    r"^(optim\w*|opt|opt_state\w*|opts?_\w*|\w*_optim\w*|lr_sched\w*|sched\w*|scaler|grad_scaler|amp|rng\w*|callbacks|loops|"
    r"random_state\w*|\w*_rng_state\w*)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Checkpoint:
    """What is in a file: dictionaries and lists of tensors, arrays and other things, in which networks are to be found.

    The tensors and arrays have a dtype and a shape; those with a method ``load`` still lie in the file.
    """

    tree: Any
    what: str  # the kind of file, for errors
    ordered: bool = True  # whether the tensors are in the order of the layers, if the format keeps one
    channels_last: bool = True  # whether images have their channels last, where kernels are those of Keras or flax
    architecture: Architecture | None = None  # if the format says it
    notes: Mapping[str, Any] = field(default_factory=dict)  # what else the file says, as JSON data
    # constants that scale inputs and outputs, of which the last is of the outputs, such as "means" and "ranges"
    normalization: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Leaf:
    """A tensor of a file as one of a network: a slice of it where networks are stacked, its axes in torch's order."""

    value: Any
    path: tuple[str, ...] = ()  # the keys of the dictionaries in which it lies
    axis: int | None = None  # along which networks are stacked
    index: int = 0  # of the network
    permutation: tuple[int, ...] | None = None
    merged: bool = False  # whether the first two axes become one, as in depthwise convolutions
    channels_last: bool = False  # whether features are pixels times channels, where torch has channels times pixels

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of the slice, before its axes are permuted."""
        shape = tuple(int(size) for size in self.value.shape)
        if self.axis is None:
            return shape
        axis = self.axis % len(shape)
        return shape[:axis] + shape[axis + 1 :]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in torch's order."""
        sizes = self.sizes if self.permutation is None else tuple(self.sizes[i] for i in self.permutation)
        return (sizes[0] * sizes[1], 1, *sizes[2:]) if self.merged else sizes

    @property
    def dtype(self) -> str:
        """The name of the dtype."""
        name = str(self.value.dtype).removeprefix("torch.")
        return np.dtype(name).name if name[:1] in "<>|=" else name

    @property
    def floating(self) -> bool:
        """Whether the numbers are of floating point."""
        return "float" in self.dtype

    def is_layer_beside(self, name: str, other: Leaf) -> bool:
        """Return whether this is a layer's: a weight by its name, or in one dictionary with another tensor."""
        if not self.floating or not self.shape:
            return False
        named = name.rpartition(".")[2] in ("weight", "kernel") and len(self.shape) > 1
        return named or (self.path[:-1] == other.path[:-1] and not is_beside(self.path[-1]))

    def has_axis(self, axis: int) -> bool:
        """Return whether the tensor has an axis along which networks can be stacked."""
        return -len(self.value.shape) <= axis < len(self.value.shape)

    def stacked(self, axis: int, index: int = 0) -> Leaf:
        """Return the slice of one of several networks that are stacked along an axis."""
        return replace(self, axis=axis, index=index)

    def array(self, key: str) -> np.ndarray:
        """Read the numbers, in single precision at least; the key names them in errors."""
        value = self.value.load() if hasattr(self.value, "load") else self.value
        array = as_array(key, value)
        if self.axis is not None:
            array = array.take(self.index, axis=self.axis)
        if self.permutation is not None:
            array = array.transpose(self.permutation)
        return array.reshape(self.shape)


def is_node(value: Any) -> bool:
    """Return whether a value is a tensor, or something in which there may be some."""
    return isinstance(value, (Mapping, list, tuple, Opaque, Global)) or is_tensor(value)


def is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor or an array of numbers, which may still lie in its file."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and str(value.dtype) != "object"


def leaves_of(tree: Any) -> tuple[dict[str, Leaf], dict[str, str]]:
    """Return the tensors in nested dictionaries, lists and modules by their names, without what belongs to training.

    The second dictionary has the names of the classes and functions in a pickle, by where they are.
    """
    found: dict[str, Leaf] = {}
    objects: dict[str, str] = {}
    for path, value in _walk(tree, (), set(), itertools.count()):
        if path and is_tensor(value):
            found.setdefault(".".join(path), Leaf(value, path))
        elif isinstance(value, (Opaque, Global)):
            objects.setdefault(".".join(path), str(value))
    dotted = {name.replace("/", "."): leaf for name, leaf in found.items()}
    return (dotted if len(dotted) == len(found) else found), objects


def _walk(
    node: Any, path: tuple[str, ...], above: set[int], count: Iterator[int]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield dictionaries, lists, objects and tensors, with the keys under which they are."""
    if next(count) > MAXIMUM_NODES:
        raise InvalidInputError(f"it holds more than {MAXIMUM_NODES} dictionaries, lists and objects. {SAVE}")
    yield path, node
    if len(path) > MAXIMUM_DEPTH or id(node) in above:
        return
    above.add(id(node))
    for key, value in children(node):
        if is_node(value) and not TRAINING.match(key):
            yield from _walk(value, (*path, key), above, count)
    # an object that is there twice is walked once
    if not isinstance(node, Opaque):
        above.discard(id(node))


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is in a dictionary, a list or an object that was not made, with names."""
    if isinstance(node, Mapping):
        yield from ((str(key), value) for key, value in node.items() if isinstance(key, (str, int)))
    elif isinstance(node, (list, tuple)):
        yield from ((f"[{i}]", value) for i, value in enumerate(node))
    elif isinstance(node, Opaque):
        yield from _children_of_object(node)


def _children_of_object(node: Opaque) -> Iterator[tuple[str, Any]]:
    # objects with slots have a pair of two states
    states = node.state if isinstance(node.state, tuple) else (node.state,)
    state = next((value for value in states if isinstance(value, Mapping)), {})
    if "_modules" in state and "_parameters" in state:
        left = state.get("_non_persistent_buffers_set")
        names = set(left) if isinstance(left, set) else set()
        yield from children(state["_parameters"])
        yield from ((k, v) for k, v in children(state.get("_buffers")) if k not in names)
        yield from children(state["_modules"])
    else:
        yield from children(state)
    yield from children(node.items)
    yield from children(node.elements)
    # the arguments of torch's own functions are parts of a tensor, such as the indices of a sparse one
    if not str(node).startswith("torch._"):
        yield from children(node.arguments)
