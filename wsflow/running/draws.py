"""Random numbers of operations in training mode, and what takes their place in evaluation mode: their means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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


def _passed_on(x: Tensor, *_: Any) -> Tensor:
    return x


def _bernoulli(x: Tensor, p: float | None = None) -> Tensor:
    return x if p is None else torch.full_like(x, p)


def _uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.full_like(x, (low + high) / 2)


def _normal(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return torch.full_like(x, mean)


def _sized(mean: float) -> Callable[..., Tensor]:
    return lambda size, **keywords: torch.full(tuple(size), mean, **keywords)


def _like(mean: float) -> Callable[..., Tensor]:
    return lambda x, **keywords: torch.full_like(x, mean, **keywords)


def _rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Tensor:
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def _attention(*operands: Any, dropout_p: float = 0.0, **keywords: Any) -> Tensor:
    # the share that is dropped is the fifth operand
    operands = (*operands[:4], *((0.0, *operands[5:]) if len(operands) > 4 else ()))
    return torch.ops.aten.scaled_dot_product_attention.default(*operands, **keywords)


# operation -> what it is in evaluation mode
MEANS: dict[str, Callable[..., Tensor]] = {
    "dropout": _passed_on,
    "alpha_dropout": _passed_on,
    "feature_alpha_dropout": _passed_on,
    "bernoulli": _bernoulli,
    "uniform": _uniform,
    "normal_functional": _normal,
    "rand": _sized(0.5),
    "rand_like": _like(0.5),
    "randn": _sized(0.0),
    "randn_like": _like(0.0),
    "rrelu": _rrelu,
    "scaled_dot_product_attention": _attention,
}
