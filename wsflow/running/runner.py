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

from wsflow.architecture import Architecture
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
from wsflow.running.kernels import computed
from wsflow.running.products import is_sliding
from wsflow.running.steps import Draws, Own, Step, is_own, value

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

    In training mode `updated` is given: batch norms follow the batch, and put into it the statistics (n, ...) that
    replace theirs.
    """

    program: Program
    tensors: Mapping[str, Tensor]  # (n, *shape), the parameters by name
    draws: Draws | None = None  # what is drawn at random, in training mode
    updated: dict[str, Tensor] | None = None
    alone: bool = False  # whether the tensors are those of one network, without the axis of networks
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reference = next(x for x in self.tensors.values() if x.is_floating_point())
        self.n = 1 if self.alone else len(self.reference)
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
        if not self.alone and any(is_sliding(operation, self.tensors) for operation in self.program.operations):
            return self._one_by_one(self._checked(inputs))
        return self.together(*inputs)

    def together(self, *inputs: Tensor) -> Any:
        """Return the output (n, ...) of all networks, each operation on all of them before the next."""
        for _ in self.operations(*inputs):
            pass
        result = self._resolved(self.program.output)
        if isinstance(value(result), Tensor):
            return self._each(result)
        leaves = tree_leaves(result, is_leaf=is_own)
        if wrong := next((leaf for leaf in leaves if not isinstance(value(leaf), Tensor)), None):
            raise InvalidInputError(f"The output of the program has {wrong!r:.60}, which is no tensor.")
        return tree_map(self._each, result, is_leaf=is_own)

    def _one_by_one(self, inputs: Sequence[Tensor]) -> Any:
        """Run networks with convolutions one after the other, which a CPU's caches hold."""
        results, updated = [], []
        # unbind has one stack as its backward pass, where an index would have a tensor of zeros each
        rows = {name: tensor.unbind() for name, tensor in self.tensors.items()}
        given = [
            x.unbind() if self._more(known, x) else [x] * self.n
            for known, x in zip(self.program.inputs, inputs, strict=True)
        ]
        for i in range(self.n):
            draws = None if self.draws is None else self.draws.of(i)
            tensors = {name: tensor[i] for name, tensor in rows.items()}
            run = Run(self.program, tensors, draws, None if self.updated is None else {}, alone=True)
            results.append(run.output(*(x[i] for x in given)))
            updated.append(run.updated or {})
        if self.updated is not None:
            self.updated.update({name: torch.cat([each[name] for each in updated]) for name in updated[0]})
        return tree_map(lambda *each: torch.cat(each), *results)

    def _each(self, x: Any) -> Tensor:
        return x.value if isinstance(x, Own) else x.expand(self.n, *x.shape)

    def _checked(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        if len(inputs) != len(self.program.inputs):
            raise InvalidInputError(
                f"These networks take {len(self.program.inputs)} inputs, of shapes "
                f"{', '.join(str(x.shape) for x in self.program.inputs)}, got {len(inputs)}."
            )
        return inputs

    def _more(self, known: Input, x: Tensor) -> bool:
        """Return whether each network has its own input, which then has one axis more than declared."""
        more = x.dim() - len(known.shape)
        if more not in (0, 1) or (more and (self.alone or len(x) != self.n)):
            raise InvalidInputError(
                f"An input of these networks has {len(known.shape)} axes, as in {known.shape}, or one more of "
                f"{self.n} where each network has its own, got shape {tuple(x.shape)}."
            )
        return bool(more)

    def _input(self, known: Input, x: Tensor) -> Any:
        own = self._more(known, x)
        x = x.to(self.reference.device, self._dtype(known.dtype))
        return Own(x) if own else x

    def _computed(self, operation: Operation, arguments: list[Any]) -> Any:
        keywords = {name: self._resolved(operand) for name, operand in operation.keywords}
        own = any(map(_has_own, arguments)) or any(map(_has_own, keywords.values()))
        step = Step(operation, self.n, self.reference.device, self.tensors, self.draws, self.updated)
        return computed(step, arguments, keywords, own)

    def _resolved(self, operand: Any) -> Any:
        kind = type(operand)
        if kind is Value:
            return self.values[operand.name]
        if kind is ParameterValue:
            return self._parameter(operand.name)
        if kind is tuple:
            return [self._resolved(item) for item in operand]
        if kind is ConstantValue:
            return self.constants[operand.name]
        return self._dtype(operand.name) if kind is Dtype else operand

    def _parameter(self, name: str) -> Any:
        if self.updated and name in self.updated:
            return Own(self.updated[name])
        return self.tensors[name] if self.alone else Own(self.tensors[name])

    def _dtype(self, name: str) -> torch.dtype:
        return self.reference.dtype if name == "weights" else getattr(torch, name)

    def _constant(self, constant: Constant) -> Tensor:
        known = constant_tensor(constant)
        return known.to(self.reference.device, self.reference.dtype if known.dtype == torch.float64 else known.dtype)


@torch.no_grad()
def try_program(architecture: Architecture) -> bool:
    """Run a program on shapes alone, which refuses what does not fit, and say that it was done."""
    program = architecture.program
    if program is not None:
        tensors = {p.name: torch.empty(p.shape, device="meta") for p in architecture.parameters}
        real = {x.dtype: torch.float32 if x.dtype == "weights" else getattr(torch, x.dtype) for x in program.inputs}
        with SizeLimit():
            Run(program, tensors, alone=True).output(
                *(torch.empty(x.shape, dtype=real[x.dtype], device="meta") for x in program.inputs)
            )
    return True


def _has_own(operand: Any) -> bool:
    return type(operand) is Own or (type(operand) is list and any(map(_has_own, operand)))


@lru_cache(maxsize=256)
def constant_tensor(constant: Constant) -> Tensor:
    """Return the tensor of a constant; those in the type of the weights are of float64 here."""
    dtype = torch.float64 if constant.dtype == "weights" else getattr(torch, constant.dtype)
    if not constant.data:
        return torch.empty(constant.shape, dtype=dtype)
    return torch.frombuffer(bytearray(constant.data), dtype=dtype).reshape(constant.shape)
