"""A module and its graph: its architecture by abstract interpretation, and what its constants leave of symmetries."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn

from wsflow.activations import FLIP, POSITIVE, SIGN
from wsflow.architecture import Architecture, Wire
from wsflow.architecture.restriction import in_order
from wsflow.architecture.spaces import groups_of
from wsflow.exceptions import InvalidInputError
from wsflow.tracing.builder import Builder
from wsflow.tracing.export import ExportedGraph, kind_of
from wsflow.tracing.interpreter import Interpreter, UnknownLayer
from wsflow.tracing.own_buffers import own_buffers
from wsflow.tracing.remaining import RemainingSymmetries, remaining_symmetries
from wsflow.tracing.solution import Solution, crossing, solve, spread

# layers whose freezing is tried before an error advises to freeze them
LAYERS = 8
BY_HAND = "describe the network by hand with Architecture(parameters=..., wires=...)"


@dataclass(frozen=True)
class TracedNetwork:
    """A module and its graph, from which an architecture is built by abstract interpretation."""

    module: nn.Module
    graph: ExportedGraph
    frozen: frozenset[str]

    def architecture(self) -> Architecture:
        """Return the architecture, or refuse by name a layer that is not understood."""
        try:
            return self._described(*self._solved(self._interpreted()))
        except UnknownLayer as error:
            raise InvalidInputError(self._refusal(error)) from error

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors of the state dict, by name."""
        state = self.module.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}

    def _learned(self) -> set[str]:
        return {n for n, x in self.state.items() if isinstance(x, nn.Parameter) and x.is_floating_point()}

    def as_if_weights(self) -> tuple[Architecture, dict[str, np.ndarray]] | None:
        """Return the architecture as if constants at axes of neurons were weights, and these constants by name.

        None where there are none, or it is not known what their symmetries would be.
        """
        graph, constants = self.graph.with_named_constants(own_buffers(self.module))
        if not constants:
            return None
        network = replace(self, graph=graph)
        try:
            interpreter, solution = network._solved(network._interpreted(constants=constants))
        except UnknownLayer:
            return None
        order = [*(name for name in self.state if name in self._learned() | interpreter.norms), *constants]
        builder = Builder(interpreter.trace, order, {}, solution)
        built = builder.architecture(outputs=interpreter.outputs, aliases=self.graph.aliases)
        moving = {p.name for p in built.parameters if any(groups_of(s) for b in p.blocks for s in b.axes)}
        if not moving & constants.keys():
            return None
        # NumPy has no bfloat16
        reals = {name: x.double() if x.is_floating_point() else x for name, x in constants.items()}
        return built, {name: x.detach().cpu().numpy() for name, x in reals.items()}

    def _interpreted(
        self,
        frozen: frozenset[str] = frozenset(),
        opaque: Collection[Any] = (),
        constants: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Interpreter:
        shapes = {name: tuple(tensor.shape) for name, tensor in {**self.state, **constants}.items()}
        leaves = {name for name, child in self.module.named_modules() if name and not list(child.children())}
        weights = self._learned() & set(self.graph.tensors.values())
        moving = {name: buffer.scalings for name, buffer in own_buffers(self.module).items()}
        moving |= {name: _scalings_of(constant) for name, constant in constants.items()}
        interpreter = Interpreter(
            self.graph, shapes, weights, self.frozen | frozen, leaves, moving=moving, opaque=opaque
        )
        interpreter.run()
        return interpreter

    def _solved(self, interpreter: Interpreter) -> tuple[Interpreter, Solution]:
        solution = solve(interpreter.trace)
        if nested := spread(interpreter.trace, solution):
            interpreter, solution = _again(replace(interpreter, nested=nested, returned=[]))
        if separate := crossing(interpreter.trace, solution):
            interpreter, solution = _again(replace(interpreter, separate=separate, returned=[]))
        return interpreter, solution

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
                groups = self._described(*self._solved(interpreter)).groups
                return tuple(layers) if not nodes else (), len(groups)
            except UnknownLayer as other:
                error = other
        return (), 0


def _again(interpreter: Interpreter) -> tuple[Interpreter, Solution]:
    interpreter.run()
    return interpreter, solve(interpreter.trace)


def with_scalings(network: TracedNetwork) -> Architecture:
    """Return the architecture of a module; where constants keep all neurons in order, with the scalings these leave."""
    architecture = network.architecture()
    found = network.as_if_weights()
    if found is None:
        return architecture
    table, constants = found
    left = remaining_symmetries(table, constants)
    if left.permutation != {} or not (left.scalings or left.signs):
        return architecture
    scalings = {wire.name: _all_free(wire, left) for wire in table.wires}
    scaled = in_order(table, {name: kinds for name, kinds in scalings.items() if kinds})
    blocks = {parameter.name: parameter.blocks for parameter in scaled.parameters}
    parameters = tuple(replace(p, blocks=blocks.get(p.name, p.blocks)) for p in architecture.parameters)
    return replace(architecture, parameters=parameters, wires=scaled.wires, activation_sites=())


def _all_free(wire: Wire, left: RemainingSymmetries) -> frozenset[str]:
    """Return the kinds of scalings that constants leave to all neurons of a wire."""
    every = range(wire.space.total)
    kinds = {POSITIVE} if left.scalings.get(wire.name, ()) == tuple(every) else set()
    if left.signs.get(wire.name, ()) == tuple(every):
        kinds |= {SIGN, FLIP}
    return frozenset(kinds & wire.scalings)


def _scalings_of(constant: Tensor) -> frozenset[str]:
    """Return how a constant could be scaled, if it were a weight: masks cannot."""
    is_mask = not constant.is_floating_point() or bool(((constant == 0) | (constant == 1)).all())
    return frozenset() if is_mask else frozenset({POSITIVE, SIGN})
