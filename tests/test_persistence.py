"""Files of populations: what is loaded is what was saved, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
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
from wsflow.writing import write_bytes


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
    task = load_task("iris")
    save_population(make_population(task=task), zoo)
    description = describe(zoo)
    assert (description["kind"], description["networks"], description["runs"]) == ("population", 5, 3)
    assert description["architecture"] == "4-3-3 relu (27 weights)"
    own = {"loss": "cross_entropy", "checksum": task.checksum}
    assert description["task"] == {"name": "iris", "seed": 42, **own}
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


# a process that is killed when its file is complete, or when nothing of it is there yet
KILLED_WRITER = """
import os, signal, sys
from wsflow.writing import write_bytes
def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], kill)
write_bytes(sys.argv[1], b"half")
"""


def killed_writer(path: Path, call: str = "replace") -> str:
    """Let a writer be killed in this call of `os`, and return the name of what it leaves."""
    before = set(os.listdir(path.parent))
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path), call], check=False)
    assert done.returncode == -9
    (left,) = set(os.listdir(path.parent)) - before
    return left


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("name", ["zoo.safetensors", "other.st"])
def test_what_killed_writers_left_is_removed_by_the_next(zoo, call, name):
    before = zoo.read_bytes()
    left = killed_writer(zoo.parent / name, call)
    # nobody can guess it, and no other program has such names
    assert re.fullmatch(r"\.wsflow-[0-9a-f]{32}\.tmp", left) and zoo.read_bytes() == before
    write_bytes(zoo, before)
    assert zoo.read_bytes() == before and list(zoo.parent.iterdir()) == [zoo]


def test_what_a_living_writer_writes_is_left_to_it(zoo, monkeypatch):
    """Another writer comes when the file of the first is complete, and has not its name yet."""
    replace = os.replace
    seen = []

    def interrupted(temporary: Path, path: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        write_bytes(zoo.parent / "other", b"other")
        seen.append(temporary)
        assert temporary.exists()
        replace(temporary, path)

    for content in (b"first", b"second"):
        monkeypatch.setattr(os, "replace", interrupted)
        write_bytes(zoo, content)
    assert len(set(seen)) == 2
    assert {path.name: path.read_bytes() for path in zoo.parent.iterdir()} == {zoo.name: b"second", "other": b"other"}


def test_a_file_that_was_taken_for_abandoned_is_written_again(zoo, monkeypatch):
    """As by a machine that does not see the locks of this one."""
    replace, lost = os.replace, []

    def removed(temporary: Path, path: Path) -> None:
        if len(lost) < 2:
            lost.append(temporary)
            temporary.unlink()
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", removed)
    write_bytes(zoo, b"content")
    assert len(set(lost)) == 2 and zoo.read_bytes() == b"content" and list(zoo.parent.iterdir()) == [zoo]


def test_links_and_files_of_others_are_not_touched(tmp_path, monkeypatch):
    names = ["0" * 31, "g" * 32, "0" * 33]
    others = {tmp_path / f".wsflow-{name}.tmp" for name in names} | {tmp_path / "0.tmp", tmp_path / ".wsflow"}
    for path in others:
        path.write_text("precious")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / f".wsflow-{'1' * 32}.tmp").symlink_to(precious)
    os.mkfifo(tmp_path / f".wsflow-{'2' * 32}.tmp")
    (tmp_path / f".wsflow-{'3' * 32}.tmp").mkdir()
    before = set(tmp_path.iterdir())
    write_bytes(tmp_path / "a.st", b"content")
    assert set(tmp_path.iterdir()) == before | {tmp_path / "a.st"}
    assert all(path.read_text() == "precious" for path in (precious, *others))
    # and even if its name were guessed, a link would not be followed
    monkeypatch.setattr(secrets, "token_hex", lambda n: "1" * 32)
    with pytest.raises(OutputError, match="File exists"):
        write_bytes(tmp_path / "a.st", b"changed")
    assert set(tmp_path.iterdir()) == before | {tmp_path / "a.st"}
    assert precious.read_text() == "precious" and (tmp_path / "a.st").read_bytes() == b"content"
