"""What is read of an ONNX graph, and the table of operators, each with a function that appends a module to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from wsflow.activations import activation


@dataclass
class Graph:
    """What has been read of a graph: a sequence of modules, and their tensors under the names of a state dict."""

    constants: dict[str, np.ndarray]  # initialisers, and what is computed from them
    current: str  # the output of the last module
    steps: list[tuple[str, Any]] = field(default_factory=list)
    state: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of tensors that have another name in the file
    notes: dict[str, Any] = field(default_factory=dict)

    def constant(self, node: Any, position: int) -> np.ndarray | None:
        """Return the constant input of a node at a position, or None if there is none."""
        name = node.input[position] if position < len(node.input) else ""
        if name and name not in self.constants:
            raise ValueError(f"its input {name!r} is no constant")
        return self.constants[name] if name else None

    def add(self, name: str, module: Any, **tensors: tuple[str, np.ndarray | None]) -> None:
        """Append a layer; its tensors are given by their names in the file and their arrays (or None)."""
        self.steps.append((name, module))
        for kind, (original, array) in tensors.items():
            if array is not None:
                self.state[f"{name}.{kind}"] = array
                if original != f"{name}.{kind}":
                    self.names[f"{name}.{kind}"] = original

    def fresh(self, *originals: str) -> str:
        """Name the next layer by what precedes ``.weight`` or ``.bias`` in the file, or else by its position."""
        stems = [name.rpartition(".")[0] for name in originals if name.endswith((".weight", ".bias"))]
        name = stems[0] if stems else str(len(self.steps))
        if any(
            name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.") for other, _ in self.steps
        ):
            raise ValueError(f"the tensors of {name!r} are used more than once")
        return name

    @property
    def flattened(self) -> bool:
        """Whether images were flattened to features."""
        return any(type(module).__name__ == "Flatten" for _, module in self.steps)


def _linear(graph: Graph, weight: np.ndarray | None, bias: np.ndarray | None, names: tuple[str, str]) -> None:
    if weight is None or weight.ndim != 2 or (bias is not None and bias.size != len(weight)):
        raise ValueError("whose weight is no matrix, or whose bias is none of its outputs")
    weighted = [module for _, module in graph.steps if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))]
    if weighted and not isinstance(weighted[-1], nn.Linear) and not graph.flattened:
        raise ValueError("which is applied to images that were not flattened")
    module = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    vector = None if bias is None else bias.reshape(-1)
    graph.add(graph.fresh(*names), module, weight=(names[0], weight), bias=(names[1], vector))


def _gemm(graph: Graph, node: Any, values: dict[str, Any]) -> None:
    if values.get("transA", 0) or values.get("alpha", 1.0) != 1 or values.get("beta", 1.0) != 1:
        raise ValueError("with transA, alpha or beta")
    weight, bias = graph.constant(node, 1), graph.constant(node, 2)
    if weight is not None and not values.get("transB", 0):
        weight = weight.T
    _linear(graph, weight, bias, (node.input[1], node.input[2] if len(node.input) > 2 else ""))


def _matmul(graph: Graph, node: Any, values: dict[str, Any]) -> None:
    weight = graph.constant(node, 1)
    _linear(graph, None if weight is None else weight.T, None, (node.input[1], ""))


def _add(graph: Graph, node: Any, values: dict[str, Any]) -> None:
    """Read the bias of the matrix product before it, after which the layer is named if the weight has no such name."""
    position = 1 if node.input[0] == graph.current else 0
    bias = graph.constant(node, position)
    name, module = graph.steps[-1] if graph.steps else ("", nn.Identity())
    if bias is None or not isinstance(module, nn.Linear) or f"{name}.bias" in graph.state:
        raise ValueError("which is no bias of a matrix product")
    graph.steps.pop()
    weight = graph.state.pop(f"{name}.weight")
    original = graph.names.pop(f"{name}.weight", f"{name}.weight")
    _linear(graph, weight, bias, (original, node.input[position]))


def _conv(graph: Graph, node: Any, values: dict[str, Any]) -> None:
    weight, bias = graph.constant(node, 1), graph.constant(node, 2)
    if weight is None or values.get("group", 1) != 1 or not 3 <= weight.ndim <= 5:
        raise ValueError("with groups, or without a kernel")
    size = weight.ndim - 2
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[size - 1]
    module: Any = nn.utils.skip_init(
        kind,
        weight.shape[1],
        weight.shape[0],
        weight.shape[2:],
        stride=tuple(values.get("strides", [1] * size)),
        padding=_padding(values, size),
        dilation=tuple(values.get("dilations", [1] * size)),
        bias=bias is not None,
    )
    names = (node.input[1], node.input[2] if len(node.input) > 2 else "")
    graph.add(graph.fresh(*names), module, weight=(names[0], weight), bias=(names[1], bias))


def _padding(values: dict[str, Any], size: int) -> Any:
    pads = list(values.get("pads", [0] * (2 * size)))
    if values.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or pads[:size] != pads[size:]:
        raise ValueError("whose padding differs between its sides")
    return tuple(pads[:size])


def _norm(graph: Graph, node: Any, values: dict[str, Any]) -> None:
    kinds = ("weight", "bias", "running_mean", "running_var")
    tensors = {kind: (node.input[i], graph.constant(node, i)) for i, kind in enumerate(kinds, start=1)}
    if len(node.output) > 1 or values.get("training_mode", 0):
        raise ValueError("in training mode")
    images = any(isinstance(module, nn.Conv2d) for _, module in graph.steps) and not graph.flattened
    kind = nn.BatchNorm2d if images else nn.BatchNorm1d
    module = kind(len(tensors["weight"][1]), eps=values.get("epsilon", 1e-5))  # type: ignore[arg-type]
    graph.add(graph.fresh(node.input[1]), module, **tensors)


def _pool(kind: str) -> Callable[[Graph, Any, dict[str, Any]], None]:
    def read(graph: Graph, node: Any, values: dict[str, Any]) -> None:
        if kind == "AdaptiveAvgPool":
            graph.add(f"step{len(graph.steps)}", nn.AdaptiveAvgPool2d(1))
            return
        size = len(values["kernel_shape"])
        if size != 2 or any(d != 1 for d in values.get("dilations", [])) or len(node.output) > 1:
            raise ValueError("with dilations or indices, or not of images")
        module = nn.MaxPool2d if kind == "MaxPool" else nn.AvgPool2d
        others: dict[str, Any] = (
            {} if kind == "MaxPool" else {"count_include_pad": bool(values.get("count_include_pad"))}
        )
        stride = tuple(values.get("strides", [1] * size))
        ceil = bool(values.get("ceil_mode", 0))
        pool = module(tuple(values["kernel_shape"]), stride, _padding(values, size), ceil_mode=ceil, **others)
        graph.add(f"step{len(graph.steps)}", pool)

    return read


def _flatten(graph: Graph, node: Any, values: dict[str, Any]) -> None:
    if node.op_type == "Flatten" and values.get("axis", 1) != 1:
        raise ValueError("which does not flatten all but the first axis")
    if node.op_type == "Reshape":
        shape = graph.constant(node, 1)
        if shape is None or shape.size != 2 or shape[0] not in (-1, 0, 1):
            raise ValueError("which does not flatten all but the first axis")
    graph.add(f"step{len(graph.steps)}", nn.Flatten())


def _activation(kind: str) -> Callable[[Graph, Any, dict[str, Any]], None]:
    row = activation(kind)

    def read(graph: Graph, node: Any, values: dict[str, Any]) -> None:
        if values.get("approximate", b"none") != b"none":
            raise ValueError("with an approximation")
        # onnx keeps 32 bits of the number
        keywords = {row.argument: float(f"{values['alpha']:.7g}")} if row.argument and "alpha" in values else {}
        graph.add(f"step{len(graph.steps)}", getattr(nn, row.module)(**keywords))

    return read


def _nothing(graph: Graph, node: Any, values: dict[str, Any]) -> None:
    """Skip dropout and identities."""


def _left_out(graph: Graph, node: Any, values: dict[str, Any]) -> None:
    graph.notes["left_out"] = f"{node.op_type} of the outputs, which are logits here"


OPERATORS: dict[str, Callable[[Graph, Any, dict[str, Any]], None]] = {
    "Add": _add,
    "AveragePool": _pool("AvgPool"),
    "BatchNormalization": _norm,
    "Conv": _conv,
    "Dropout": _nothing,
    "Elu": _activation("elu"),
    "Flatten": _flatten,
    "Gelu": _activation("gelu"),
    "Gemm": _gemm,
    "GlobalAveragePool": _pool("AdaptiveAvgPool"),
    "Identity": _nothing,
    "LeakyRelu": _activation("leaky_relu"),
    "LogSoftmax": _left_out,
    "MatMul": _matmul,
    "MaxPool": _pool("MaxPool"),
    "Relu": _activation("relu"),
    "Reshape": _flatten,
    "Sigmoid": _activation("sigmoid"),
    "Softmax": _left_out,
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Tanh": _activation("tanh"),
}
