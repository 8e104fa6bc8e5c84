"""Files of populations: what is loaded is what was saved, whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from saved import make_population

from wsflow.exceptions import OutputError
from wsflow.persistence import check_target, describe, load_population, save_population
from wsflow.populations import Population, load_task
from wsflow.task import Task


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    save_population(make_population(), tmp_path / "zoo.safetensors")
    return tmp_path / "zoo.safetensors"


def assert_equal(a: Population, b: Population) -> None:
    assert np.asarray(a.weights).tobytes() == np.asarray(b.weights).tobytes()
    assert a.weights.dtype == b.weights.dtype
    assert (a.weights.runs.tolist(), a.weights.steps.tolist()) == (b.weights.runs.tolist(), b.weights.steps.tolist())
    assert (a.architecture, a.weights.aligned, a.provenance) == (b.architecture, b.weights.aligned, b.provenance)
    assert (a.task is None) == (b.task is None)
    if a.task is not None:
        assert (a.task.checksum, a.task.source) == (b.task.checksum, b.task.source)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("n", [1, 5])
def test_a_population_comes_back_bit_by_bit(tmp_path, dtype, aligned, n):
    population = make_population(n, load_task("iris"), aligned=aligned)
    population = Population(population.weights.astype(dtype), population.task, population.provenance)
    save_population(population, tmp_path / "a.safetensors")
    assert_equal(load_population(tmp_path / "a.safetensors"), population)


def test_the_same_population_gives_the_same_bytes(tmp_path, zoo):
    reordered = make_population()
    object.__setattr__(reordered, "provenance", dict(reversed(reordered.provenance.items())))
    save_population(reordered, tmp_path / "b.safetensors")
    save_population(load_population(zoo), tmp_path / "c.safetensors")
    assert zoo.read_bytes() == (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def test_safetensors_own_reader_finds_state_dicts_stacked_over_networks(zoo):
    tensors = load_file(zoo)
    assert {name: tensors[name].shape for name in tensors} == {
        "0.weight": (5, 3, 4), "0.bias": (5, 3), "2.weight": (5, 3, 3), "2.bias": (5, 3),
        "wsflow.run": (5,), "wsflow.step": (5,),
    }  # fmt: skip
    assert tensors["wsflow.run"].dtype == tensors["wsflow.step"].dtype == np.int64
    for i, state in enumerate(make_population().weights.state_dicts()):
        for name, tensor in state.items():
            np.testing.assert_array_equal(tensors[name][i], tensor.numpy())


def test_a_task_without_source_is_saved_with_its_data(tmp_path):
    rng = np.random.default_rng(1)
    held_out = Task(rng.normal(size=(3, 4)), [0, 1, 2])
    task = Task(rng.normal(size=(6, 4)), [0, 1, 2, 0, 1, 2], test=held_out)
    population = make_population(task=task)
    save_population(population, tmp_path / "a.safetensors")
    loaded = load_population(tmp_path / "a.safetensors")
    assert_equal(loaded, population)
    assert loaded.task.validation is None
    np.testing.assert_array_equal(loaded.task.test.X, held_out.X)


def test_a_task_whose_data_moved_or_changed_is_a_warning(tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("\n".join(f"{i},{i % 5},{i % 2},{i % 7},{i % 3}" for i in range(30)))
    save_population(make_population(task=load_task(data)), tmp_path / "a.safetensors")
    assert load_population(tmp_path / "a.safetensors").task.source["path"] == str(data)
    data.write_text(data.read_text().replace("29,", "30,"))
    with pytest.warns(UserWarning, match="checksum differs"):
        assert load_population(tmp_path / "a.safetensors").task is None
    data.unlink()
    with pytest.warns(UserWarning, match="no such file"):
        loaded = load_population(tmp_path / "a.safetensors")
    assert loaded.task is None and len(loaded) == 5


def test_describe_reads_the_header_only(tmp_path, zoo):
    save_population(make_population(task=load_task("iris")), zoo)
    description = describe(zoo)
    assert (description["kind"], description["networks"], description["runs"]) == ("population", 5, 3)
    assert description["architecture"] == "4-3-3 relu (27 weights)"
    assert description["task"] == {"name": "iris", "seed": 42, "loss": "cross_entropy"}
    assert description["tensors"]["0.weight"] == [5, 3, 4]
    json.dumps(description, allow_nan=False)
    damaged = bytearray(zoo.read_bytes())
    damaged[-1] ^= 1
    zoo.write_bytes(damaged)
    assert describe(zoo) == description


def test_places_that_are_no_files_are_refused_and_left_alone(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "readonly").write_bytes(b"precious")
    (tmp_path / "readonly").chmod(0o444)
    before = sorted(path.name for path in tmp_path.iterdir())
    messages = {
        "folder": "directory", "link": "symbolic link", "dangling": "symbolic link", "pipe": "device or a pipe",
        "readonly": "read-only", "gone/file": "no folder", "target/file": "Not a directory",
    }  # fmt: skip
    for name, message in messages.items():
        with pytest.raises(OutputError, match=message) as caught:
            save_population(make_population(), tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        with pytest.raises(OutputError):
            check_target(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "target").read_bytes() == (tmp_path / "readonly").read_bytes() == b"precious"
    assert (tmp_path / "link").is_symlink() and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_files_have_ordinary_permissions_and_keep_theirs(zoo):
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(zoo.stat().st_mode) == 0o666 & ~mask
    zoo.chmod(0o640)
    save_population(make_population(), zoo)
    assert stat.S_IMODE(zoo.stat().st_mode) == 0o640


def test_a_full_disk_leaves_the_old_file_and_no_litter(zoo):
    before = zoo.read_bytes()
    program = """
import resource, sys
import numpy as np
from wsflow.exceptions import OutputError
from wsflow.persistence import load_population, save_population
from wsflow.populations import Population
population = load_population(sys.argv[1])
more = Population(type(population.weights).concatenate([population.weights] * 2000))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    save_population(more, sys.argv[1])
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(zoo)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{zoo}: it could not be written (File too large)")
    assert zoo.read_bytes() == before
    assert list(zoo.parent.iterdir()) == [zoo]


def test_two_writers_leave_one_complete_winner(zoo):
    candidates = [make_population(n) for n in (200, 300)]
    threads = [threading.Thread(target=save_population, args=(p, zoo)) for p in candidates * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_population(zoo)) in (200, 300)
    assert list(zoo.parent.iterdir()) == [zoo]
