"""Files that are damaged or something else: every fault is a sentence that names the file."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from saved import ARCHITECTURE, assert_refused, make_population

from wsflow.architecture import Architecture
from wsflow.architecture.parameters import fixed_parameter
from wsflow.exceptions import InvalidInputError, NumericalError
from wsflow.persistence import describe, load_model, load_population, save_population
from wsflow.persistence.format import read, write
from wsflow.populations import Population
from wsflow.weights import WeightArray


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    save_population(make_population(), tmp_path / "zoo.safetensors")
    return tmp_path / "zoo.safetensors"


def packed(header: object, payload: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload


def one(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}}


FAULTS = {
    "empty": (b"", "an empty file"),
    "five bytes": (b"12345", "a text file"),
    "huge header": (packed({}, length=2**60), str(2**60)),
    "more than the format allows": (packed({}, length=2**64 - 1), "more than the file"),
    "not utf-8": (packed(b'{"\xff": 1}'), "not UTF-8"),
    "not json": (packed(b"{nonsense"), "not JSON"),
    "nan in json": (packed(b'{"a": NaN}'), "NaN"),
    "deep json": (packed(b"[" * 10**6), "no intact"),
    "a list": (packed([1]), "not a JSON object"),
    "duplicate keys": (packed(b'{"a": 1, "a": 2}'), "'a' is there twice"),
    "unknown dtype": (packed(one(dtype="F4_E2M1"), bytes(4)), "'F4_E2M1', expected one of F64"),
    "dtype no string": (packed(one(dtype=[1]), bytes(4)), "expected one of"),
    "trailing bytes": (packed(one(), bytes(5)), "4 bytes, but 5 follow"),
    "truncated": (packed(one(), bytes(3)), "4 bytes, but 3 follow"),
    "a hole": (packed(one(data_offsets=[4, 8]), bytes(8)), "begins at byte 4"),
    "an overlap": (packed({**one(), "b": one()["a"]}, bytes(4)), "begins at byte 0"),
    "negative shape": (packed(one(shape=[-1]), bytes(4)), "natural numbers"),
    "true shape": (packed(one(shape=[True]), bytes(4)), "natural numbers"),
    "backward offsets": (packed(one(data_offsets=[4, 0]), bytes(4)), "number of bytes"),
    "overflowing shape": (packed(one(shape=[2**62, 8]), bytes(4)), "number of bytes"),
    "missing offsets": (packed({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "data_offsets"),
    "entry no dict": (packed({"a": 3}), "data_offsets"),
    "metadata no strings": (packed({"__metadata__": {"wsflow": 1}}), "not strings"),
    "metadata no dict": (packed({"__metadata__": 3}), "not strings"),
    "foreign": (packed({**one(), "__metadata__": {"format": "pt"}}, bytes(4)), "not written by wsflow.*load_networks"),
    "damaged metadata": (packed({"__metadata__": {"wsflow": "{"}}), "metadata are damaged"),
    "no kind": (packed({"__metadata__": {"wsflow": '{"format": 1}'}}), "lack the format or the kind"),
    "infinite number": (packed({"__metadata__": {"wsflow": '{"format": 1e999}'}}), "metadata are damaged"),
    "another spelling": (packed({"__metadata__": {"wsflow": '{"kind": "model","format":1}'}}), "metadata are damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("load", [load_population, load_model, describe])
def test_damaged_headers_are_refused(tmp_path, fault, load):
    content, message = FAULTS[fault]
    (tmp_path / "bad.st").write_bytes(content)
    assert_refused(tmp_path / "bad.st", message, load)


def test_every_truncation_and_every_trailing_byte_is_refused(zoo):
    content = zoo.read_bytes()
    for length in [*range(0, 20), len(content) // 2, len(content) - 1]:
        zoo.write_bytes(content[:length])
        # a few bytes may be anything
        few = "an empty file|a text file|" if length < 9 else ""
        assert_refused(zoo, f"{few}no intact safetensors file")
    zoo.write_bytes(content + b"\0")
    assert_refused(zoo, "no intact safetensors file")


@given(st.data())
def test_every_bit_flip_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "a.st"
    save_population(make_population(2), path)
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"a\.st"):
        load_population(path)


def rewrite(path: Path, tensors=lambda t: t, data=lambda d: d) -> None:
    """The same file with other content and a valid checksum."""
    old_tensors, old_data = read(path, "population")
    write(path, "population", tensors(old_tensors), data(old_data))


def with_weights(tensors: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    slices = ARCHITECTURE.slices
    return tensors | {name: rows[:, slices[name]].reshape(tensors[name].shape) for name in slices}


def test_tensors_that_are_not_the_architectures_are_listed(zoo):
    original = zoo.read_bytes()
    changes = {
        "there is no tensor '0.bias'": lambda t: {k: v for k, v in t.items() if k != "0.bias"},
        "a further tensor '../../etc/x'": lambda t: {**t, "../../etc/x": np.zeros(1)},
        r"'0.bias' has shape \(5, 9\), expected \(5, 3\)": lambda t: {**t, "0.bias": np.zeros((5, 9), np.float32)},
        r"'wsflow.step' has shape \(1,\)": lambda t: {**t, "wsflow.step": np.zeros(1, np.int64)},
        "dtypes float32, float64": lambda t: {**t, "0.bias": t["0.bias"].astype(np.float64)},
        "has no networks: at least one": lambda t: {k: v[:0] for k, v in t.items()},
    }
    for message, change in changes.items():
        rewrite(zoo, tensors=change)
        assert_refused(zoo, message)
        zoo.write_bytes(original)


def test_metadata_that_make_no_population_are_refused(zoo):
    original = zoo.read_bytes()
    huge = {"name": "w", "shape": [10**15], "role": "weight", "blocks": []}
    changes = {
        "'architecture' is missing": lambda d: {k: v for k, v in d.items() if k != "architecture"},
        "'architecture.layers' should be a list": lambda d: {**d, "architecture": {**d["architecture"], "layers": 3}},
        # named before tables of that size are built
        "no tensor 'w'": lambda d: {**d, "architecture": {**d["architecture"], "parameters": [huge]}},
    }
    for message, change in changes.items():
        rewrite(zoo, data=change)
        assert_refused(zoo, message)
        zoo.write_bytes(original)


def test_a_newer_format_says_what_was_expected(zoo):
    content = zoo.read_bytes()
    zoo.write_bytes(content.replace(rb"\"format\": 1", rb"\"format\": 7"))
    assert_refused(zoo, "format version 7, and this wsflow reads versions up to 1")


def test_plain_safetensors_are_refused_with_the_remedy(tmp_path):
    save_file({"0.weight": np.zeros((2, 3), np.float32)}, tmp_path / "plain.safetensors")
    assert_refused(tmp_path / "plain.safetensors", "load_networks")


def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "not a file")
    assert_refused(tmp_path, "a folder, expected a file")
    assert_refused(tmp_path / "gone", "no such file")
    assert_refused(tmp_path / ("long" * 100), "cannot be read")


def test_invalid_weights_are_named_or_dropped(tmp_path):
    population = make_population()
    rows = np.array(population.weights)
    rows[2, 13], rows[4, 0] = np.nan, np.inf
    save_population(population, tmp_path / "a.st")
    rewrite(tmp_path / "a.st", tensors=lambda t: with_weights(t, rows))
    assert_refused(tmp_path / "a.st", r"network 2 has a weight in '0.bias' that is not finite \(2 of 5")
    with pytest.warns(UserWarning, match="2 of 5 networks were dropped"):
        kept = load_population(tmp_path / "a.st", on_invalid="drop")
    np.testing.assert_array_equal(np.asarray(kept.weights), rows[[0, 1, 3]])
    assert kept.weights.steps.tolist() == [0, 4, 12]
    save_population(Population(population.weights[[2]]), tmp_path / "a.st")
    rewrite(tmp_path / "a.st", tensors=lambda t: with_weights(t, rows[[2]]))
    assert_refused(tmp_path / "a.st", "No network is left", lambda path: load_population(path, on_invalid="drop"))
    with pytest.raises(ValueError, match="'error' or 'drop'"):
        load_population(tmp_path / "a.st", on_invalid="ignore")


def test_what_cannot_be_saved_is_refused_before_writing(tmp_path):
    empty = Population(make_population().weights[:0])
    odd = Population(make_population().weights, provenance={"object": object()})
    reserved = Architecture((fixed_parameter("wsflow.run", (3,)),))
    named = Population(WeightArray(np.zeros((1, 3)), reserved))
    for population, message in [(empty, "at least one"), (odd, "JSON"), (named, "'wsflow.run' is reserved")]:
        with pytest.raises(InvalidInputError, match=message):
            save_population(population, tmp_path / "a.st")
    assert not list(tmp_path.iterdir())


HUGE = {np.float16: 6e4, np.float32: 3e38, np.float64: 1e308}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_that_could_not_be_loaded_are_not_saved(tmp_path, value, dtype):
    weights = make_population().weights.astype(dtype)
    rows = np.array(weights)
    rows[3, 13], rows[4, 0] = value, HUGE[dtype]
    path = tmp_path / "a.st"
    path.write_bytes(b"precious")
    with pytest.raises(
        NumericalError, match=r"a\.st: .*network 3 has a weight in '0\.bias' that is not finite"
    ) as caught:
        save_population(Population(weights.like(rows)), path)
    assert caught.value.exit_code == 4 and path.read_bytes() == b"precious"
    # the largest numbers are numbers
    save_population(Population(weights.like(rows)[[0, 1, 2, 4]]), path)
    np.testing.assert_array_equal(load_population(path).weights, rows[[0, 1, 2, 4]])
    assert [found.name for found in tmp_path.iterdir()] == ["a.st"]


@pytest.mark.parametrize(
    "provenance",
    [
        # sorted as numbers when it is written, and as text when it is read
        {"runs": {9: "a", 10: "b"}},
        # more digits than Python reads
        {"seed": 10**5000},
        {"note": "x" * 100_000_000},
    ],
    ids=["keys", "digits", "size"],
)
def test_metadata_that_could_not_be_read_are_not_written(tmp_path, provenance):
    population = Population(make_population().weights, provenance=provenance)
    with pytest.raises(InvalidInputError, match=r"a\.st: nothing was written|cannot be saved as JSON|Not everything"):
        save_population(population, tmp_path / "a.st")
    assert not list(tmp_path.iterdir())


def test_an_architecture_that_does_not_come_back_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(Architecture, "to_json", lambda self: '{"parameters": []}')
    with pytest.raises(InvalidInputError, match="nothing was written, as it could not be read again: "):
        save_population(make_population(), tmp_path / "a.st")
    assert not list(tmp_path.iterdir())
