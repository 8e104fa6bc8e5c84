"""Architecture.from_module: from a torch module and an example input to a certified architecture."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from wsflow.architecture import Architecture
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.tracing.builder import Builder
from wsflow.tracing.certificate import TOLERANCE, Certificate, certify, without
from wsflow.tracing.export import ExportedGraph, evaluation_copy, exported_graph
from wsflow.tracing.interpreter import Interpreter
from wsflow.tracing.recording import with_program
from wsflow.tracing.rules import RULES
from wsflow.tracing.solution import crossing, solve

# above this number of weights, the certificate is that of one random network
MANY = 1_000_000


def architecture_of_module(module: nn.Module, example_input: Any, frozen: Collection[str] = ()) -> Architecture:
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
    architecture = certified_architecture(module, example_input, frozen)
    return with_program(architecture, evaluation_copy(module), _double(example_input))


def certified_architecture(module: nn.Module, example_input: Any, frozen: Collection[str] = ()) -> Architecture:
    """Return the architecture of a module, with symmetries that passed the certificate, and without its program."""
    _check_layers(module, frozen)
    inputs, working = _double(example_input), evaluation_copy(module)
    graph = exported_graph(working, inputs, RULES)
    architecture = _built(module, graph, working.state_dict(keep_vars=True), frozenset(frozen))
    n_trials = 1 if architecture.n_weights > MANY else 3
    try:
        random = tree_map(_random, inputs)
        certificate = certify(architecture, working, random, n_trials)
        inputs = random
    except NumericalError:
        # such as a matrix of neighbours, whose entries cannot be any numbers
        certificate = certify(architecture, working, inputs, n_trials)
    if certificate.deviation <= TOLERANCE:
        return architecture
    return _corrected(architecture, working, inputs, certificate)


def _double(example_input: Any) -> tuple[Any, ...]:
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    doubled: tuple[Any, ...] = tree_map(
        lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, inputs
    )
    return doubled


def _random(value: Any) -> Any:
    """Return normal numbers in the place of an example input, which may be zero and hide mistakes."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=value.dtype)


def _built(module: nn.Module, graph: ExportedGraph, state: dict[str, Any], frozen: frozenset[str]) -> Architecture:
    """Return the architecture of a module with this state dict, by abstract interpretation of its graph."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)}
    learned = {name for name, x in state.items() if isinstance(x, nn.Parameter) and x.is_floating_point()}
    leaves = {name for name, child in module.named_modules() if name and not list(child.children())}
    weights = learned & set(graph.tensors.values())
    interpreter = Interpreter(graph, shapes, weights, frozen, type(module).__name__, leaves)
    interpreter.run()
    solution = solve(interpreter.trace)
    if separate := crossing(interpreter.trace, solution):
        interpreter = replace(interpreter, separate=separate)
        interpreter.run()
        solution = solve(interpreter.trace)
    aliases = {other for others in graph.aliases.values() for other in others}
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    # parameters that the forward pass does not use are weights as well, which no symmetry moves
    names = (learned | interpreter.trace.statistics | counters) - aliases
    order = [name for name in state if name in names]
    builder = Builder(interpreter.trace, order, interpreter.layer_outputs, solution)
    return builder.architecture(
        outputs=interpreter.outputs,
        constants=tuple(name for name in state if name not in names | aliases),
        module=copy.deepcopy(module).eval(),
        aliases=graph.aliases,
    )


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
            "describe the network by hand with Architecture(parameters=..., wires=...)."
        )
    warnings.warn(
        f"Some symmetries that were found in this {type(working).__name__} could not be certified, and are left out: "
        f"{', '.join(left_out[:5])}{', ...' if len(left_out) > 5 else ''}. A module that caches what it computed from "
        "its weights is one reason.",
        stacklevel=5,
    )
    return architecture


def _check_layers(module: nn.Module, frozen: Collection[str]) -> None:
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
