"""Run n networks and see, or change, what their linear layers and convolutions do, in the order of execution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wsflow.architecture import Architecture
from wsflow.architecture.readable import unwrapped
from wsflow.architecture.sequential import LINEAR
from wsflow.running.affine import SPATIAL, Affine, affine_of, settings_of
from wsflow.running.execution import apply_layer, batched_linear, run_module
from wsflow.running.outputs import output_of
from wsflow.running.program import ProgramModule
from wsflow.running.rows import unflatten

Tensors = Mapping[str, Tensor]
# from the number of a use, the use, its inputs, weight and bias, further tensors, and a dictionary for what is to be
# returned, to its outputs
Visit = Callable[[int, Affine, Tensor, Tensor, "Tensor | None", Tensors, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Use:
    """A use of a layer, which puts out `shape` for so many examples; what is `given` does not depend on weights."""

    affine: Affine
    shape: tuple[int, ...]
    examples: int
    given: bool

    def shape_for(self, examples: int) -> tuple[int, ...]:
        """Return the shape of its outputs for another number of examples."""
        return (self.shape[0] * examples // self.examples, *self.shape[1:])


class AffineLayers:
    """The linear layers and convolutions of the networks of an architecture, found by running one of them.

    `uses` has them in the order of execution, and `elsewhere` the parameters that other operations use.

    Parameters
    ----------
    architecture : Architecture
        One that runs.
    example : Tensor of shape (b, ...)
        Inputs of the networks.

    Examples
    --------
    >>> import torch
    >>> from wsflow import Architecture
    >>> from wsflow.running.affine_layers import AffineLayers
    >>> layers = AffineLayers(Architecture.mlp([4, 3, 2]), torch.zeros(2, 4))
    >>> [use.affine.weight for use in layers.uses]
    ['0.weight', '2.weight']
    """

    def __init__(self, architecture: Architecture, example: Tensor) -> None:
        self.architecture = architecture
        # a program has torch's operators alone, where a module may hide them
        program = not architecture.layers and architecture.program is not None
        self._module = ProgramModule(architecture) if program else architecture.executable
        found: list[Use] = []

        def see(i: int, affine: Affine, inputs: Tensor, weight: Tensor, bias: Any, *rest: Any) -> Tensor:
            outputs = affine(inputs, weight, bias)
            shape = outputs.shape[affine.networks :]
            found.append(Use(affine, tuple(shape), len(example), not inputs.requires_grad))
            return outputs

        with torch.enable_grad():
            self.elsewhere = frozenset(self._look(example, see))
        self.uses = tuple(found)

    def _look(self, example: Tensor, see: Visit) -> set[str]:
        weights = torch.zeros(1, self.architecture.n_weights, requires_grad=True, dtype=torch.float32)
        example = example.to(weights) if example.is_floating_point() else example
        if self.architecture.layers:
            self.run(weights, example, see)
            return set()
        wrapper = _Visited(unwrapped(self._module), see, self.architecture.names, {})
        state = {f"module.{name}": tensor[0] for name, tensor in unflatten(weights, self.architecture).items()}
        torch.func.functional_call(wrapper, state, (example,))
        return wrapper.elsewhere

    def run(
        self, weights: Tensor, inputs: Tensor, visit: Visit, further: Tensors | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the outputs (n, b, k) of networks (n, d), and what `visit` keeps, (n, ...) for each name.

        `visit` computes each use; where a module runs the networks, it sees one network at a time. `further` are
        tensors (n, ...) that it gets.
        """
        tensors, further = unflatten(weights, self.architecture), further or {}
        if self.architecture.layers:
            return _run_layers(tensors, self.architecture, inputs, visit, further)
        wrapper = _Visited(unwrapped(self._module), visit, self.architecture.names, further)
        state = {f"module.{name}": tensor for name, tensor in tensors.items()}
        state |= {wrapper.buffer(name): tensor for name, tensor in further.items()}
        outputs, kept = run_module(state, wrapper, inputs)
        return outputs, kept


def _run_layers(
    tensors: Tensors, architecture: Architecture, inputs: Tensor, visit: Visit, further: Tensors
) -> tuple[Tensor, dict[str, Tensor]]:
    first = next(iter(tensors.values()))
    kept: dict[str, Tensor] = {}
    hidden, count = inputs.to(first).expand(len(first), *inputs.shape), 0
    for layer in architecture.layers:
        if layer.kind != LINEAR:
            hidden = apply_layer(layer, tensors, hidden)
            continue
        affine = Affine(
            f"{layer.name}.weight", f"{layer.name}.bias" if layer.bias else None, batched_linear, networks=1
        )
        bias = tensors[affine.bias] if affine.bias else None
        hidden = visit(count, affine, hidden, tensors[affine.weight], bias, further, kept)
        count += 1
    return hidden, kept


class _Visited(nn.Module):
    """Runs a module, and returns its output and what a visit to its linear layers and convolutions keeps."""

    def __init__(self, module: nn.Module, visit: Visit, names: tuple[str, ...], further: Tensors) -> None:
        super().__init__()
        self.module, self.visit, self.names = module, visit, frozenset(names)
        self.further = {name: f"further{i}" for i, name in enumerate(further)}
        self.elsewhere: set[str] = set()
        for name in self.further.values():
            self.register_buffer(name, torch.zeros(()))

    def buffer(self, name: str) -> str:
        """Return the name of the buffer that is a further tensor."""
        return self.further[name]

    def forward(self, *inputs: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Return the output, and what was kept."""
        kept: dict[str, Tensor] = {}
        further = {name: getattr(self, buffer) for name, buffer in self.further.items()}
        tensors = [*self.module.named_parameters(remove_duplicate=False), *self.module.named_buffers()]
        names = {id(tensor): name for name, tensor in reversed(tensors) if name in self.names}
        count = 0

        def visit(affine: Affine, *operands: Any) -> Tensor:
            nonlocal count
            count += 1
            return self.visit(count - 1, affine, *operands, further, kept)

        with _Calls(names, visit, self.elsewhere):
            output = self.module(*inputs)
        return output_of(output), kept


class _Calls(TorchFunctionMode):
    """Sees each call of torch, and lets `visit` compute linear layers and convolutions whose weights are parameters."""

    def __init__(self, names: dict[int, str], visit: Callable[..., Tensor], elsewhere: set[str]) -> None:
        super().__init__()
        self.names, self.visit, self.elsewhere = names, visit, elsewhere

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").partition(".")[0]
        if name in SPATIAL:
            operands = dict(zip(("input", "weight", "bias", *settings_of(name)), args, strict=False)) | kwargs
            affine = affine_of(name, func, operands, self.names)
            if affine is not None:
                return self.visit(affine, operands["input"], operands["weight"], operands.get("bias"))
        result = func(*args, **kwargs)
        if isinstance(result, Tensor | tuple | list) and not isinstance(result, torch.Size):
            self.elsewhere |= {self.names[id(x)] for x in _flat((args, kwargs.values())) if id(x) in self.names}
        return result


def _flat(values: Any) -> list[Any]:
    """Return what nested sequences have, two levels deep."""
    return [x for outer in values for value in outer for x in (value if isinstance(value, list | tuple) else [value])]
