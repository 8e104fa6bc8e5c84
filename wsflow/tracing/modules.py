"""Architecture.from_module: from a torch module and an example input to a certified architecture."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from wsflow.architecture import Architecture
from wsflow.architecture.readable import check_readable, unwrapped
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.progress import Progress, counter
from wsflow.running.outputs import ChosenOutput
from wsflow.tracing.certificate import TOLERANCE, Certificate, certify, without
from wsflow.tracing.export import ExportedGraph, exported_graph
from wsflow.tracing.network import BY_HAND, TracedNetwork, with_scalings
from wsflow.tracing.recording import with_program
from wsflow.tracing.remaining import RemainingSymmetries, remaining_symmetries
from wsflow.tracing.rules import KNOWN
from wsflow.tracing.working_copy import working_copy

# above this number of weights, the certificate is that of one random network
MANY = 1_000_000


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
    inputs = _as_weights(module, example_input)
    working, graph = _exported(module, inputs, output)
    report()
    architecture = with_scalings(TracedNetwork(working, graph, frozenset(frozen)))
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


def _as_weights(module: nn.Module, example_input: Any) -> tuple[Any, ...]:
    """Return inputs whose reals have the precision of the module's weights; tensors without a number are refused."""
    inputs = example_input if type(example_input) is tuple else (example_input,)
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


def remaining_of_module(
    module: nn.Module, example_input: Any, frozen: Collection[str] = (), output: str | int | None = None
) -> tuple[RemainingSymmetries, Architecture] | None:
    """Return which symmetries the constants of a module leave, and its architecture as if these were weights.

    Constants are buffers, and numbers in the code, at axes of neurons; None is returned where there are none.

    Raises
    ------
    InvalidInputError
        If the module cannot be exported.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from wsflow.layers import asymmetrize
    >>> from wsflow.tracing import remaining_of_module
    >>> net, x = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), torch.zeros(2, 8)
    >>> print(remaining_of_module(asymmetrize(net, x), x)[0])
    no symmetries: proven
    """
    module = unwrapped(module)
    inputs = _as_weights(module, example_input)
    working, graph = _exported(module, inputs, output)
    found = TracedNetwork(working, graph, frozenset(frozen)).as_if_weights()
    if found is None:
        return None
    table, constants = found
    return remaining_symmetries(table, constants), table


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
