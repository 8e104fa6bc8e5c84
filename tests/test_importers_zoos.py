"""Zoos in the layouts in which they are published: the same functions, and what is known of each network beside it."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import os
import shutil
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutations import mutated, of_bytes
from test_importers import outputs
from torch import nn

import wsflow
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers import load_networks
from wsflow.populations.importers.zoos import archives
from wsflow.populations.importers.zoos.layouts import ZOO_LAYOUTS

CHANNELS = 3


def make_cnn() -> nn.Sequential:
    convolutions = [nn.Conv2d(1, CHANNELS, 3, 2), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, 2), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 2))


def make_cnns(n: int) -> list[nn.Sequential]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [make_cnn() for _ in range(n)]


def make_mlps(n: int) -> list[nn.Sequential]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)) for _ in range(n)]


def write_csv(path: Path, rows: list[dict[str, Any]], packed: bool = False) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if packed else content)


def write_matrix(folder: Path, networks: list[nn.Sequential], packed: bool = True) -> Path:
    """The layout of Unterthiner et al.: kernels are those of Keras, and the bias of a layer is before its kernel."""
    folder.mkdir(exist_ok=True)
    rows, layout = [], []
    for network in networks:
        parts: list[np.ndarray] = []
        layout = []
        for number, layer in enumerate(m for m in network if isinstance(m, (nn.Conv2d, nn.Linear))):
            weight = layer.weight.detach().numpy()
            kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
            for kind, array in (("bias:0", layer.bias.detach().numpy()), ("kernel:0", kernel)):
                start = sum(part.size for part in parts)
                parts.append(array.ravel())
                layout.append(
                    {
                        "varname": f"sequential/layer_{number}/{kind}",
                        "start_idx": start,
                        "end_idx": start + array.size,
                        "size": array.size,
                        "shape": str(tuple(array.shape)),
                    }
                )
        rows.append(np.concatenate(parts))
    np.save(folder / "weights.npy", np.stack(rows))
    write_csv(folder / "layout.csv", layout)
    metrics = [
        {
            "config.activation": "relu" if i < 4 else "tanh",
            "config.learning_rate": 0.1 * (i // 2 + 1),
            "config.w_init": "he" if i % 4 < 2 else "glorot",
            "config.epochs": 86,
            "modeldir": f"/runs/{i // 2}/permanent",
            "step": 20 * (i % 2),
            "test_accuracy": i / 10,
        }
        for i in range(len(networks))
    ]
    write_csv(folder / f"metrics.csv{'.gz' if packed else ''}", metrics, packed)
    return folder


def write_runs(folder: Path, networks: list[nn.Sequential]) -> Path:
    """The layout of Schürholt et al.: ray tune's folder of each run, with two checkpoints each."""
    for run in range(len(networks) // 2):
        inside = folder / f"NN_tune_trainable_{run:05d}"
        for step in (0, 25):
            (inside / f"checkpoint_{step:06d}").mkdir(parents=True)
            torch.save(networks[2 * run + (step > 0)].state_dict(), inside / f"checkpoint_{step:06d}" / "checkpoints")
            torch.save({"state": {}, "param_groups": []}, inside / f"checkpoint_{step:06d}" / "optimizer")
        settings = {"model::nlin": "tanh", "optim::lr": 0.01 * (run + 1), "seed": run, "nested": {"x": 1}}
        (inside / "params.json").write_text(json.dumps(settings))
        lines = [
            {"training_iteration": i, "test_acc": run + i / 100, "pid": 3, "config": settings, "time_total_s": 1.0}
            for i in range(26)
        ]
        (inside / "result.json").write_text("\n".join(map(json.dumps, lines)))
    (folder / "config.json").write_text("{}")
    return folder


def write_table(folder: Path, networks: list[nn.Sequential]) -> Path:
    """State dicts in folders, a JSON document of splits with other people's paths, and a CSV table."""
    names = [f"set_{i % 2}/net_{i}/model_final.pth" for i in range(len(networks))]
    for name, network in zip(names, networks, strict=True):
        (folder / name).parent.mkdir(parents=True)
        torch.save(network.state_dict(), folder / name)
    splits = {
        "train": {"path": [f"/home/somebody/data/{name}" for name in names[:3]], "label": [7, 1, 2]},
        "test": {"path": [f"/home/somebody/data/{name}" for name in names[3:]], "label": [5] * len(names[3:])},
    }
    (folder / "splits.json").write_text(json.dumps(splits))
    write_csv(folder / "metrics.csv", [{"network": f"net_{i}", "accuracy": i / 10} for i in (1, 0, 2, 9)])
    return folder


ZOOS: dict[str, Callable[[Path, int], Path]] = {
    "matrix": lambda folder, n: write_matrix(folder, make_cnns(n), packed=False),
    "runs": lambda folder, n: write_runs(folder, make_mlps(n)),
    "table": lambda folder, n: write_table(folder, make_mlps(n)),
}


def test_a_matrix_becomes_the_same_functions_with_what_is_known_of_them(tmp_path):
    networks = make_cnns(6)
    example = torch.randn(4, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    zoo = write_matrix(tmp_path / "zoo", networks)
    population = load_networks(zoo, module=make_cnn(), example_input=example, activation="relu")
    assert population.weights.runs.tolist() == [0, 0, 1, 1] and population.weights.steps.tolist() == [0, 20, 0, 20]
    expected = wsflow.WeightArray.from_modules(networks[:4], population.architecture)
    assert np.array_equal(population.weights, expected)
    assert population.properties.keys() == {"test_accuracy"}
    assert population.properties["test_accuracy"].tolist() == [0.0, 0.1, 0.2, 0.3]
    assert population.hyperparameters["learning_rate"].tolist() == [0.1, 0.1, 0.2, 0.2]
    assert population.hyperparameters["w_init"].tolist() == ["he", "he", "glorot", "glorot"]
    assert population.provenance["settings"] == {"activation": "relu", "epochs": 86}
    assert population.provenance["zoo"] == {"of_other_activations": 2}


def test_a_matrix_of_several_activations_asks_which(tmp_path):
    zoo = write_matrix(tmp_path / "zoo", make_cnns(6), packed=False)
    with pytest.raises(InvalidInputError, match=r"activations 'relu', 'tanh'. Pass activation="):
        load_networks(zoo, module=make_cnn(), example_input=torch.randn(4, 1, 9, 9))
    with pytest.raises(InvalidInputError, match="has the activation 'sigmoid'"):
        load_networks(zoo, activation="sigmoid")
    assert len(load_networks(zoo, activation="tanh")) == 2


def test_folders_of_runs_have_their_checkpoints_results_and_settings(tmp_path, inputs):
    networks = make_mlps(6)
    population = load_networks(write_runs(tmp_path, networks), activation="tanh")
    expected = torch.stack([network(inputs) for network in networks]).detach()
    torch.testing.assert_close(outputs(population, inputs), expected)
    assert population.weights.runs.tolist() == [0, 0, 1, 1, 2, 2]
    assert population.weights.steps.tolist() == [0, 25] * 3
    assert population.properties == {"test_acc": pytest.approx([0, 0.25, 1, 1.25, 2, 2.25])}
    assert population.hyperparameters.keys() == {"optim::lr", "seed"}
    assert population.provenance["settings"] == {"model::nlin": "tanh", "nested.x": 1}
    assert population[2:4].properties["test_acc"].tolist() == [1.0, 1.25]


def test_tables_name_networks_by_the_ends_of_their_paths(tmp_path, inputs):
    networks = make_mlps(5)
    population = load_networks(write_table(tmp_path, networks), activation="tanh")
    order = [0, 2, 4, 1, 3]  # of the folders
    expected = torch.stack([networks[i](inputs) for i in order]).detach()
    torch.testing.assert_close(outputs(population, inputs), expected)
    assert population.labels.tolist() == [[7, 1, 2, 5, 5][i] for i in order]
    assert population.properties["split"].tolist() == [("train" if i < 3 else "test") for i in order]
    accuracy = population.properties["accuracy"].tolist()
    assert accuracy[:2] == [0.0, 0.2] and accuracy[3] == 0.1 and math.isnan(accuracy[2]) and math.isnan(accuracy[4])
    assert population.provenance["zoo"] == {"rows_without_a_network": 1}


def test_runs_and_steps_of_tables(tmp_path):
    for i, network in enumerate(make_mlps(4)):
        torch.save(network.state_dict(), tmp_path / f"net_{i}.pt")
    rows = [{"file": f"net_{i}.pt", "run": "ab"[i % 2], "step": i, "loss": "" if i else 0.5} for i in range(4)]
    write_csv(tmp_path / "table.csv", rows)
    population = load_networks(tmp_path, activation="tanh")
    assert population.weights.runs.tolist() == [0, 1, 0, 1] and population.weights.steps.tolist() == [0, 1, 2, 3]
    assert population.properties["loss"][0] == 0.5 and np.isnan(population.properties["loss"][1:]).all()
    again = load_networks(tmp_path, activation="tanh", runs=[3, 3, 3, 4])
    assert again.weights.runs.tolist() == [3, 3, 3, 4] and again.properties["loss"][0] == 0.5
    with pytest.raises(InvalidInputError, match="Two networks of run 3 have the step 1"):
        load_networks(tmp_path, activation="tanh", runs=[3] * 4, steps=[0, 1, 1, 2])


def test_tables_of_something_else_change_nothing(tmp_path):
    for i, network in enumerate(make_mlps(2)):
        torch.save(network.state_dict(), tmp_path / f"net_{i}.pt")
    (tmp_path / "old").mkdir()
    torch.save(make_mlps(1)[0].state_dict(), tmp_path / "old" / "net_7.pt")
    (tmp_path / "log.csv").write_text("step,loss\n0,1.0\n1,0.5\n")
    (tmp_path / "config.json").write_text('{"hidden": [5], "name": "net", "data": {"path": "/data"}}')
    plain = load_networks(tmp_path, activation="tanh")
    assert len(plain) == 2 and not plain.properties and "zoo" not in plain.provenance
    (tmp_path / "log.csv").write_text("step,loss\n0,1.0\n1\n")
    with pytest.warns(UserWarning, match=r"log\.csv: a row has fewer values.*It is left out"):
        assert len(load_networks(tmp_path, activation="tanh")) == 2


def test_networks_of_further_folders_are_those_that_tables_name(tmp_path):
    networks = make_mlps(4)
    for i, name in enumerate(("net_0.pt", "net_1.pt", "more/net_2.pt", "more/net_3.pt")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save(networks[i].state_dict(), tmp_path / name)
    write_csv(tmp_path / "table.csv", [{"net": "net_1", "loss": 0.5}, {"net": "more/net_3", "loss": 0.25}])
    population = load_networks(tmp_path, activation="tanh")
    loss = dict(zip(population.provenance["networks"], population.properties["loss"], strict=True))
    assert loss == {"more/net_3.pt": 0.25, "net_0.pt": pytest.approx(math.nan, nan_ok=True), "net_1.pt": 0.5}


def test_what_is_known_is_saved_joined_and_predicted(tmp_path):
    first = load_networks(write_runs(tmp_path / "a", make_mlps(6)), activation="tanh")
    wsflow.save_population(first, tmp_path / "zoo.st")
    loaded = wsflow.load_population(tmp_path / "zoo.st")
    assert loaded.properties["test_acc"].tolist() == first.properties["test_acc"].tolist()
    second = load_networks(write_runs(tmp_path / "b", make_mlps(8)[6:]), activation="tanh")
    joined = wsflow.concatenate([loaded, second])
    assert joined.weights.runs.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert joined.properties["test_acc"].tolist() == [*first.properties["test_acc"], 0.0, 0.25]


def pack(folder: Path, path: Path) -> Path:
    kinds = {".zip": "zip", ".tar": "tar", ".gz": "gztar", ".xz": "xztar"}
    made = shutil.make_archive(str(path.parent / "made"), kinds[path.suffix], folder.parent, folder.name)
    os.replace(made, path)
    return path


@pytest.mark.parametrize("name", ["zoo.zip", "zoo.tar", "zoo.tar.gz", "zoo.tar.xz"])
@pytest.mark.parametrize("write", [write_runs, write_table, write_matrix])
def test_archives_are_read_as_their_folders(tmp_path, name, write: Callable[[Path, Any], Path]):
    activation = "relu" if write is write_matrix else "tanh"
    (tmp_path / "zoo").mkdir()
    folder = write(tmp_path / "zoo", make_cnns(4) if write is write_matrix else make_mlps(4))
    expected = load_networks(folder, activation=activation)
    population = load_networks(pack(folder, tmp_path / name), activation=activation)
    assert np.array_equal(population.weights, expected.weights)
    assert population.weights.runs.tolist() == expected.weights.runs.tolist()
    assert {k: v.tolist() for k, v in population.hyperparameters.items()} == {
        k: v.tolist() for k, v in expected.hyperparameters.items()
    }
    for key, values in expected.properties.items():
        assert np.array_equal(values, population.properties[key], equal_nan=values.dtype.kind == "f")


def test_an_archive_of_networks_without_tables_is_a_folder_of_them(tmp_path):
    (tmp_path / "zoo").mkdir()
    for i, network in enumerate(make_mlps(3)):
        torch.save(network.state_dict(), tmp_path / "zoo" / f"net_{i}.pt")
    population = load_networks(pack(tmp_path / "zoo", tmp_path / "zoo.zip"), activation="tanh")
    assert population.provenance["networks"] == [f"net_{i}.pt" for i in range(3)] and not population.properties


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, f"w:{'gz' if path.name.endswith('gz') else ''}") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("name", ["../../outside.pt", "/outside.pt", "a/../../outside.pt", "..\\outside.pt"])
@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_nothing_is_written_outside(tmp_path, name, suffix):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = inside / f"zoo{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
    else:
        tar_of(path, (member(name), b"x"))
    with pytest.raises(InvalidInputError, match="would lie outside") as caught:
        load_networks(path, activation="tanh")
    assert str(caught.value).startswith(str(path))
    assert not list(tmp_path.rglob("outside*")) and not Path("/outside.pt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = tar_of(tmp_path / "zoo.tar.gz", (member("net.pt", kind, "/etc/hostname"), b""))
    with pytest.raises(InvalidInputError, match="is no file but a link or a device"):
        load_networks(path, activation="tanh")


def test_a_symbolic_link_in_a_zip_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w") as archive:
        info = zipfile.ZipInfo("net.pt")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(InvalidInputError, match="is no file but a link"):
        load_networks(tmp_path / "zoo.zip", activation="tanh")


def test_bombs_are_refused_before_they_are_written(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("net.pt", bytes(2**24))
    tar_of(tmp_path / "zoo.tar.gz", (member("net.pt"), bytes(2**24)))
    written: list[Any] = []
    monkeypatch.setattr(archives, "_write", lambda *arguments: written.append(arguments))
    for name in ("zoo.zip", "zoo.tar.gz"):
        with pytest.raises(InvalidInputError, match="would unpack to more than"):
            load_networks(tmp_path / name, activation="tanh")
    assert not written


def test_a_header_without_end_is_not_read(tmp_path):
    info = member("net.pt")
    info.pax_headers = {"comment": "x" * 2**22}
    path = tmp_path / "zoo.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b""))
    with pytest.raises(InvalidInputError, match="a header is larger than headers are"):
        load_networks(path, activation="tanh")


def test_archives_that_are_something_else_are_refused(tmp_path):
    for name, content in (("a.zip", b"no archive at all"), ("b.tar.gz", gzip.compress(b"x" * 3000)), ("c.tgz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInputError) as caught:
            load_networks(tmp_path / name, activation="tanh")
        assert str(caught.value).startswith(str(tmp_path / name))
    whole = pack(write_runs(tmp_path / "zoo", make_mlps(2)), tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match=r"cut\.tar\.gz"):
        load_networks(tmp_path / "cut.tar.gz", activation="tanh")


def test_errors_in_an_archive_name_it(tmp_path):
    folder = write_runs(tmp_path / "zoo", make_mlps(2))
    (folder / "NN_tune_trainable_00000" / "result.json").write_text("{")
    with pytest.raises(InvalidInputError) as caught:
        load_networks(pack(folder, tmp_path / "zoo.zip"), activation="tanh")
    assert str(caught.value).startswith(str(tmp_path / "zoo.zip")) and "result.json" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: np.save(folder / "weights.npy", np.ones((4, 3, 2))), "expected a matrix of real numbers"),
        (lambda folder: np.save(folder / "weights.npy", np.array([["a"]] * 4, dtype=object)), "Python objects"),
        (lambda folder: (folder / "weights.npy").write_bytes(b"x"), "no intact array of NumPy"),
        (lambda folder: np.save(folder / "weights.npy", np.ones((4, 7))), "does not go with the columns"),
        (lambda folder: (folder / "layout.csv").write_text("a,b\n1,2\n"), "expected the columns varname"),
        (lambda folder: (folder / "metrics.csv.gz").unlink(), ""),
        (lambda folder: (folder / "metrics.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n")), "there are 1 rows"),
        (lambda folder: (folder / "metrics.csv.gz").write_bytes(b"x"), "csv file"),
        (lambda folder: np.save(folder / "other_weights.npy", np.ones((4, 3))), "Leave one of them"),
    ],
)
def test_damaged_matrices_are_refused(tmp_path, change, message):
    folder = write_matrix(tmp_path / "zoo", make_cnns(4))
    change(folder)
    if not message:
        population = load_networks(folder, activation="relu")
        assert population.n_runs == 4 and not population.properties
        return
    with pytest.raises(InvalidInputError, match=message):
        load_networks(folder, activation="relu")


def test_a_layout_whose_columns_overlap_is_refused(tmp_path):
    folder = write_matrix(tmp_path / "zoo", make_cnns(4))
    rows = list(csv.DictReader((folder / "layout.csv").read_text().splitlines()))
    rows[0] |= {"start_idx": rows[2]["start_idx"], "end_idx": rows[2]["end_idx"]}
    write_csv(folder / "layout.csv", rows)
    with pytest.raises(InvalidInputError, match="its parameters have"):
        load_networks(folder, activation="relu")


def test_every_layout_is_tested_and_has_a_description():
    assert ZOOS.keys() == ZOO_LAYOUTS.keys() and all(layout.description for layout in ZOO_LAYOUTS.values())


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_mutated_archives_are_refused_or_read_and_leave_nothing(tmp_path, monkeypatch, suffix):
    originals = []
    for n in (2, 4):
        (tmp_path / f"zoo_{n}").mkdir()
        originals.append(pack(write_runs(tmp_path / f"zoo_{n}", make_mlps(n)), tmp_path / f"zoo{suffix}").read_bytes())
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked"))
    before = sorted(tmp_path.rglob("*"))
    read = 0
    for i in range(200):
        (tmp_path / f"zoo{suffix}").write_bytes(mutated(originals, (of_bytes,), i))
        with contextlib.suppress(InvalidInputError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read += len(load_networks(tmp_path / f"zoo{suffix}", activation="tanh")) > 0
    assert sorted(tmp_path.rglob("*")) == before
    assert 0 < read < 200


@pytest.fixture
def inputs(generator) -> torch.Tensor:
    return torch.randn(6, 4, generator=generator)
