"""Files that are drawn from nothing but the structure of their kind: hypothesis strategies of bytes."""

from __future__ import annotations

import gzip
import io
import json
import struct
from importlib.util import find_spec
from typing import Any

import hypothesis
import numpy as np
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mutations import CELLS, VALUES, sealed

from wsflow import Architecture

Bytes = st.SearchStrategy[bytes]
NAMES = st.sampled_from(["0.weight", "0.bias", "2.weight", "2.bias", "model", "state_dict", "epoch", "", "a.b", "../x"])
DTYPES = st.sampled_from(["<f4", "<f8", "<f2", "<i8", "u1", "?", ">f4", "<c8", "<U3", "S2"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))
NUMBERS = arrays.arrays(st.sampled_from(["<f4", "<f8", "<i8"]), SHAPES)
LEAVES = st.sampled_from([*VALUES])
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "shape", "role", "blocks", "axes", "kind", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)
MLP = Architecture.mlp([2, 2, 1])
PARTS = list(zip(MLP.slices.items(), MLP.parameters, strict=True))
FLOATS = [torch.float32, torch.float64, torch.bfloat16]
TENSORS = st.dictionaries(NAMES, ARRAYS.filter(lambda a: a.dtype.kind in "fiub" and a.dtype.str[0] != ">"), max_size=3)


@st.composite
def population(draw: Any) -> bytes:
    """A population whose checksum is right, of any numbers and provenance, one of whose parts may be any data."""
    n = draw(st.integers(1, 3))
    numbers = st.floats(-3, 3, width=16) | st.sampled_from([0.0, 6e4, np.nan]) if draw(st.booleans()) else st.just(0.5)
    kind = draw(st.sampled_from(["<f4", "<f8", "<f2"]))
    rows = draw(arrays.arrays(kind, (n, MLP.n_weights), elements=numbers, fill=st.just(0.25)))
    tensors = {name: rows[:, at].reshape(n, *parameter.shape) for (name, at), parameter in PARTS}
    runs, steps = draw(arrays.arrays(np.int64, n, elements=st.integers(0, 1))), np.arange(n)
    tensors |= {"wsflow.run": runs, "wsflow.step": steps}
    data: dict[str, Any] = {"format": 1, "kind": "population", "architecture": json.loads(MLP.to_json()), "task": None}
    data |= {
        "networks": n,
        "runs": len(np.unique(runs)),
        "aligned": draw(st.booleans()),
        "versions": {"wsflow": "0.1.0"},
    }
    data["provenance"] = draw(st.dictionaries(NAMES, JSON, max_size=2))
    if draw(st.booleans()):
        data[draw(st.sampled_from([*data, "further"]))] = draw(JSON)
    if not draw(st.integers(0, 3)):
        tensors[draw(st.sampled_from([*tensors]))] = draw(NUMBERS)
    return _sealed(tensors, data)


@st.composite
def model(draw: Any) -> bytes:
    """A model whose checksum is right, of steps of any class, parameters, data and tensors."""
    tensors = draw(TENSORS)
    kinds = ["ScaleCanonicalizer", "PermutationAligner", "WeightFlow", "StandardScaler", "PCA", "os.system"]
    names = ["form", "bias", "method", "task", "geometry", "velocity", "n_components", "output_norm", "n_features_in"]
    values = JSON | st.sampled_from(["unit", "auto", 2, {"$array": "a.0.weight"}, {"$object": "MLP", "params": {}}])
    step = st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b"]),
            "class": st.sampled_from(kinds),
            "arrays": st.lists(st.sampled_from(["0.weight", "x"]), max_size=1),
            "params": st.dictionaries(st.sampled_from(names), values, max_size=3),
            "data": st.dictionaries(st.sampled_from(names), values, max_size=3),
        }
    )
    data: dict[str, Any] = {"format": 1, "kind": "model", "pipeline": draw(st.booleans())}
    data |= {"steps": draw(st.lists(step, min_size=1, max_size=2)), "versions": {"wsflow": "0.1.0"}}
    if not draw(st.integers(0, 3)):
        data[draw(st.sampled_from([*data]))] = draw(JSON)
    return _sealed({f"a.{name}": array for name, array in tensors.items()}, data)


def _sealed(tensors: dict[str, np.ndarray], data: Any) -> bytes:
    try:
        return sealed({name: np.ascontiguousarray(array) for name, array in tensors.items()}, data)
    except (ValueError, TypeError, OSError):  # not JSON, or not UTF-8
        return b""


@st.composite
def safetensors(draw: Any) -> bytes:
    """A header of any tensors, and a payload that fits or does not."""
    header: dict[str, Any] = {}
    place = 0
    for name, array in draw(st.dictionaries(NAMES, NUMBERS, max_size=4)).items():
        kind = {"<f4": "F32", "<f8": "F64", "<i8": "I64"}[array.dtype.str]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
    if header and draw(st.booleans()):
        header[draw(st.sampled_from([*header]))][draw(st.sampled_from(["dtype", "shape", "data_offsets"]))] = draw(JSON)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(max(place + draw(st.sampled_from([0, 0, 0, -1, 1])), 0))


@st.composite
def index(draw: Any) -> bytes:
    """The index of shards of a population, or something like it."""
    counts = st.sampled_from([1, 2, 0, -1, 2**63, None])
    rows = st.fixed_dictionaries({"file": NAMES, "networks": counts, "checksum": NAMES})
    parts = {"metadata": JSON | st.just({"format": 1, "kind": "population", "networks": 3, "runs": 1})}
    return json.dumps(draw(st.fixed_dictionaries({**parts, "shards": JSON | st.lists(rows, max_size=3)}))).encode()


@st.composite
def npz(draw: Any) -> bytes:
    """Arrays of any dtype and shape, or those of a task or of a layer, one of them at times of another."""
    n, p = draw(st.sampled_from([10, 12])), draw(st.integers(1, 3))
    shapes = draw(st.sampled_from([{"X": (n, p), "y": (n,)}, {"0.weight": (p, 2), "0.bias": (p,), "2.weight": (1, p)}]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    members = {name: rng.integers(-3, 4, shape).astype(draw(DTYPES)) for name, shape in shapes.items()}
    if draw(st.booleans()):
        members[draw(st.sampled_from([*members, "2.bias"]))] = draw(ARRAYS)
    file = io.BytesIO()
    draw(st.sampled_from([np.savez, np.savez_compressed]))(file, **members)
    return file.getvalue()


@st.composite
def pt(draw: Any) -> bytes:
    """What torch.save makes of nested objects, which may be a state dict with others around it and in it."""
    tensors = NUMBERS.map(torch.from_numpy)
    leaves = (
        tensors | tensors | st.sampled_from([None, 3, 0.5, "x", b"y", torch.float32, torch.Size([2]), np.float64(2)])
    )
    trees = st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(NAMES | st.integers(0, 3), inner, max_size=4)
            | st.tuples(inner, inner)
            | inner.map(lambda value: value.mT if torch.is_tensor(value) and value.ndim > 1 else value)
        ),
        max_leaves=8,
    )
    content = draw(trees)
    if draw(st.booleans()):
        state = {p.name: torch.full(p.shape, 0.5, dtype=draw(st.sampled_from(FLOATS))) for p in MLP.parameters}
        state |= draw(st.dictionaries(NAMES, leaves, max_size=1)) if draw(st.booleans()) else {}
        content = draw(
            st.sampled_from([state, {"model": state, "epoch": content}, [state, state], {"a": {"b": state}}])
        )
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=draw(st.booleans()))
    return file.getvalue()


@st.composite
def nnet(draw: Any) -> bytes:
    """A header of counts and widths, and as many numbers as they need, or others."""
    widths = draw(st.lists(st.integers(0, 4), min_size=2, max_size=4))
    counts = [len(widths) - 1, widths[0], widths[-1], max(widths)]
    inputs = widths[0]
    lines = [counts, widths, [0], [0] * inputs, [1] * inputs, [0] * (inputs + 1), [1] * (inputs + 1)]
    lines += [[0.5] * a for a, b in zip(widths, widths[1:], strict=False) for _ in range(b)]
    lines += [[0.5] for b in widths[1:] for _ in range(b)]
    if lines and draw(st.booleans()):
        line = draw(st.sampled_from(lines))
        line.insert(0, draw(st.sampled_from(CELLS)))
    return "".join(",".join(map(str, line)) + ",\n" for line in lines).encode()


@st.composite
def csv(draw: Any) -> bytes:
    """Lines of numbers, some of whose cells are others."""
    odd = st.sampled_from([*CELLS, "cat", "dog"]) | st.floats(width=32).map(str) | st.text(max_size=3)
    width = draw(st.integers(1, 4))
    whole = st.lists(st.integers(-3, 3).map(str), min_size=width, max_size=width)
    lines = draw(st.lists(whole, min_size=8, max_size=14))
    for _ in range(draw(st.integers(0, 2))):
        line = draw(st.sampled_from(lines))
        line[draw(st.integers(0, width - 1))] = draw(odd)
    comma = draw(st.sampled_from(",;\t"))
    return "\n".join(comma.join(line) for line in lines).encode("utf-8", "surrogatepass")


@st.composite
def idx(draw: Any, zipped: bool = False) -> bytes:
    """A header of lengths, and the bytes that it announces, or others."""
    lengths = [12, draw(st.integers(1, 3)), draw(st.integers(1, 3))]
    if draw(st.booleans()):
        lengths = draw(st.lists(st.sampled_from([12, 2, 3, 0, 1, 2**16, 2**32 - 1]), min_size=1, max_size=4))
    size = int(np.prod(lengths, dtype=object))
    payload = bytes(max(min(size, 4096) + draw(st.sampled_from([0, 0, 0, 1, -1])), 0))
    head = bytes([0, 0, draw(st.sampled_from([8, 8, 8, 13])), len(lengths)])
    content = head + np.array(lengths, ">u4").tobytes() + payload
    return gzip.compress(content, 1) if zipped else content


@st.composite
def onnx(draw: Any) -> bytes:
    """A sequence of nodes with attributes and constants of any sizes."""
    from onnx import TensorProto, helper, numpy_helper

    kinds = st.sampled_from(
        ["Gemm", "MatMul", "Add", "Conv", "Relu", "Tanh", "LeakyRelu", "Flatten", "MaxPool", "BatchNormalization"]
        + ["Transpose", "Softmax", "Constant", "Reshape", "GlobalAveragePool", "Nonsense"]
    )
    numbers = st.lists(st.sampled_from([0, 1, 2, 3, -1, 2**31]), min_size=1, max_size=4)
    attributes = st.dictionaries(
        st.sampled_from(["transB", "alpha", "kernel_shape", "strides", "pads", "group", "perm", "axis", "epsilon"]),
        st.sampled_from([0, 1, 2, 0.5, -1.0]) | numbers,
        max_size=3,
    )
    nodes, tensors, before = [], [], "x"
    for i in range(draw(st.integers(0, 3))):
        constants = draw(st.lists(arrays.arrays(np.float32, SHAPES), max_size=4))
        names = [f"{i}.{k}" for k in range(len(constants))]
        tensors += [numpy_helper.from_array(a, n) for n, a in zip(names, constants, strict=True)]
        outputs = draw(st.sampled_from([[f"y{i}"], [f"y{i}"], [f"y{i}"], []]))
        inputs = draw(st.sampled_from([[before, *names], [before, *names], names]))
        nodes.append(helper.make_node(draw(kinds), inputs, outputs, **draw(attributes)))
        before = f"y{i}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info(before, TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "graph", [x], [y], tensors)).SerializeToString()


# by the name of a reader
STRUCTURES: dict[str, Bytes] = {
    "population": population(),
    "flow": model(),
    "index of shards": index(),
    "stage": safetensors(),
    "chunk": safetensors(),
    ".safetensors": safetensors(),
    ".npz": npz(),
    "npz of a task": npz(),
    ".pt": pt(),
    "nnet": nnet(),
    "csv": csv(),
    "mnist/train-images-idx3-ubyte": idx(),
    "fashion/train-images-idx3-ubyte.gz": idx(zipped=True),
    **({"onnx": onnx()} if find_spec("onnx") else {}),
}


def examples(strategy: Bytes, n: int, seed: int) -> list[bytes]:
    """So many files of a structure, those of a seed."""
    drawn: list[bytes] = []

    @hypothesis.seed(seed)
    @settings(max_examples=n, database=None, derandomize=False, deadline=None, phases=[Phase.generate])
    @given(strategy)
    def draw(content: bytes) -> None:
        drawn.append(content)

    draw()
    return drawn
