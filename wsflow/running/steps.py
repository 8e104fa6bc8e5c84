"""One operation of a program on n networks at once: what each network has of its own has a leading axis of networks.

In training mode operations draw random numbers, whose means take their place in evaluation mode.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from wsflow.architecture.operations import INTEGER
from wsflow.architecture.program import Operation

Generators = torch.Generator | Sequence[torch.Generator]


@dataclass(frozen=True)
class Draws:
    """Random numbers for n networks, each of which has its own.

    They are drawn from one generator for all networks, or from one generator for each.
    """

    n: int
    generator: Generators

    def of(self, i: int) -> Draws:
        """Return the draws of one network."""
        return Draws(1, self.generator if isinstance(self.generator, torch.Generator) else self.generator[i : i + 1])

    def bernoulli(self, shape: Sequence[int], p: float, like: Tensor) -> Tensor:
        """Return zeros and ones of shape (n, *shape), ones with probability p."""
        return self._filled(shape, like, lambda x, generator: x.bernoulli_(p, generator=generator))

    def uniform(self, shape: Sequence[int], low: float, high: float, like: Tensor) -> Tensor:
        """Return uniform numbers of shape (n, *shape)."""
        return self._filled(shape, like, lambda x, generator: x.uniform_(low, high, generator=generator))

    def normal(self, shape: Sequence[int], mean: float, std: float, like: Tensor) -> Tensor:
        """Return normal numbers of shape (n, *shape)."""
        return self._filled(shape, like, lambda x, generator: x.normal_(mean, std, generator=generator))

    def _filled(self, shape: Sequence[int], like: Tensor, fill: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        if isinstance(self.generator, torch.Generator):
            result = torch.empty(self.n, *shape, dtype=like.dtype, device=self.generator.device)
            return fill(result, self.generator).to(like.device)
        return torch.stack(
            [fill(torch.empty(*shape, dtype=like.dtype, device=g.device), g).to(like.device) for g in self.generator]
        )


def _sized(mean: float) -> Callable[..., Tensor]:
    return lambda size, **keywords: torch.full(tuple(size), mean, **keywords)


def _like(mean: float) -> Callable[..., Tensor]:
    return lambda x, **keywords: torch.full_like(x, mean, **keywords)


def _attention(*operands: Any, dropout_p: float = 0.0, **keywords: Any) -> Tensor:
    # the share that is dropped is the fifth operand
    operands = (*operands[:4], *((0.0, *operands[5:]) if len(operands) > 4 else ()))
    return torch.ops.aten.scaled_dot_product_attention.default(*operands, **keywords)


# operation -> what it is in evaluation mode
MEANS: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("dropout", "alpha_dropout", "feature_alpha_dropout"), lambda x, *_: x),
    "bernoulli": lambda x, p=None: x if p is None else torch.full_like(x, p),
    "uniform": lambda x, low=0.0, high=1.0: torch.full_like(x, (low + high) / 2),
    "normal_functional": lambda x, mean=0.0, std=1.0: torch.full_like(x, mean),
    "rand": _sized(0.5),
    "rand_like": _like(0.5),
    "randn": _sized(0.0),
    "randn_like": _like(0.0),
    "rrelu": lambda x, lower=1 / 8, upper=1 / 3, training=False: functional.leaky_relu(x, (lower + upper) / 2),
    "scaled_dot_product_attention": _attention,
}


class Own(NamedTuple):
    """A tensor (n, ...), or several of them, of which each network has its own."""

    value: Any


def is_own(x: Any) -> bool:
    """Return whether each network has its own value."""
    return isinstance(x, Own)


def value(x: Any) -> Any:
    """Return a value as it is."""
    return x.value if isinstance(x, Own) else x


def rank(x: Any) -> int:
    """Return the number of axes that a tensor has in one network; 0 for numbers."""
    return value(x).dim() - is_own(x) if isinstance(value(x), Tensor) else 0


def shape(x: Any) -> tuple[int, ...]:
    """Return the shape that a tensor has in one network."""
    return tuple(value(x).shape[is_own(x) :])


def aligned(x: Any, axes: int) -> Any:
    """Return a value that broadcasts with those of so many axes in one network, behind the axis of networks."""
    if not isinstance(x, Own) or x.value.dim() > axes:
        return value(x)
    return x.value.reshape(len(x.value), *(axes + 1 - x.value.dim()) * (1,), *x.value.shape[1:])


@dataclass(slots=True)
class Step:
    """An operation, the number of networks, and how it is run.

    In evaluation mode there are no `draws` and no `updated` statistics, into which batch norms put those that replace
    the running ones. `tensors` (n, *shape) are the parameters by name.
    """

    operation: Operation
    n: int
    device: torch.device
    tensors: Mapping[str, Tensor]
    draws: Draws | None = None
    updated: dict[str, Tensor] | None = None

    def function(self, *arguments: Any, **keywords: Any) -> Any:
        """Run the operation on one network, or on tensors that broadcast."""
        function, placed = function_of(self.operation.function)
        if placed:
            keywords["device"] = self.device
        if self.draws is None and self.operation.base in MEANS:
            function = MEANS[self.operation.base]
        return function(*arguments, **keywords)

    def mapped(self, *arguments: Any, **keywords: Any) -> Own:
        """Run the operation on all networks by torch's batching rules, or on one after the other where it has none."""
        leaves, spec = tree_flatten((arguments, keywords), is_leaf=is_own)
        own = [i for i, leaf in enumerate(leaves) if is_own(leaf)]

        def one(*values: Any) -> Any:
            given = list(leaves)
            for i, each in zip(own, values, strict=True):
                given[i] = each
            args, named = tree_unflatten(given, spec)
            return self.function(*args, **named)

        values = [leaves[i].value for i in own]
        # some operations cannot be batched over networks
        with suppress(RuntimeError):
            return Own(torch.vmap(one)(*values))
        return Own(stacked(one(*each) for each in zip(*map(_unbound, values), strict=True)))


def _unbound(values: Any) -> Iterable[Any]:
    leaves, spec = tree_flatten(values)
    return (tree_unflatten(each, spec) for each in zip(*(leaf.unbind() for leaf in leaves), strict=True))


def stacked(results: Iterable[Any]) -> Any:
    """Stack the results of the networks, which are tensors or several of them."""
    return tree_map(lambda *each: torch.stack(each), *results)


@cache
def function_of(name: str) -> tuple[Callable[..., Any], bool]:
    """Return the function of an operation, and whether it takes the device on which it makes a tensor."""
    base, _, overload = name.partition(".")
    if base == "getitem":
        return operator.getitem, False
    if base == "sym_size":
        return Tensor.size, False
    if base.startswith("int_") and base.removeprefix("int_") in INTEGER:
        kind = base.removeprefix("int_")
        return {"max": max, "min": min}.get(kind) or getattr(operator, kind, None) or getattr(math, kind), False
    found = getattr(getattr(torch.ops.aten, base, None), overload or "default", None)
    if found is None or found._schema.is_mutable:
        raise ValueError(f"This version of torch has no operation {name!r}.")
    return found, any(argument.name == "device" for argument in found._schema.arguments)
