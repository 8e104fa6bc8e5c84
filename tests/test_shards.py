"""Populations in shards: what is written opens again, bit by bit, mapped or not; every fault names the file."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from saved import ARCHITECTURE, assert_refused, make_population

import wsflow
from wsflow.architecture import Architecture
from wsflow.cli.main import main
from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.mapped import chunks, empty_like, finite_rows, is_mapped, mapped, taken
from wsflow.persistence import describe, load_population, save_population
from wsflow.persistence.format import read_header
from wsflow.populations import Population
from wsflow.task import Task
from wsflow.weights import WeightArray

ONE = ARCHITECTURE.n_weights * 4  # bytes of a network
TASK = Task(np.eye(4), [0, 1, 2, 0])


@pytest.fixture
def index(tmp_path: Path) -> Path:
    save_population(make_population(7, TASK, aligned=True), tmp_path / "zoo.safetensors.index.json", 3 * ONE)
    return tmp_path / "zoo.safetensors.index.json"


def shards_of(index: Path) -> list[Path]:
    return [index.parent / row["file"] for row in json.loads(index.read_text())["shards"]]


def assert_equal(found: Population, expected: Population) -> None:
    a, b = found.weights, expected.weights
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    np.testing.assert_array_equal(a.runs, b.runs)
    np.testing.assert_array_equal(a.steps, b.steps)
    assert (a.dtype, a.aligned, a.architecture) == (b.dtype, b.aligned, b.architecture)
    assert found.provenance == expected.provenance
    assert (found.task is None) == (expected.task is None)


@pytest.mark.parametrize("mmap", [None, True, False])
def test_shards_open_as_what_was_saved(index, mmap):
    found = load_population(index, mmap=mmap)
    assert_equal(found, make_population(7, TASK, aligned=True))
    np.testing.assert_array_equal(found.task.X, TASK.X)
    assert is_mapped(found.weights) == (mmap is not False)
    assert [len(load_population(shard)) for shard in shards_of(index)] == [3, 3, 1]


def test_a_single_file_is_mapped_where_asked(tmp_path):
    save_population(make_population(), tmp_path / "zoo.st")
    assert_equal(load_population(tmp_path / "zoo.st", mmap=True), make_population())
    assert is_mapped(load_population(tmp_path / "zoo.st", mmap=True).weights)
    assert not is_mapped(load_population(tmp_path / "zoo.st").weights)


def test_mapping_leaves_no_file_behind_and_changes_none(index):
    before = {path: path.read_bytes() for path in index.parent.iterdir()}
    weights = load_population(index).weights
    weights[:] = 1
    del weights
    assert {path: path.read_bytes() for path in index.parent.iterdir()} == before


def test_a_folder_that_cannot_be_written_to_is_read(index, monkeypatch):
    where, real = [], __import__("tempfile").TemporaryFile

    def refusing(*arguments, dir, **keywords):
        where.append(Path(dir))
        if Path(dir) == index.parent:
            raise PermissionError(13, "Permission denied")
        return real(*arguments, dir=dir, **keywords)

    monkeypatch.setattr("wsflow.mapped.tempfile.TemporaryFile", refusing)
    assert_equal(load_population(index), make_population(7, TASK, aligned=True))
    assert where[0] == index.parent and where[-1] != index.parent


def test_mapped_networks_are_a_weight_array_like_any_other(index):
    found, known = load_population(index).weights, make_population(7, TASK, aligned=True).weights
    for rows in (slice(1, 4), [0, 2], np.array([-1, 0]), found.runs == 1, np.array([], dtype=int), 3):
        part, expected = found[rows], known[rows]
        np.testing.assert_array_equal(np.asarray(part), np.asarray(expected))
        assert type(part) is type(expected)
        if isinstance(part, WeightArray):
            np.testing.assert_array_equal(part.runs, expected.runs)
            np.testing.assert_array_equal(part.steps, expected.steps)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(np.asarray(again), np.asarray(known))
    with pytest.raises(IndexError):
        found[np.array([True, False])]


def test_many_chosen_rows_of_a_mapped_array_are_mapped(monkeypatch):
    monkeypatch.setattr("wsflow.mapped.CHUNK_NUMBERS", 10)
    rows = mapped((20, 5), "f8")
    rows[:] = np.random.default_rng(0).normal(size=rows.shape)
    mask = np.arange(20) % 3 > 0
    assert is_mapped(taken(rows, mask)) and not is_mapped(taken(rows, np.array([0, 1])))
    np.testing.assert_array_equal(taken(rows, mask), rows[mask])
    assert is_mapped(empty_like(rows)) and not is_mapped(empty_like(np.zeros((20, 5))))
    rows[7, 2] = np.nan
    np.testing.assert_array_equal(finite_rows(rows), np.arange(20) != 7)


def test_chunks_cover_all_rows_once():
    for n, width, numbers in [(0, 3, 6), (7, 3, 6), (7, 100, 6), (6, 3, 6), (5, 0, 2)]:
        parts = list(chunks(n, width, numbers))
        assert [i for part in parts for i in range(n)[part]] == list(range(n))
        assert all(part.stop - part.start <= max(1, numbers // max(width, 1)) for part in parts)


def test_the_same_population_gives_the_same_files(index, tmp_path):
    other = tmp_path / "other" / index.name
    other.parent.mkdir()
    save_population(make_population(7, TASK, aligned=True), other, 3 * ONE)
    assert {p.name: p.read_bytes() for p in shards_of(index)} == {p.name: p.read_bytes() for p in shards_of(other)}
    assert index.read_bytes() == other.read_bytes()


def test_a_new_population_replaces_the_shards_of_the_old_one_and_no_other_file(index):
    (index.parent / "precious.safetensors").write_bytes(b"mine")
    content = json.loads(index.read_text())
    content["shards"].append({"file": "precious.safetensors", "networks": 1, "checksum": "0"})
    content["metadata"]["networks"] += 1
    index.write_text(json.dumps(content))
    save_population(make_population(4), index, 2 * ONE)
    assert_equal(load_population(index), make_population(4))
    assert set(index.parent.iterdir()) == {index, *shards_of(index), index.parent / "precious.safetensors"}


def changed(index: Path, change) -> None:
    content = json.loads(index.read_text())
    change(content)
    index.write_text(json.dumps(content))


INDEX_FAULTS = {
    "not json": (lambda path: path.write_text("{"), "not JSON"),
    "empty": (lambda path: path.write_text(""), "no intact index"),
    "a list": (lambda path: path.write_text("[]"), "no intact index"),
    "not utf-8": (lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8"),
    "deep": (lambda path: path.write_bytes(b"[" * 10**6), "no intact index"),
    "a key twice": (lambda path: path.write_text('{"shards": [], "shards": []}'), "'shards' is there twice"),
    "of a state dict": (lambda path: path.write_text('{"weight_map": {"a": "b"}}'), "load_networks"),
    "a path upwards": (
        lambda path: changed(path, lambda c: c["shards"][1].update(file="../../x")),
        r"names '../../x', and only",
    ),
    "an absolute path": (
        lambda path: changed(path, lambda c: c["shards"][0].update(file="/etc/passwd")),
        "names '/etc",
    ),
    "the folder": (lambda path: changed(path, lambda c: c["shards"][0].update(file="..")), "only different files"),
    "a shard twice": (
        lambda path: changed(path, lambda c: c["shards"][1].update(file=c["shards"][0]["file"])),
        "only different files",
    ),
    "a foreign key": (lambda path: changed(path, lambda c: c.update({"../../x": 1})), "'../../x' is unknown"),
    "no shards": (lambda path: changed(path, lambda c: c.update(shards=[])), "no intact index"),
    "huge": (
        lambda path: changed(path, lambda c: (c["shards"][0].update(networks=2**62), c["metadata"].update(networks=1))),
        "should have 1",
    ),
    "newer": (lambda path: changed(path, lambda c: c["metadata"].update(format=7)), "version 7, and this wsflow reads"),
}


@pytest.mark.parametrize("fault", INDEX_FAULTS)
@pytest.mark.parametrize("load", [load_population, describe])
def test_damaged_indices_are_refused(index, fault, load):
    break_it, message = INDEX_FAULTS[fault]
    break_it(index)
    assert_refused(index, message, load)


def test_a_number_of_networks_that_is_not_there_allocates_nothing(index):
    def lie(content):
        content["shards"][0]["networks"] = content["metadata"]["networks"] = 2**50
        del content["shards"][1:]

    changed(index, lie)
    with pytest.raises(InvalidInputError, match="not the file that the index names: it has 3 networks"):
        load_population(index)


def test_damaged_shards_are_refused(index):
    shard = shards_of(index)[1]
    content = shard.read_bytes()
    faults = {
        "no intact safetensors file": content[:-1],
        "fewer than the 8|a text file": content[:5],
        "no intact": content + b"\0",
        "the file is damaged: its checksum differs": content[:-1] + bytes([content[-1] ^ 1]),
        "not the file that the index names": shards_of(index)[0].read_bytes(),
        "header is said to have": b"\xff" * 7 + b"\x00" + content[8:],
    }
    for message, damaged in faults.items():
        shard.write_bytes(damaged)
        with pytest.raises(InvalidInputError, match=message) as caught:
            load_population(index)
        assert str(caught.value).startswith(str(shard))
    shard.unlink()
    with pytest.raises(InvalidInputError, match="there is no such file"):
        load_population(index)


def test_shards_of_other_networks_are_refused(index, tmp_path):
    odd = make_population(3, aligned=True)
    others = {
        "in float64": Population(odd.weights.astype(np.float64)),
        "not aligned": make_population(3),
        r"4-2-3 relu": Population(WeightArray(np.ones((3, 19), np.float32), Architecture.mlp([4, 2, 3]), aligned=True)),
    }
    for message, other in others.items():
        save_population(other, tmp_path / "other.st")
        checksum = read_header(tmp_path / "other.st").data["checksum"]
        changed(index, lambda c, s=checksum: c["shards"][1].update(file="other.st", checksum=s))
        with pytest.raises(InvalidInputError, match=message):
            load_population(index)


def test_networks_that_are_not_finite_are_named_or_dropped(tmp_path):
    path = tmp_path / "zoo.safetensors.index.json"
    save_population(make_population(6), path, 2 * ONE)
    population = load_population(path)
    population.weights[3, 0] = np.nan
    with pytest.raises(wsflow.exceptions.NumericalError, match=r"network 3 .*'0.weight'"):
        save_population(population, path, 2 * ONE)
    assert_equal(load_population(path), make_population(6))


def test_a_disk_without_room_is_refused(index, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wsflow.mapped.os.posix_fallocate", full)
    with pytest.raises(OutputError, match=r"could not be put there while it is worked on \(No space left"):
        load_population(index)


def test_what_cannot_be_written_leaves_the_old_population_and_no_litter(index, monkeypatch):
    from wsflow.persistence import shards

    before = {path: path.read_bytes() for path in index.parent.iterdir()}
    real, calls = shards.write_bytes, []

    def full(path, content):
        calls.append(path)
        if len(calls) == 3:
            raise OutputError(f"{path}: it could not be written (No space left on device).")
        real(path, content)

    monkeypatch.setattr(shards, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        save_population(make_population(9), index, 2 * ONE)
    assert {path: path.read_bytes() for path in index.parent.iterdir()} == before


def save_slowly(path: Path) -> None:
    from wsflow.persistence import shards

    real = shards.write_bytes

    def slow(target, content):
        real(target, content)
        time.sleep(0.1)

    shards.write_bytes = slow
    save_population(make_population(12), path, ONE)


def test_a_killed_writer_leaves_the_old_population_or_nothing(index, tmp_path):
    fresh = tmp_path / "fresh" / "new.index.json"
    fresh.parent.mkdir()
    for path in (index, fresh):
        writer = multiprocessing.get_context("fork").Process(target=save_slowly, args=(path,))
        writer.start()
        while len(list(path.parent.glob("*-of-00012-*"))) < 3:
            time.sleep(0.01)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert_equal(load_population(index), make_population(7, TASK, aligned=True))
    with pytest.raises(InvalidInputError, match="there is no such file"):
        load_population(fresh)
    save_population(make_population(12), index, ONE)
    assert set(index.parent.glob("*.safetensors")) == set(shards_of(index))


def test_wrong_shard_sizes_are_refused(tmp_path):
    for size in (0, -1):
        with pytest.raises(ValueError, match="'shard_size' of save_population"):
            save_population(make_population(), tmp_path / "zoo.index.json", size)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_line_splits_joins_and_shows(tmp_path):
    zoo, index, back = tmp_path / "zoo.st", tmp_path / "zoo.index.json", tmp_path / "back.st"
    save_population(make_population(), zoo)
    assert "in 1 shard." in run("shard", zoo, "-o", index)
    found = json.loads(run("info", index, "--json"))
    assert (found["networks"], found["shards"], found["tensors"]["0.weight"]) == (5, 1, [5, 3, 4])
    assert "in 1 shard, " in run("info", index)
    assert "in one file" in run("shard", index, "-o", back)
    assert back.read_bytes() == zoo.read_bytes()


def test_commands_read_and_write_shards(index, tmp_path):
    out = tmp_path / "canonical.index.json"
    run("canonicalize", index, "-o", out, "-q")
    expected = wsflow.ScaleCanonicalizer().fit_transform(load_population(index).weights)
    np.testing.assert_array_equal(np.asarray(load_population(out).weights), np.asarray(expected))
    result = CliRunner().invoke(main, ["canonicalize", str(index), "-o", str(shards_of(index)[0]), "--force"])
    assert result.exit_code == 5 and "this file is read, and would be lost" in result.output
    result = CliRunner().invoke(main, ["import", str(index), "-o", str(tmp_path / "new.st")])
    assert result.exit_code == 3 and "population of wsflow in shards" in result.output
