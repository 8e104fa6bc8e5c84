"""What reads files: where files of each kind come from, how they are mutated, and how what is loaded is used."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from checkpoints import LAYOUTS, make_networks
from handwritten import Attention
from mutations import (
    LIMIT,
    Mutation,
    TooLongError,
    mutated,
    of_archive,
    of_bytes,
    of_cells,
    of_graph,
    of_json,
    of_metadata,
    of_zipped,
    unsealed,
    watched,
)
from saved import make_population
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import wsflow
from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, Task, WeightArray, WeightFlow
from wsflow.estimators.checkpoints import DESCRIPTION, FitCheckpoint
from wsflow.exceptions import FewRunsWarning, InvalidInputError, MissingArchitectureWarning, WsflowError
from wsflow.flow.solvers import RungeKutta
from wsflow.models import metanetworks, options
from wsflow.persistence import describe
from wsflow.populations.checkpoints import Checkpoint
from wsflow.populations.datasets import load_task
from wsflow.populations.importers import load_networks
from wsflow.populations.training import train_population
from wsflow.running import forward, unflatten
from wsflow.running.execution import run_module
from wsflow.symmetry.matching import methods

MLP = Architecture.mlp([4, 3, 3])


class Harmful:
    """What runs a command where a pickle is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


@dataclass(frozen=True)
class Reader:
    """What reads a kind of file: files of it to begin with, how they are mutated, and how what is loaded is used."""

    originals: Callable[[Path], list[bytes]]
    name: str
    load: Callable[[Path], Any]
    use: Callable[[Any], None]
    mutations: tuple[Mutation, ...] = (of_bytes,)
    beside: Callable[[Path], None] | None = None  # writes what belongs to a file that is there


def use_architecture(architecture: Architecture) -> None:
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert f"{architecture} {architecture!r} {architecture._repr_html_()}"
    rows = torch.randn(2, architecture.n_weights, generator=torch.Generator().manual_seed(0))
    if architecture.layers:
        first = next(layer for layer in architecture.layers if layer.kind == "linear")
        forward(rows, architecture, torch.ones(2, first.inputs))
    elif architecture.program is not None:
        inputs = tuple(_input(known) for known in architecture.program.inputs)
        run_module(unflatten(rows, architecture), architecture.executable, *inputs)


def _input(known: Any) -> torch.Tensor:
    dtype = torch.float32 if known.dtype == "weights" else getattr(torch, known.dtype)
    return torch.ones(known.shape, dtype=dtype)


def use_population(population: wsflow.Population) -> None:
    assert np.isfinite(population.weights).all() and len(population) == len(population.weights)
    assert f"{population} {population._repr_html_()} {population.hyperparameters}"
    use_architecture(population.architecture)
    if population.task is not None:
        use_task(population.task)


def use_model(model: Any) -> None:
    assert repr(model)
    last = model[-1] if hasattr(model, "steps") else model
    if isinstance(last, WeightFlow):
        last.set_params(solver=RungeKutta("midpoint", 2))
        assert np.isfinite(wsflow.sample(model, 2, random_state=0)).all()
        return
    first = model[0] if hasattr(model, "steps") else model
    architecture = getattr(first, "architecture_", None)
    rows = np.random.default_rng(0).normal(size=(2, first.n_features_in_))
    made = model.transform(rows if architecture is None else WeightArray(rows, architecture))
    assert np.isfinite(made).all()


def use_predictor(model: Any) -> None:
    """Predict with a metanetwork or a variational network, or encode and decode."""
    assert repr(model)
    model = model[-1] if hasattr(model, "steps") else model
    rows = np.random.default_rng(0).normal(size=(2, model.n_features_in_))
    if isinstance(model, wsflow.VariationalNetwork):
        assert len(model.predict(rows.astype(np.float32))) == 2 and np.isfinite(model.sample(2, 0)).all()
        return
    X = rows if model.architecture_ is None else WeightArray(rows, model.architecture_)
    if isinstance(model, wsflow.MetaAutoencoder):
        latents = model.transform(X)
        assert np.isfinite(latents).all() and np.isfinite(model.inverse_transform(latents)).all()
        return
    if isinstance(model, wsflow.MetaRegressor):
        assert np.isfinite(model.predict(X)).all() and not np.isnan(model.predict_interval(X, 0.4)).any()
    else:
        assert np.isfinite(model.predict_proba(X)).all() and len(model.predict(X)) == 2


def use_task(task: Task) -> None:
    assert np.isfinite(task.X).all() and len(task.X) == len(task.y) and task.checksum and repr(task)


@cache
def flows(folder: Path) -> list[bytes]:
    task = Task(np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32), np.arange(8) % 3)
    X = ScaleCanonicalizer().fit_transform(make_population(12).weights)
    small = options.NeuronTransformer(8, 1, 2)
    vectors = np.random.default_rng(2).normal(size=(9, 2))
    keywords = [
        {"velocity": small},
        {"velocity": small, "task": task, "geometry": options.NetworkGeometry("geometric", "polar")},
        {"velocity": options.NeuronTransformer(8, 1, 2, identity=None), "source": options.ExchangeableSource()},
        {"velocity": options.RelationalTransformer(8, 1, 2), "source": options.InitialSource()},
        {"velocity": options.MLP(8, 1), "condition": options.LabelCondition(), "geometry": "euclidean"},
        {"velocity": small, "condition": options.ScalarCondition(), "density": "hutchinson", "solver": "dopri5"},
        {"velocity": small, "task": task, "energy": options.EnergyMatching(1), "training": options.AdamW(4)},
        {"geometry": "euclidean", "velocity": options.MLP(8, 1), "source": options.IsotropicSource("standard")},
    ]
    files = []
    for given in keywords:
        plain = given is keywords[-1]
        y = None if "condition" not in given else np.arange(12) % 2
        flow = WeightFlow(**given, max_iter=1, random_state=0).fit(vectors if plain else X, y)
        files.append(_model_bytes(flow, folder))
    return files


def _model_bytes(model: Any, folder: Path) -> bytes:
    path = folder / "model.st"
    wsflow.save_model(model, path)
    content = path.read_bytes()
    path.unlink()
    return content


@cache
def steps(folder: Path) -> list[bytes]:
    X = make_population(6).weights
    task = Task(np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32), np.arange(8) % 3)
    made = [
        None,
        methods.WeightMatching(2),
        methods.ActivationMatching(),
        methods.SinkhornMatching(steps=1),
        methods.StraightThroughMatching(steps=1),
        methods.ChainMatching(1),
    ]
    aligners = [
        PermutationAligner(task=task if i > 1 else None, random_state=0, **({} if m is None else {"method": m})).fit(X)
        for i, m in enumerate(made)
    ]
    small = options.NeuronTransformer(8, 1, 2)
    pipeline = make_pipeline(
        ScaleCanonicalizer(), PermutationAligner(random_state=0), WeightFlow(velocity=small, max_iter=1, random_state=0)
    ).fit(X)
    plain = make_pipeline(StandardScaler(), PCA(2)).fit(np.asarray(X))
    models = [*aligners, ScaleCanonicalizer().fit(X), ScaleCanonicalizer("unit").fit(X), pipeline, plain]
    return [_model_bytes(model, folder) for model in models]


def metanetwork_files(kind: str) -> Callable[[Path], list[bytes]]:
    """The files of estimators of a kind: of several encoders, losses and kinds of targets."""

    @cache
    def written(folder: Path) -> list[bytes]:
        return [_model_bytes(model, folder) for model in METANETWORKS[kind]()]

    return written


FEW: dict[str, Any] = {"max_iter": 1, "random_state": 0}
SMALL = {"width": 4, "depth": 1}
INPUTS = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float32)
KINDS = np.array(["a", "b", "c"] * 4)


def regressors() -> list[Any]:
    X, y = make_population(12).weights, np.random.default_rng(2).normal(size=12)
    encoders = [
        options.NeuronTransformer(8, 1, 2, identity=None),
        metanetworks.DeepSets(**SMALL),
        metanetworks.Statistics(**SMALL, dropout=0.1),
        metanetworks.ScaleEquivariant(**SMALL),
        metanetworks.Probe(**SMALL, n_probes=3, learned=False, inputs=INPUTS[:3]),
        options.MLP(8, 1),
    ]
    whole = {"training": options.AdamW(4, validation_fraction=0.3), "calibration_fraction": 0.4}
    plain = wsflow.MetaRegressor(options.MLP(8, 1), n_estimators=2, **FEW)
    return [*(wsflow.MetaRegressor(e, **whole, **FEW).fit(X, y) for e in encoders), plain.fit(np.asarray(X), y)]


def classifiers() -> list[Any]:
    X = make_population(12).weights
    return [
        wsflow.MetaClassifier(metanetworks.DeepSets(**SMALL), **FEW).fit(X, KINDS),
        wsflow.MetaClassifier(metanetworks.Probe(**SMALL, n_probes=3), **FEW).fit(X, np.arange(12) % 3),
        wsflow.MetaClassifier(options.MLP(8, 1), canonicalize=None, **FEW).fit(X, np.arange(12) % 2),
    ]


def autoencoders() -> list[Any]:
    X, task = make_population(12).weights, Task(INPUTS, np.arange(12) % 3)
    decoder = {"decoder": options.MLP(8, 1), **FEW}
    sets = wsflow.MetaAutoencoder(2, metanetwork=metanetworks.DeepSets(**SMALL), noise=0.1, **decoder)
    with pytest.warns(MissingArchitectureWarning):
        plain = wsflow.MetaAutoencoder(2, **decoder).fit(np.asarray(X))
    return [wsflow.MetaAutoencoder(2, task=task, **decoder).fit(X), sets.fit(X), plain]


def posteriors() -> list[Any]:
    drawn: dict[str, Any] = {"rank": 2, "hidden": (3,), "n_networks": 2, **FEW}
    return [
        wsflow.VariationalNetwork(**drawn).fit(INPUTS, KINDS),
        wsflow.VariationalNetwork(loss="mse", **drawn).fit(INPUTS, INPUTS[:, 0]),
        wsflow.VariationalNetwork(asymmetry="weights", **drawn).fit(INPUTS, np.arange(12) % 3),
    ]


METANETWORKS = {
    "MetaRegressor": regressors,
    "MetaClassifier": classifiers,
    "MetaAutoencoder": autoencoders,
    "VariationalNetwork": posteriors,
}


@cache
def populations(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(1)
    parts = {
        name: Task(rng.normal(size=(4, 4)).astype(np.float32), ["a", "b", "c", "a"]) for name in ("validation", "test")
    }
    task = Task(
        rng.normal(size=(6, 4)).astype(np.float32),
        [*"abcabc"],
        sample_weight=np.ones(6),
        class_weight={"a": 1.0, "b": 2.0, "c": 1.0},
        **parts,
    )
    numbers = Task(rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(6, 3)), "mse")
    drawn = train_population(load_task("iris"), [2], 2, epochs=1, snapshots=1, learning_rate=(0.01, 0.1))
    read = Architecture.from_module(nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten()), torch.zeros(2, 1, 3, 3))
    weights = WeightArray(rng.normal(size=(2, read.n_weights)).astype(np.float32), read)
    written = Attention.architecture()
    all_ = [
        make_population(),
        make_population(3, task),
        make_population(3, numbers),
        drawn,
        wsflow.Population(weights),
        wsflow.Population(WeightArray(rng.normal(size=(2, written.n_weights)), written)),
    ]
    files = []
    for population in all_:
        wsflow.save_population(population, folder / "zoo.st")
        files.append((folder / "zoo.st").read_bytes())
        (folder / "zoo.st").unlink()
    return files


@cache
def shards(folder: Path, index: bool = True) -> list[bytes]:
    """The index of a population in three shards, which are beside it; or the shards."""
    path = folder / "zoo.index.json"
    wsflow.save_population(make_population(5), path, 2 * MLP.n_weights * 4)
    files = [path] if index else sorted(folder.glob("zoo-*-of-*.safetensors"))
    return [file.read_bytes() for file in files]


def index_of_one(path: Path) -> None:
    """Write an index of a shard as it is, if it can be read at all."""
    content, networks, checksum = path.read_bytes(), 1, "0"
    with contextlib.suppress(Exception):
        tensors, data = unsealed(content)
        networks, checksum = max(len(tensors["0.weight"]), 1), str(data["checksum"])
    rows = [{"file": path.name, "networks": networks, "checksum": checksum}]
    metadata = {"format": 1, "kind": "population", "networks": networks, "runs": 1}
    index = json.dumps({"metadata": metadata, "shards": rows}, ensure_ascii=True)
    path.with_name("shard.index.json").write_text(index, encoding="utf-8")


@cache
def architectures(folder: Path) -> list[bytes]:
    modules = [
        (nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten()), torch.zeros(2, 1, 3, 3)),
        (nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), torch.zeros(2, 3, 4)),
    ]
    made = [Architecture.from_module(module.eval(), example) for module, example in modules]
    made += [
        MLP,
        Architecture.mlp([2, 3, 2], "sigmoid"),
        Architecture.mlp([2, 3, 3, 2], "prelu"),
        Attention.architecture(),
    ]
    return [architecture.to_json().encode() for architecture in made]


@cache
def all_layouts(folder: Path) -> list[Path]:
    """The files of all layouts of checkpoints that are one small file."""
    paths = []
    for i, layout in enumerate(LAYOUTS):
        inside = folder / f"layout-{i}"
        inside.mkdir()
        with contextlib.suppress(ImportError):
            paths.append(layout.write(inside, make_networks(layout.written)))
    return [path for path in paths if isinstance(path, Path) and path.is_file() and path.stat().st_size < 2**16]


def layouts(suffix: str) -> Callable[[Path], list[bytes]]:
    """The files of the layouts of checkpoints that end in a suffix, and one that would run a command."""

    @cache
    def written(folder: Path) -> list[bytes]:
        contents = [path.read_bytes() for path in all_layouts(folder) if path.suffix == suffix]
        if suffix == ".pt":
            torch.save({"weight": torch.ones(2, 2), "further": Harmful()}, folder / "harmful.pt")
            contents.append((folder / "harmful.pt").read_bytes())
        if suffix == ".pkl":
            contents.append(pickle.dumps({"weight": np.ones((2, 2)), "further": Harmful()}))
        return contents

    return written


@cache
def legacy(folder: Path) -> list[bytes]:
    torch.save(make_networks(1)[0].state_dict(), folder / "net.th", _use_new_zipfile_serialization=False)
    torch.save({"x": Harmful()}, folder / "harmful.th", _use_new_zipfile_serialization=False)
    return [(folder / "net.th").read_bytes(), (folder / "harmful.th").read_bytes()]


@cache
def nnet(folder: Path) -> list[bytes]:
    from test_importers import write_nnet

    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(3, 2)), rng.normal(size=3)), (rng.normal(size=(2, 3)), rng.normal(size=2))]
    write_nnet(folder / "net.nnet", layers, np.array([[-1.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3]))
    return [(folder / "net.nnet").read_bytes()]


@cache
def onnx(folder: Path) -> list[bytes]:
    if find_spec("onnx") is None:
        return []
    from test_importers_onnx import GEMM, save

    first, _, second, *_ = make_networks(1)[0]
    tensors = {"w1": first.weight, "b1": first.bias, "w2": second.weight.T.contiguous(), "k": torch.ones(2, 1, 2, 2)}
    dense = [("Gemm", ["x", "w1", "b1"], "a", GEMM), ("Tanh", ["a"], "b", {}), ("MatMul", ["b", "w2"], "y", {})]
    convolution = [
        ("Conv", ["x", "k"], "a", {"strides": [1, 1]}),
        ("LeakyRelu", ["a"], "b", {"alpha": 0.2}),
        ("Flatten", ["b"], "c", {}),
    ]
    paths = [
        save(folder / "dense.onnx", dense, {k: tensors[k] for k in ("w1", "b1", "w2")}, [4]),
        save(folder / "conv.onnx", convolution, {"k": tensors["k"]}, [1, 3, 3]),
    ]
    return [path.read_bytes() for path in paths]


@cache
def index(folder: Path) -> list[bytes]:
    state = make_networks(1)[0].state_dict()
    safetensors.torch.save_file(state, folder / "model.safetensors")
    return [json.dumps({"metadata": {"size": 8}, "weight_map": dict.fromkeys(state, "model.safetensors")}).encode()]


def zoo_file(layout: str, name: str) -> Callable[[Path], list[bytes]]:
    """A file of a zoo of a layout, beside which the others are; that of a second, smaller zoo as well."""

    @cache
    def written(folder: Path) -> list[bytes]:
        from test_importers_zoos import ZOOS

        contents = []
        for inside, n in ((folder / "other", 2), (folder, 4)):
            zoo = inside / zoo_folder(layout, name)
            zoo.mkdir(parents=True)
            contents.append((ZOOS[layout](zoo, n) / name).read_bytes())
        return contents

    return written


def zoo_folder(layout: str, name: str) -> str:
    return f"{layout}-{Path(name).stem}"


def zoo_of(path: Path, levels: int) -> wsflow.Population:
    zoo = path.parents[levels]
    return load_networks(zoo, activation="relu" if zoo.name.startswith("matrix") else "tanh")


def use_zoo(population: wsflow.Population) -> None:
    use_population(population)
    assert all(len(values) == len(population) for values in population.properties.values())


@cache
def tables(folder: Path) -> list[bytes]:
    rows = np.random.default_rng(0).normal(size=(30, 3)).round(3)
    numbers = "\n".join(",".join(map(str, row)) for row in rows)
    labels = "\n".join(f"{a};{b};{'cat' if c > 0 else 'dog'}" for a, b, c in rows)
    return [f"a,b,c\n{numbers}".encode(), f'"x";"y";"kind"\n{labels}\n'.encode()]


@cache
def arrays(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    np.savez(folder / "a.npz", X=rng.normal(size=(30, 3)), y=np.arange(30) % 3)
    np.savez_compressed(folder / "b.npz", X=rng.normal(size=(30, 3)), y=rng.normal(size=(30, 2)))
    return [(folder / "a.npz").read_bytes(), (folder / "b.npz").read_bytes()]


def idx(name: str) -> Callable[[Path], list[bytes]]:
    """An idx file of some images of 2 x 3 pixels, or of their labels, beside the other three; gzipped or not."""

    def written(folder: Path) -> list[bytes]:
        inside = folder / Path(name).parent
        inside.mkdir(exist_ok=True)
        for part in ("train", "t10k"):
            header, lengths = b"\0\0\x08", np.array([12, 2, 3], ">u4").tobytes()
            images = header + b"\3" + lengths + bytes(range(72))
            labels = header + b"\1" + lengths[:4] + bytes([0, 1, 2] * 4)
            for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
                path = inside / f"{part}-{kind}-ubyte{Path(name).suffix}"
                path.write_bytes(gzip.compress(content, 1) if path.suffix else content)
        return [(folder / name).read_bytes()]

    return written


def task_of_images(path: Path) -> Task:
    """The task whose files are in a folder; the test sets WSFLOW_DATA to the folder of it."""
    return load_task({"mnist": "mnist", "fashion": "fashion_mnist"}[path.parent.name])


def networks(path: Path) -> wsflow.Population:
    needed = path.suffix not in (".nnet", ".onnx")
    return load_networks(path, activation="tanh" if needed else None)


TRAINING = {"hidden": [2], "n_runs": 2, "epochs": 1, "snapshots": 1, "chunk_size": 1, "random_state": 0}
TRAINED = Task(np.eye(4, dtype=np.float32), [0, 1, 0, 1])


@cache
def trained(folder: Path) -> dict[str, bytes]:
    train_population(TRAINED, **TRAINING, checkpoint=folder / "training")
    return {path.name: path.read_bytes() for path in sorted((folder / "training").iterdir())}


def training_file(name: str) -> Callable[[Path], list[bytes]]:
    def written(folder: Path) -> list[bytes]:
        files = trained(folder)
        return [content for known, content in files.items() if known.startswith(name)]

    return written


def resumed(path: Path) -> Checkpoint:
    description = json.loads(trained(path.parent.parent)["training.json"])
    return Checkpoint.begin(path.parent, description, resume=True)


def chunk(path: Path) -> np.ndarray | None:
    files = trained(path.parent.parent)
    expected = safetensors.numpy.load(files["chunk-000000.safetensors"])["weights"]
    fingerprint = hashlib.sha256(files["training.json"]).hexdigest()
    loaded = Checkpoint(path.parent, fingerprint).load(0, expected.shape)
    assert loaded is None or loaded.tobytes() == expected.tobytes()
    return loaded


@cache
def fitted(folder: Path) -> dict[str, bytes]:
    """The files of the state of a fit of five steps."""
    rows = np.random.default_rng(0).normal(size=(6, 2))
    given = {"max_iter": 5, "random_state": 0, "checkpoint": folder / "fit"}
    wsflow.WeightFlow("euclidean", velocity=options.MLP(4, 1), **given).fit(rows)
    return {path.name: path.read_bytes() for path in sorted((folder / "fit").iterdir())}


def fit_file(name: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [fitted(folder)[name]]


def described(path: Path) -> dict[str, Any] | None:
    return FitCheckpoint.described(path.parent, DESCRIPTION)


def stage(path: Path) -> dict[str, Any] | None:
    """The state of a fit: whole, or none."""
    files = fitted(path.parent.parent)
    folder = FitCheckpoint(path.parent, hashlib.sha256(files["training.json"]).hexdigest())
    found = folder.unpack(path)
    assert found is None or folder.pack(*found) == files[path.name]
    return found


ARCHIVE = (of_bytes, of_archive, of_archive)
BOTH = (of_bytes, of_metadata, of_metadata, of_metadata)
READERS: dict[str, Reader] = {
    "population": Reader(populations, "zoo.st", wsflow.load_population, use_population, BOTH),
    "mapped population": Reader(
        populations, "zoo.st", partial(wsflow.load_population, mmap=True), use_population, BOTH
    ),
    "index of shards": Reader(
        shards, "zoo.index.json", wsflow.load_population, use_population, (of_bytes, of_json, of_json, of_json)
    ),
    "shard": Reader(
        partial(shards, index=False),
        "zoo.safetensors",
        lambda path: wsflow.load_population(path.with_name("shard.index.json")),
        use_population,
        BOTH,
        index_of_one,
    ),
    "header": Reader(populations, "zoo.st", describe, json.dumps, BOTH),
    "flow": Reader(flows, "model.st", wsflow.load_model, use_model, BOTH),
    "steps": Reader(steps, "model.st", wsflow.load_model, use_model, BOTH),
    **{
        kind: Reader(metanetwork_files(kind), "model.st", wsflow.load_model, use_predictor, BOTH)
        for kind in METANETWORKS
    },
    "header of a model": Reader(steps, "model.st", describe, json.dumps, BOTH),
    "architecture": Reader(
        architectures,
        "architecture.json",
        lambda path: Architecture.from_json(path.read_bytes().decode(errors="replace")),
        use_architecture,
        (of_bytes, of_json, of_json, of_json),
    ),
    **{
        f"{name} of a {layout} zoo": Reader(
            zoo_file(layout, name),
            f"{zoo_folder(layout, name)}/{name}",
            partial(zoo_of, levels=name.count("/")),
            use_zoo,
            mutations,
        )
        for layout, name, mutations in (
            ("matrix", "layout.csv", (of_bytes, of_cells)),
            ("matrix", "metrics.csv", (of_bytes, of_cells)),
            ("matrix", "weights.npy", (of_bytes,)),
            ("runs", "NN_tune_trainable_00000/result.json", (of_bytes,)),
            ("runs", "NN_tune_trainable_00000/params.json", (of_bytes, of_json)),
            ("table", "splits.json", (of_bytes, of_json, of_json)),
            ("table", "metrics.csv", (of_bytes, of_cells)),
        )
    },
    "csv": Reader(tables, "data.csv", load_task, use_task, (of_bytes, of_cells)),
    "npz of a task": Reader(arrays, "data.npz", load_task, use_task, ARCHIVE),
    **{
        name: Reader(idx(name), name, task_of_images, use_task, mutations)
        for name, mutations in (
            ("mnist/train-images-idx3-ubyte", (of_bytes,)),
            ("mnist/t10k-labels-idx1-ubyte", (of_bytes,)),
            ("fashion/train-images-idx3-ubyte.gz", (of_bytes, of_zipped)),
        )
    },
    "training": Reader(training_file("training"), "training/training.json", resumed, repr, (of_bytes, of_json)),
    "fit": Reader(fit_file("training.json"), "fit/training.json", described, repr, (of_bytes, of_json)),
    "stage": Reader(fit_file("stage-matching.safetensors"), "fit/stage-matching.safetensors", stage, repr, BOTH),
    "chunk": Reader(training_file("chunk-000000"), "training/chunk-000000.safetensors", chunk, repr),
    **{
        suffix: Reader(layouts(suffix), f"net{suffix}", networks, use_population, mutations)
        for suffix, mutations in (
            (".pt", ARCHIVE),
            (".npz", ARCHIVE),
            (".keras", ARCHIVE),
            *((suffix, (of_bytes,)) for suffix in (".pkl", ".safetensors", ".h5", ".hdf5", ".msgpack")),
        )
    },
    "legacy": Reader(legacy, "net.th", networks, use_population),
    "nnet": Reader(nnet, "net.nnet", networks, use_population, (of_bytes, of_cells)),
    "onnx": Reader(onnx, "net.onnx", networks, use_population, (of_bytes, of_graph)),
    "index": Reader(index, "model.safetensors.index.json", networks, use_population, (of_bytes, of_json)),
}


REFUSED, USED = "refused", "used"


def attempt(reader: Reader, path: Path) -> tuple[str, str]:
    """Load and use a file; return how that ended, and what is wrong about it, if anything."""
    if reader.beside is not None:
        reader.beside(path)
    try:
        with warnings.catch_warnings(), watched() as events:
            warnings.simplefilter("ignore")
            outcome, problem = _attempt(reader, path)
    except TooLongError:
        return USED, f"it took longer than {LIMIT} s"
    return outcome, problem or (str(events) if events else "")


def _attempt(reader: Reader, path: Path) -> tuple[str, str]:
    try:
        loaded = reader.load(path)
    except InvalidInputError as error:
        return REFUSED, "" if str(error).strip() else f"loading: {error!r}"
    except Exception as error:
        return REFUSED, f"loading: {error!r:.300}"
    try:
        reader.use(loaded)
    except WsflowError as error:
        return USED, "" if str(error).strip() else f"using: {error!r}"
    except Exception as error:
        return USED, "" if type(error) is ValueError else f"using: {error!r:.300}"
    return USED, ""


def prepared(reader: Reader, folder: Path) -> tuple[Path, list[bytes]]:
    """Write and read the files of a reader, so that what it needs is imported; return its path and their contents."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewRunsWarning)
        originals = reader.originals(folder)
    path = folder / reader.name
    path.parent.mkdir(exist_ok=True)
    for content in originals:
        path.write_bytes(content)
        if reader.beside is not None:
            reader.beside(path)
        with warnings.catch_warnings(), contextlib.suppress(WsflowError):  # of the harmful ones
            warnings.simplefilter("ignore")
            reader.use(reader.load(path))
    return path, originals


def attempts(reader: Reader, folder: Path, numbers: Iterable[int]) -> Iterator[tuple[int, str, str]]:
    """Attempt the mutations of some numbers; yield each with its outcome and problem."""
    path, originals = prepared(reader, folder)
    for number in numbers if originals else ():
        path.write_bytes(mutated(originals, reader.mutations, number))
        yield number, *attempt(reader, path)
