"""ONNX graphs become the same functions; what is no sequence is refused by the name of its node."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wsflow.activations import POSITIVE, SIGN
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers import load_networks
from wsflow.running import forward

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Node = tuple[str, Sequence[str], str, dict[str, Any]]


def save(path: Path, nodes: Sequence[Node], tensors: dict[str, Any], shape: Sequence[int]) -> Path:
    """A graph from "x" to what the last node makes."""
    made = [helper.make_node(op, inputs, [output], f"node_{output}", **kw) for op, inputs, output, kw in nodes]
    arrays = {name: value.detach().numpy() if torch.is_tensor(value) else value for name, value in tensors.items()}
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
    y = helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    onnx.save(helper.make_model(helper.make_graph(made, "graph", [x], [y], initializers)), str(path))
    return path


def check_same(path: Path, module: nn.Module, inputs: torch.Tensor) -> Any:
    """Population of the file, whose function is the module's, and whose symmetries are true."""
    population = load_networks(path)
    said = forward(torch.from_numpy(np.array(population.weights)), population.architecture, inputs)
    torch.testing.assert_close(said[0], module.eval()(inputs).detach(), rtol=1e-5, atol=1e-6)
    return population


@pytest.fixture
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


GEMM = {"transB": 1}


def test_a_perceptron_keeps_its_names(tmp_path, seeded, generator):
    module = nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(0.2), nn.Linear(5, 3))
    first, _, second = module
    nodes: list[Node] = [
        ("Gemm", ["x", "fc1.weight", "fc1.bias"], "a", GEMM),
        ("LeakyRelu", ["a"], "b", {"alpha": 0.2}),
        ("MatMul", ["b", "onnx::MatMul_7"], "c", {}),
        ("Add", ["fc2.bias", "c"], "d", {}),
        ("Softmax", ["d"], "e", {}),
    ]
    tensors = {"fc1.weight": first.weight, "fc1.bias": first.bias}
    tensors |= {"onnx::MatMul_7": second.weight.T, "fc2.bias": second.bias}
    x = torch.randn(6, 4, generator=generator)
    population = check_same(save(tmp_path / "a.onnx", nodes, tensors, [4]), module, x)
    assert population.architecture.names == ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    assert population.architecture.layers[1].argument == pytest.approx(0.2) and not population.architecture.module
    notes = population.provenance["notes"]["a.onnx"]
    assert notes["names"] == {"fc2.weight": "onnx::MatMul_7"} and notes["left_out"].startswith("Softmax")


def test_layers_without_names_are_numbered(tmp_path, seeded, generator):
    module = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3))
    tensors = {"W0": module[0].weight.T, "W1": module[2].weight, "b1": module[2].bias}
    nodes: list[Node] = [
        ("MatMul", ["x", "W0"], "a", {}),
        ("Tanh", ["a"], "b", {}),
        ("Gemm", ["b", "W1", "b1"], "c", GEMM),
    ]
    population = check_same(save(tmp_path / "a.onnx", nodes, tensors, [4]), module, torch.ones(2, 4))
    assert population.architecture.names == ("0.weight", "2.weight", "2.bias")
    assert population.architecture.wires[0].scalings == {SIGN}


def convolutional() -> nn.Module:
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )
    for buffer in (module[1].running_mean, module[1].running_var, module[1].weight.data):
        buffer.uniform_(0.5, 2)
    return module


CHAIN: list[Node] = [
    ("Conv", ["x", "0.weight", "0.bias"], "a", {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
    ("BatchNormalization", ["a", "1.weight", "1.bias", "1.running_mean", "1.running_var"], "b", {}),
    ("Relu", ["b"], "c", {}),
    ("MaxPool", ["c"], "d", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Conv", ["d", "4.weight"], "e", {"pads": [1, 1, 1, 1]}),
    ("Relu", ["e"], "f", {}),
    ("AveragePool", ["f"], "g", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("Reshape", ["g", "shape"], "h", {}),
    ("Gemm", ["h", "8.weight", "8.bias"], "i", GEMM),
    ("Relu", ["i"], "j", {}),
    ("Gemm", ["j", "10.weight", "10.bias"], "k", GEMM),
]


def test_a_convolutional_network_runs_and_its_symmetries_are_true(tmp_path, seeded, generator):
    module = convolutional()
    tensors = {name: t for name, t in module.state_dict().items() if "tracked" not in name}
    path = save(tmp_path / "a.onnx", CHAIN, {**tensors, "shape": np.array([0, -1])}, [2, 8, 8])
    x = torch.randn(3, 2, 8, 8, generator=generator)
    architecture = check_same(path, module, x).architecture
    assert [group.size for group in architecture.groups] == [4, 6, 5]
    assert all(wire.scalings == {POSITIVE} for wire in architecture.wires)
    assert architecture.certify(inputs=x) < 1e-12


def changed(place: int, node: Node, shape: Sequence[int] = (2, 8, 8), **tensors: Any) -> tuple[Any, ...]:
    return [*CHAIN[:place], node, *CHAIN[place + 1 :]], tensors, shape


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (changed(2, ("HardSwish", ["b"], "c", {})), "'node_c' is a HardSwish, which is not read: Add, AveragePool"),
        (changed(2, ("Add", ["b", "a"], "c", {})), "'node_c' is a Add, its input 'a' is no constant"),
        (changed(2, ("Add", ["b", "0.bias"], "c", {})), "which is no bias of a matrix product"),
        (changed(4, ("Conv", ["d", "4.weight"], "e", {"group": 2})), "'node_e' is a Conv, with groups"),
        (changed(4, ("Conv", ["d", "4.weight"], "e", {"pads": [0, 0, 1, 1]})), "padding differs"),
        (changed(4, ("Conv", ["d", "0.weight"], "e", {})), "the tensors of '0' are used more than once"),
        (changed(5, ("Relu", ["d"], "f", {})), "does not follow the nodes before it"),
        (changed(7, ("Identity", ["g"], "h", {})), "'node_i' is a Gemm, which is applied to images"),
        (changed(7, ("Flatten", ["g"], "h", {"axis": 2})), "does not flatten all but the first axis"),
        (changed(8, ("Gemm", ["h", "8.weight"], "i", {"alpha": 2.0})), "with transA, alpha or beta"),
        (changed(1, ("Identity", ["0.bias"], "b", {})), "does not follow the nodes before it"),
    ],
)
def test_what_is_no_sequence_is_refused_by_the_name_of_its_node(tmp_path, seeded, nodes, message):
    chain, _, shape = nodes
    tensors = {name: t for name, t in convolutional().state_dict().items() if "tracked" not in name}
    path = save(tmp_path / "a.onnx", chain, {**tensors, "shape": np.array([0, -1])}, shape)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_networks(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_cut_off_or_lead_elsewhere(tmp_path):
    path = save(tmp_path / "a.onnx", [("MatMul", ["x", "w"], "y", {})], {"w": np.ones((2, 2), np.float32)}, [2])
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidInputError, match=r"a.onnx: this is no intact ONNX file"):
            load_networks(path)
    model = onnx.load_from_string(whole)
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidInputError, match="is in another file"):
        load_networks(path)


def test_without_onnx_there_is_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(InvalidInputError, match=r"pip install wsflow\[onnx\]"):
        load_networks(tmp_path)
