"""Run the program of an architecture on n networks at once, in evaluation and in training mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from wsflow.architecture.program import (
    Constant,
    ConstantValue,
    Dtype,
    Input,
    Operation,
    ParameterValue,
    Program,
    Value,
)
from wsflow.exceptions import InvalidInputError
from wsflow.memory import physical_memory
from wsflow.running.draws import Draws
from wsflow.running.kernels import computed
from wsflow.running.steps import Own, Step, is_own, value

# what an operation raises where its operands are not what it takes
FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, MemoryError)


class SizeLimit(TorchDispatchMode):
    """Refuses results that this machine's memory does not hold."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.nbytes > physical_memory():
                raise ValueError(f"its result has {tensor.nbytes:.1e} bytes, more than this machine's memory")
        return result


@dataclass
class Run:
    """One run of n networks through a program, operation by operation.

    Parameters
    ----------
    program : Program
    tensors : mapping of str to Tensor of shape (n, *shape)
        The parameters by name.
    draws : Draws, optional
        What is drawn at random, in training mode.
    updated : dict of str to Tensor, optional
        Given in training mode: batch norms follow the batch, and put here the statistics that replace theirs.
    """

    program: Program
    tensors: Mapping[str, Tensor]
    draws: Draws | None = None
    updated: dict[str, Tensor] | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reference = next(x for x in self.tensors.values() if x.is_floating_point())
        self.n = len(self.reference)
        self.constants = {constant.name: self._constant(constant) for constant in self.program.constants}

    def operations(self, *inputs: Tensor) -> Iterator[tuple[Operation, list[Any], Any]]:
        """Yield each operation with its operands and its result, `Own` where each network has its own."""
        for known, x in zip(self.program.inputs, self._checked(inputs), strict=True):
            self.values[known.name] = self._input(known, x)
        for operation, unused in zip(self.program.operations, self.program.last_uses, strict=True):
            arguments = self._resolved(operation.arguments)
            try:
                result = self._computed(operation, arguments)
            except FAILURES as error:
                raise InvalidInputError(
                    f"The operation {operation.name!r} of the program, {operation.function}, failed: {error}"
                ) from error
            self.values[operation.name] = result
            yield operation, arguments, result
            for name in unused:
                del self.values[name]

    def output(self, *inputs: Tensor) -> Any:
        """Return the output (n, ...) of all networks on inputs (b, ...), or (n, b, ...) one for each network."""
        for _ in self.operations(*inputs):
            pass
        result = self._resolved(self.program.output)
        leaves = tree_leaves(result, is_leaf=is_own)
        if wrong := next((leaf for leaf in leaves if not isinstance(value(leaf), Tensor)), None):
            raise InvalidInputError(f"The output of the program has {wrong!r:.60}, which is no tensor.")
        return tree_map(self._each, result, is_leaf=is_own)

    def _each(self, x: Any) -> Tensor:
        return x.value if isinstance(x, Own) else x.expand(self.n, *x.shape)

    def _checked(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        if len(inputs) != len(self.program.inputs):
            raise InvalidInputError(
                f"These networks take {len(self.program.inputs)} inputs, of shapes "
                f"{', '.join(str(x.shape) for x in self.program.inputs)}, got {len(inputs)}."
            )
        return inputs

    def _input(self, known: Input, x: Tensor) -> Any:
        """Return an input in its type, of which each network has its own if it has one axis more than declared."""
        more = x.dim() - len(known.shape)
        if more not in (0, 1) or (more and len(x) != self.n):
            raise InvalidInputError(
                f"An input of these networks has {len(known.shape)} axes, as in {known.shape}, or one more of "
                f"{self.n} where each network has its own, got shape {tuple(x.shape)}."
            )
        x = x.to(self.reference.device, self._dtype(known.dtype))
        return Own(x) if more else x

    def _computed(self, operation: Operation, arguments: list[Any]) -> Any:
        keywords = {name: self._resolved(operand) for name, operand in operation.keywords}
        own = any(map(is_own, tree_leaves((arguments, keywords), is_leaf=is_own)))
        step = Step(operation, self.n, self.reference.device, self.tensors, self.draws, self.updated)
        return computed(step, arguments, keywords, own)

    def _resolved(self, operand: Any) -> Any:
        if isinstance(operand, Value):
            return self.values[operand.name]
        if isinstance(operand, ParameterValue):
            updated = (self.updated or {}).get(operand.name)
            return Own(self.tensors[operand.name] if updated is None else updated)
        if isinstance(operand, ConstantValue):
            return self.constants[operand.name]
        if isinstance(operand, Dtype):
            return self._dtype(operand.name)
        if isinstance(operand, tuple):
            return [self._resolved(item) for item in operand]
        return operand

    def _dtype(self, name: str) -> torch.dtype:
        return self.reference.dtype if name == "weights" else getattr(torch, name)

    def _constant(self, constant: Constant) -> Tensor:
        known = constant_tensor(constant)
        return known.to(self.reference.device, self.reference.dtype if known.dtype == torch.float64 else known.dtype)


@lru_cache(maxsize=256)
def constant_tensor(constant: Constant) -> Tensor:
    """Return the tensor of a constant; those in the type of the weights are of float64 here."""
    dtype = torch.float64 if constant.dtype == "weights" else getattr(torch, constant.dtype)
    if not constant.data:
        return torch.empty(constant.shape, dtype=dtype)
    return torch.frombuffer(bytearray(constant.data), dtype=dtype).reshape(constant.shape)
