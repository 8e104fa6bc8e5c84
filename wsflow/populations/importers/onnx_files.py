"""Networks in ONNX files: sequences of linear layers, convolutions, norms, activations and pooling.

A graph is read node by node into a sequence of torch modules, and an error names the first node that does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from wsflow.activations import ACTIVATIONS, activation
from wsflow.architecture import Architecture, Layer
from wsflow.architecture.state_dicts import WeightLayer, fields_of_cnn, fields_of_mlp, plain_scalings
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.leaves import Checkpoint
from wsflow.populations.importers.onnx_operators import OPERATORS, Graph
from wsflow.populations.readers import check_file

ACTIVATION_KINDS = {row.module: kind for kind, row in ACTIVATIONS.items() if row.module}


def read_onnx(path: Path) -> Checkpoint:
    """Read a sequence of layers, which keeps the names of initialisers that end in ``.weight`` or ``.bias``."""
    check_file(path)
    onnx, model, constants = _loaded(path)
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise InvalidInputError(
            f"{path}: the graph has {len(inputs)} inputs and {len(model.graph.output)} outputs, and sequences with one "
            "of each are read. Build the module in torch and load its state_dict."
        )
    graph = Graph(constants, inputs[0])
    for node in model.graph.node:
        _read_node(onnx, graph, node, path)
    if graph.current != model.graph.output[0].name:
        raise InvalidInputError(
            f"{path}: the sequence of layers does not end at the output {model.graph.output[0].name!r}."
        )
    try:
        architecture = _architecture(graph)
    except ValueError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    notes = {**graph.notes, **({"names": graph.names} if graph.names else {})}
    return Checkpoint(graph.state, "ONNX file", architecture=architecture, notes=notes)


def _loaded(path: Path) -> tuple[Any, Any, dict[str, np.ndarray]]:
    try:
        import onnx
    except ImportError as error:
        raise InvalidInputError(f"{path}: ONNX files need the onnx package: pip install wsflow[onnx].") from error
    try:
        # weights in further files are not followed: their paths may lead anywhere
        model = onnx.load(str(path), load_external_data=False)
        constants = {tensor.name: _array(onnx, tensor) for tensor in model.graph.initializer}
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidInputError(f"{path}: this is no intact ONNX file: {reason}. Export it again.") from error
    if not model.graph.node:
        raise InvalidInputError(f"{path}: this is no intact ONNX file: its graph has no nodes. Export it again.")
    return onnx, model, constants


def _array(onnx: Any, tensor: Any) -> np.ndarray:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(f"the tensor {tensor.name!r} is in another file, save the model as one file")
    array = np.array(onnx.numpy_helper.to_array(tensor))
    # what numpy has no precision for, such as bfloat16
    return array if array.dtype.kind in "fiubSU" else array.astype(np.float32)


def _read_node(onnx: Any, graph: Graph, node: Any, path: Path) -> None:
    called = f"{path}: the node {node.name or node.output[0]!r} is a {node.op_type}"
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    try:
        if node.op_type == "Constant":
            graph.constants[node.output[0]] = _array(onnx, values["value"])
            return
        if node.op_type == "Transpose" and node.input[0] in graph.constants:
            graph.constants[node.output[0]] = graph.constants[node.input[0]].transpose(values.get("perm"))
            return
        if node.op_type not in OPERATORS:
            raise ValueError(f"which is not read: {', '.join(sorted(OPERATORS))} are")
        operands = node.input[:2] if node.op_type == "Add" else node.input[:1]
        if graph.current not in operands or graph.notes.get("left_out"):
            raise ValueError("which does not follow the nodes before it in a sequence")
        OPERATORS[node.op_type](graph, node, values)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InvalidInputError(f"{called}, {error}. Build the module in torch and load its state_dict.") from error
    graph.current = node.output[0]


def _architecture(graph: Graph) -> Architecture:
    """Return the architecture of a sequence: layers that run for a plain perceptron, else layers and the module."""
    layers: list[WeightLayer] = []
    between: list[list[Layer]] = []
    for name, module in graph.steps:
        kind = type(module).__name__
        if kind in ACTIVATION_KINDS and between:
            between[-1].append(_layer(ACTIVATION_KINDS[kind], module))
        elif kind in ACTIVATION_KINDS:
            raise ValueError(f"its first layer is an activation ({kind}), which is not read")
        elif f"{name}.running_mean" in graph.state:
            layers[-1:] = [_normed(layers, name, graph.state)]
        elif f"{name}.weight" in graph.state:
            layers.append(WeightLayer(name, graph.state[f"{name}.weight"].shape, f"{name}.bias" in graph.state))
            between.append([])
    if not layers:
        raise ValueError("it has no layers with weights")
    return _table(graph, layers, between)


def _normed(layers: list[WeightLayer], name: str, state: dict[str, np.ndarray]) -> WeightLayer:
    if not layers or layers[-1].norm is not None or layers[-1].shape[:1] != state[f"{name}.weight"].shape:
        raise ValueError(f"the norm {name!r} is not behind a layer of as many outputs, alone")
    return replace(layers[-1], norm=name)


def _layer(kind: str, module: Any) -> Layer:
    row = activation(kind)
    value = getattr(module, row.argument) if row.argument else row.default
    return Layer(kind, "", argument=None if value == row.default else float(value))


def _table(graph: Graph, layers: list[WeightLayer], between: list[list[Layer]]) -> Architecture:
    if all(len(layer.shape) == 2 and layer.norm is None for layer in layers):
        parts = fields_of_mlp(layers, between[:-1])
        steps = (*parts["layers"], *between[-1])
        if graph.flattened:
            graph.notes["inputs"] = "flattened before the first layer"
        return Architecture(**{**parts, "layers": steps})
    layers = [
        replace(layer, scalings=plain_scalings([step.kind for step in after]))
        for layer, after in zip(layers, between, strict=True)
    ]
    return Architecture(**fields_of_cnn(layers), module=NamedSequential(graph.steps).eval())


class NamedSequential(nn.Module):
    """Layers in the order of the forward pass; unlike in an ``nn.Sequential`` their names may have dots."""

    def __init__(self, steps: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self._order = [name for name, _ in steps]
        for name, layer in steps:
            parent: nn.Module = self
            *path, leaf = name.split(".")
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(leaf, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last layer."""
        for name in self._order:
            x = self.get_submodule(name)(x)
        return x
