"""A program as a torch module, whose layers, parameters and buffers are named as those of the module that was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from wsflow.architecture import Architecture
from wsflow.architecture.program import ConstantValue, Dtype, Operation, ParameterValue, Value
from wsflow.exceptions import InvalidInputError
from wsflow.running.affine import CONVOLUTION, TRANSPOSED
from wsflow.running.normalisation import COUNTER, follows_batch
from wsflow.running.runner import FAILURES, SizeLimit, constant_tensor
from wsflow.running.steps import MEANS, function_of

# the operands behind a layer's input, which are parameters of the layer itself
_OWN = ("weight", "bias", "running_mean", "running_var")
_CONVOLUTIONS = {f"conv{n}d": getattr(nn, f"Conv{n}d") for n in (1, 2, 3)}
_TRANSPOSED = {f"conv_transpose{n}d": getattr(nn, f"ConvTranspose{n}d") for n in (1, 2, 3)}


@dataclass(frozen=True)
class _Step:
    """An operation, the layer that computes it or passes it on, and the values that nothing uses afterwards."""

    operation: Operation
    layer: str
    computes: bool
    last_used: tuple[str, ...]


class ProgramModule(nn.Module):
    """Run the program of an architecture for one network, in evaluation mode until `train` is called.

    In training mode it draws from torch's global generator, as torch's modules do. Linear layers, convolutions and
    batch norms with parameters of their own are torch's layers. All weights are zero: `torch.func.functional_call` or
    `load_state_dict` puts in those of a network.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wsflow import Architecture
    >>> from wsflow.running.program import ProgramModule
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    >>> module = ProgramModule(Architecture.from_module(net, torch.zeros(2, 1, 8, 8)))
    >>> x = torch.randn(5, 1, 8, 8)
    >>> torch.equal(torch.func.functional_call(module, net.state_dict(), x), net(x))
    True
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if architecture.program is None:
            raise ValueError("This architecture has no program. Pass module=, which runs its networks.")
        self._program = architecture.program
        self._constants = {constant.name: constant_tensor(constant) for constant in self._program.constants}
        try:
            computed = self._put_layers(architecture)
            for parameter in architecture.parameters:
                self._put_tensor(parameter.name, parameter.shape, parameter.role == "weight")
            self._steps = self._steps_of(computed)
        except FAILURES as error:
            raise InvalidInputError(f"The program of this architecture makes no module: {error}") from error
        self.eval()
        self._check(architecture)

    def _check(self, architecture: Architecture) -> None:
        """Run the program on shapes alone."""
        sizes = {p.name: torch.empty(p.shape, device="meta") for p in architecture.parameters}
        state = {name: x.long() if name.endswith(COUNTER) else x for name, x in sizes.items()}
        inputs = [
            torch.empty(
                x.shape, device="meta", dtype=torch.float32 if x.dtype == "weights" else getattr(torch, x.dtype)
            )
            for x in self._program.inputs
        ]
        with torch.no_grad(), SizeLimit():
            torch.func.functional_call(self, state, tuple(inputs))

    def _put_layers(self, architecture: Architecture) -> set[str]:
        """Make the submodules, and return the names of the operations that torch's layers compute."""
        shapes = {parameter.name: parameter.shape for parameter in architecture.parameters}
        computed: set[str] = set()
        layers: dict[str, nn.Module] = {}
        for operation in self._program.operations:
            layer = torch_layer(operation, shapes)
            if layer is None:
                continue
            first = layers.setdefault(operation.layer, layer)
            if type(first) is type(layer) and first.extra_repr() == layer.extra_repr():
                computed.add(operation.name)
        for name in dict.fromkeys(operation.layer for operation in self._program.operations):
            if name in layers and name:
                parent, _, key = name.rpartition(".")
                self._submodule(parent).add_module(key, layers[name])
            self._submodule(name)
        return computed

    def _submodule(self, name: str) -> nn.Module:
        module: nn.Module = self
        for key in name.split(".") if name else ():
            if key not in module._modules:
                module.add_module(key, Layer())
            module = module._modules[key]  # type: ignore[assignment]
        return module

    def _put_tensor(self, name: str, shape: tuple[int, ...], learned: bool) -> None:
        path, _, key = name.rpartition(".")
        module = self._submodule(path)
        module._parameters.pop(key, None)
        module._buffers.pop(key, None)
        if learned:
            # of one number in memory, whatever the shape
            module.register_parameter(key, nn.Parameter(torch.zeros(()).expand(shape)))
        else:
            module.register_buffer(key, torch.zeros(shape, dtype=torch.long if key == COUNTER else None))

    def _steps_of(self, computed: set[str]) -> list[_Step]:
        steps: list[_Step] = []
        following = ""
        operations = zip(self._program.operations, self._program.last_uses, strict=True)
        for operation, last_used in reversed(list(operations)):
            layer = operation.layer if operation.layer != following or operation.name in computed else ""
            if operation.name not in computed and layer:
                # a layer without sublayers passes on what its operations compute, where these are not torch's layer
                module = self.get_submodule(layer)
                layer = layer if type(module) is Layer and not module._modules else ""
            steps.append(_Step(operation, layer, operation.name in computed, last_used))
            following = following if operation.is_size else operation.layer
        return steps[::-1]

    def forward(self, *inputs: Any) -> Any:
        """Return the output of the network."""
        values = {known.name: value for known, value in zip(self._program.inputs, inputs, strict=True)}
        reference = next((p for p in self.parameters()), torch.empty(()))
        for step in self._steps:
            try:
                values[step.operation.name] = self._computed(step, values, reference)
            except FAILURES as error:
                name, function = step.operation.name, step.operation.function
                raise InvalidInputError(
                    f"The operation {name!r} of the program, {function}, failed: {error}"
                ) from error
            for name in step.last_used:
                del values[name]
        result = self._resolved(self._program.output, values, reference)
        if wrong := next((leaf for leaf in tree_leaves(result) if not isinstance(leaf, Tensor)), None):
            raise InvalidInputError(f"The output of the program has {wrong!r:.60}, which is no tensor.")
        return result

    def _computed(self, step: _Step, values: dict[str, Any], reference: Tensor) -> Any:
        if step.computes:
            return self.get_submodule(step.layer)(self._resolved(step.operation.arguments[0], values, reference))
        arguments = self._resolved(step.operation.arguments, values, reference)
        keywords = {name: self._resolved(value, values, reference) for name, value in step.operation.keywords}
        result = self._function(step.operation, reference.device)(*arguments, **keywords)
        return self.get_submodule(step.layer)(result) if step.layer else result

    def _function(self, operation: Operation, device: torch.device) -> Any:
        """Return an operation as it is in the module's mode."""
        function, placed = function_of(operation.function)
        if not self.training and operation.base in MEANS:
            function = MEANS[operation.base]
        if operation.base in ("batch_norm", "instance_norm"):
            follows = follows_batch(operation, self.training)
            return lambda *arguments: function(*arguments[:5], follows, *arguments[6:])
        return partial(function, device=device) if placed else function

    def _resolved(self, operand: Any, values: dict[str, Any], reference: Tensor) -> Any:
        if isinstance(operand, Value):
            return values[operand.name]
        if isinstance(operand, ParameterValue):
            path, _, key = operand.name.rpartition(".")
            return getattr(self.get_submodule(path), key)
        if isinstance(operand, ConstantValue):
            constant = self._constants[operand.name]
            return constant.to(reference.device, reference.dtype if constant.dtype == torch.float64 else constant.dtype)
        if isinstance(operand, Dtype):
            return reference.dtype if operand.name == "weights" else getattr(torch, operand.name)
        if isinstance(operand, tuple):
            return [self._resolved(item, values, reference) for item in operand]
        return operand


class Layer(nn.Module):
    """A layer of no type of its own: it passes on what its operations put out, so that hooks see it."""

    def forward(self, output: Any) -> Any:
        """Return the output of the layer's last operation."""
        return output


class BatchNorm(_BatchNorm):
    """A batch norm over inputs with any number of dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def torch_layer(operation: Operation, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module | None:
    """Return torch's layer that computes an operation from its first operand, without weights, or None.

    `shapes` has those of all parameters by name.
    """
    count = len(_OWN) if operation.base == "batch_norm" else 2
    own, settings = operation.arguments[1 : 1 + count], operation.arguments[1 + count :]
    for kind, operand in zip(_OWN, own, strict=False):
        if operand is not None and operand != ParameterValue(f"{operation.layer}.{kind}"):
            return None
    if not operation.layer or not any(own):
        return None
    with torch.device("meta"):
        if operation.base != "batch_norm":
            bias = len(own) > 1 and own[1] is not None
            return _built(operation.base, shapes[f"{operation.layer}.weight"], bias, settings) if own[0] else None
        follows, momentum, eps = settings[:3]
        if not own[2] or (own[0] is None) != (own[1] is None) or not follows:
            return None
        size = shapes[f"{operation.layer}.running_mean"][0]
        return BatchNorm(size, eps=eps, momentum=momentum, affine=own[0] is not None)


def _built(base: str, shape: tuple[int, ...], bias: bool, settings: tuple[Any, ...]) -> nn.Module | None:
    if base == "linear":
        return nn.Linear(shape[1], shape[0], bias=bias)
    if base in _CONVOLUTIONS:
        chosen = dict(zip(CONVOLUTION, settings, strict=False))
        return _CONVOLUTIONS[base](shape[1] * chosen.get("groups", 1), shape[0], shape[2:], bias=bias, **chosen)
    if base in _TRANSPOSED:
        chosen = dict(zip(TRANSPOSED, settings, strict=False))
        return _TRANSPOSED[base](shape[0], shape[1] * chosen.get("groups", 1), shape[2:], bias=bias, **chosen)
    return None
