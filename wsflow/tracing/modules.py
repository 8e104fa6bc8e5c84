"""Architecture.from_module: from a torch module and an example input to a certified architecture."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from wsflow.architecture import Architecture
from wsflow.architecture.readable import check_readable, unwrapped
from wsflow.architecture.spaces import groups_of
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.progress import Progress, counter
from wsflow.running.outputs import ChosenOutput
from wsflow.tracing.builder import Builder
from wsflow.tracing.certificate import TOLERANCE, Certificate, certify, without
from wsflow.tracing.export import ExportedGraph, exported_graph, kind_of
from wsflow.tracing.interpreter import Interpreter, UnknownLayer
from wsflow.tracing.own_buffers import own_buffers
from wsflow.tracing.recording import with_program
from wsflow.tracing.rules import KNOWN
from wsflow.tracing.solution import Solution, crossing, solve, spread
from wsflow.tracing.working_copy import working_copy

# above this number of weights, the certificate is that of one random network
MANY = 1_000_000
# layers whose freezing is tried before an error advises to freeze them
LAYERS = 8
BY_HAND = "describe the network by hand with Architecture(parameters=..., wires=...)"


def architecture_of_module(
    module: nn.Module,
    example_input: Any,
    frozen: Collection[str] = (),
    output: str | int | None = None,
    progress: Progress | None = None,
) -> Architecture:
    """Find the neuron groups, wires and parameters of a module, and certify them, as `Architecture.from_module` does.

    Raises
    ------
    InvalidInputError
        If the module cannot be exported, or a layer is not understood; the layer is named.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wsflow.tracing import architecture_of_module
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    >>> [(group.name, group.size) for group in architecture_of_module(net, torch.zeros(2, 1, 8, 8)).groups]
    [('0', 4)]
    """
    architecture, working, inputs, chosen = _certified(module, example_input, frozen, output, progress)
    return replace(with_program(architecture, working, inputs, chosen), module=copy.deepcopy(working))


def certified_architecture(module: nn.Module, example_input: Any, frozen: Collection[str] = ()) -> Architecture:
    """Return the architecture of a module, with symmetries that passed the certificate, and without its program."""
    architecture, working, *_ = _certified(module, example_input, frozen, None, None)
    return replace(architecture, module=copy.deepcopy(working))


def _certified(
    module: nn.Module,
    example_input: Any,
    frozen: Collection[str],
    output: str | int | None,
    progress: Progress | None,
) -> tuple[Architecture, nn.Module, tuple[Any, ...], tuple[Any, ...]]:
    """Return an architecture, the copy of the module that was read, its inputs, and those of the certificate.

    The inputs are in the module's precision, and those of the certificate in float64.
    """
    module = unwrapped(module)
    _check_layers(module, frozen)
    report = counter(progress, 4)
    inputs = _as_weights(module, example_input if type(example_input) is tuple else (example_input,))
    working, graph = _exported(module, inputs, output)
    report()
    architecture = _Network(working, graph, frozenset(frozen)).architecture()
    report()
    n_trials = 1 if architecture.n_weights > MANY else 3
    chosen = tree_map(_random, inputs)
    try:
        certificate = certify(architecture, working, chosen, n_trials, report=report)
    except (NumericalError, InvalidInputError):
        # such as a matrix of neighbours, whose entries cannot be any numbers
        chosen = inputs
        certificate = certify(architecture, working, chosen, n_trials)
    if not certificate.deviation <= TOLERANCE:
        architecture = _corrected(architecture, working, chosen, certificate)
    return architecture, working, inputs, chosen


def _as_weights(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return inputs whose reals have the precision of the module's weights; tensors without a number are refused."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    for tensor in tree_leaves(inputs):
        if isinstance(tensor, Tensor) and not tensor.numel():
            raise InvalidInputError(
                f"The 'example_input' of Architecture.from_module has a tensor of shape {tuple(tensor.shape)}, without "
                "a number. Pass more than one example, token and pixel."
            )
    cast: tuple[Any, ...] = tree_map(
        lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, inputs
    )
    return cast


def _random(value: Any) -> Any:
    """Return normal numbers in the place of an example input, which may be zero and hide mistakes."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _exported(module: nn.Module, inputs: tuple[Any, ...], output: str | int | None) -> tuple[nn.Module, ExportedGraph]:
    """Return a working copy of a module that returns what counts of its output, and its graph.

    An output that has weights of its own counts, unless another is chosen.
    """
    working = working_copy(module, ChosenOutput(output))
    graph = exported_graph(working, inputs, KNOWN)
    if output is None and (unused := graph.unused):
        try:
            whole = working_copy(module, ChosenOutput(""))
            every = exported_graph(whole, inputs, KNOWN)
        except InvalidInputError:
            return working, graph
        if every.unused < unused:
            return whole, every
    return working, graph


@dataclass(frozen=True)
class _Network:
    """A module and its graph, from which an architecture is built by abstract interpretation."""

    module: nn.Module
    graph: ExportedGraph
    frozen: frozenset[str]

    def architecture(self) -> Architecture:
        """Return the architecture, or refuse by name a layer that is not understood."""
        try:
            return self._built(self._interpreted())
        except UnknownLayer as error:
            raise InvalidInputError(self._refusal(error)) from error

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors of the state dict, by name."""
        state = self.module.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}

    def _learned(self) -> set[str]:
        return {n for n, x in self.state.items() if isinstance(x, nn.Parameter) and x.is_floating_point()}

    def _interpreted(self, frozen: frozenset[str] = frozenset(), opaque: Collection[Any] = ()) -> Interpreter:
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state.items()}
        leaves = {name for name, child in self.module.named_modules() if name and not list(child.children())}
        weights = self._learned() & set(self.graph.tensors.values())
        moving = {name: buffer.scalings for name, buffer in own_buffers(self.module).items()}
        interpreter = Interpreter(
            self.graph, shapes, weights, self.frozen | frozen, leaves, moving=moving, opaque=opaque
        )
        interpreter.run()
        return interpreter

    def _built(self, interpreter: Interpreter) -> Architecture:
        solution = solve(interpreter.trace)
        if nested := spread(interpreter.trace, solution):
            interpreter, solution = _again(replace(interpreter, nested=nested, returned=[]))
        if separate := crossing(interpreter.trace, solution):
            interpreter, solution = _again(replace(interpreter, separate=separate, returned=[]))
        return self._described(interpreter, solution)

    def _described(self, interpreter: Interpreter, solution: Solution) -> Architecture:
        aliases = {other for others in self.graph.aliases.values() for other in others}
        counters = {name for name in self.state if name.endswith("num_batches_tracked")}
        own = own_buffers(self.module)
        interpreter.trace.statistics |= {name for name, buffer in own.items() if buffer.statistic}
        # parameters that the forward pass does not use are weights as well, which no symmetry moves
        names = (self._learned() | interpreter.norms | set(own) | interpreter.trace.statistics | counters) - aliases
        order = [name for name in self.state if name in names]
        builder = Builder(interpreter.trace, order, interpreter.layer_outputs, solution)
        built = builder.architecture(outputs=interpreter.outputs, aliases=self.graph.aliases)
        fixed = {
            p.name
            for p in built.parameters
            if p.name in own and own[p.name].needs_neurons and not any(groups_of(s) for b in p.blocks for s in b.axes)
        }
        constants = tuple(name for name in self.state if name not in names - fixed | aliases)
        parameters = tuple(p for p in built.parameters if p.name not in fixed)
        if not any(p.role == "weight" for p in parameters):
            raise InvalidInputError(
                f"This {type(self.module).__name__} has no weights of its own that are real numbers."
            )
        if not built.groups and len(interpreter.returned) > 1:
            warnings.warn(
                f"No neurons of this {type(self.module).__name__} can change places. It returns "
                f"{len(interpreter.returned)} tensors, and all of them count as outputs: if only one does, choose it "
                "with output=0, or another position or name.",
                stacklevel=5,
            )
        return replace(built, parameters=parameters, constants=constants)

    def _refusal(self, error: UnknownLayer) -> str:
        kind = kind_of(error.node) or type(self.module).__name__
        where = f"The layer {error.layer!r} ({kind})" if error.layer else f"The module itself ({kind})"
        what = f"{where} uses {error.what}, whose symmetries wsflow does not know."
        layers, found = self._frozen_from(error)
        if not found:
            return (
                f"{what} No neurons are left that could change places if no symmetry acts there, so freezing it is no "
                f"way on: {BY_HAND}, or rewrite that operation."
            )
        remedy = f"Freeze it with frozen={layers!r}" if layers else ""
        remedy = remedy or "Put it into a submodule, and freeze that"
        return f"{what} {remedy}, so that no symmetry acts there; or {BY_HAND}."

    def _frozen_from(self, error: UnknownLayer) -> tuple[tuple[str, ...], int]:
        """Return the layers to be frozen for the module to be read, and the number of neuron groups that remain."""
        layers: list[str] = []
        nodes: list[Any] = []
        for _ in range(LAYERS):
            if error.layer:
                layers.append(error.layer)
            else:
                nodes.append(error.node)
            try:
                interpreter = self._interpreted(frozenset(layers), tuple(nodes))
                return tuple(layers) if not nodes else (), len(self._built(interpreter).groups)
            except UnknownLayer as other:
                error = other
        return (), 0


def _again(interpreter: Interpreter) -> tuple[Interpreter, Solution]:
    interpreter.run()
    return interpreter, solve(interpreter.trace)


def _corrected(
    architecture: Architecture, working: nn.Module, inputs: tuple[Any, ...], certificate: Certificate
) -> Architecture:
    """Return the architecture without the generators that change the function: no wrong symmetry is returned."""
    left_out: list[str] = []
    while certificate.wrong and not certificate.deviation <= TOLERANCE:
        left_out += certificate.wrong
        architecture = without(architecture, certificate.wrong)
        certificate = certify(architecture, working, inputs)
    if not certificate.deviation <= TOLERANCE:
        raise InvalidInputError(
            f"The symmetries that were found in this {type(working).__name__} could not be certified: outputs change "
            f"by {certificate.deviation:.2g} of the largest. Freeze the layers that are unusual with frozen=(...,), or "
            f"{BY_HAND}."
        )
    warnings.warn(
        f"Some symmetries that were found in this {type(working).__name__} could not be certified, and are left out: "
        f"{', '.join(left_out[:5])}{', ...' if len(left_out) > 5 else ''}. A module that caches what it computed from "
        "its weights is one reason.",
        stacklevel=5,
    )
    return architecture


def _check_layers(module: nn.Module, frozen: Collection[str]) -> None:
    if isinstance(module, nn.Module):
        check_readable(module)
    if not isinstance(module, nn.Module) or not any(True for _ in module.parameters()):
        what = "has no parameters" if isinstance(module, nn.Module) else f"is a {type(module).__name__}"
        raise ValueError(f"Architecture.from_module reads a torch module with parameters, and this one {what}.")
    if isinstance(frozen, str):
        raise ValueError(f"The 'frozen' of Architecture.from_module is a tuple of names: pass ({frozen!r},).")
    known = dict(module.named_modules(remove_duplicate=False))
    names = {*known, *(name for name, _ in module.named_parameters(remove_duplicate=False))}
    strange = [name for name in frozen if name not in names]
    if strange:
        raise ValueError(f"There is no layer {strange[0]!r} in this {type(module).__name__} to be frozen.")
