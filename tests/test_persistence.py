"""Files: what is loaded is what was saved, and every fault is a sentence."""

from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wsflow.architecture import Architecture
from wsflow.architecture.parameters import plain
from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.persistence import check_target, describe, load_model, load_population, models, save_model, save_population
from wsflow.persistence.format import KEY, read, write
from wsflow.populations import Population, load_task
from wsflow.task import Task
from wsflow.weights import WeightArray

ARCHITECTURE = Architecture.mlp([4, 3, 3])


def make_population(n: int = 5, task: Task | None = None, **keywords: object) -> Population:
    rows = np.random.default_rng(0).normal(size=(n, ARCHITECTURE.n_weights)).astype(np.float32)
    weights = WeightArray(rows, ARCHITECTURE, runs=np.arange(n) // 2, steps=np.arange(n) * 4, **keywords)
    return Population(weights, task, {"made_by": "hand", "nested": {"b": [1, 2.5, None], "a": "ü"}})


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


# what is loaded is what was saved


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


# faults of files


def assert_refused(path: Path, message: str, load=load_population) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def packed(header: object, payload: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + payload


def one(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}}


FAULTS = {
    "empty": (b"", "0 bytes"),
    "five bytes": (b"12345", "5 bytes"),
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
    "foreign": (packed({**one(), "__metadata__": {"format": "pt"}}, bytes(4)), "WeightArray.*save_population"),
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
        assert_refused(zoo, "no intact safetensors file")
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
    changes = {
        "have no 'architecture'": lambda d: {k: v for k, v in d.items() if k != "architecture"},
        "no description of an architecture": lambda d: {**d, "architecture": {**d["architecture"], "layers": 3}},
        # named before tables of that size are built
        "no tensor 'w'": lambda d: {**d, "architecture": {"parameters": [{"name": "w", "shape": [10**15]}]}},
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
    assert_refused(tmp_path / "plain.safetensors", "save_population")


def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "not a file")
    assert_refused(tmp_path, "not a file")
    assert_refused(tmp_path / "gone", "no such file")


def test_invalid_weights_are_named_or_dropped(tmp_path):
    population = make_population()
    rows = np.array(population.weights)
    rows[2, 13], rows[4, 0] = np.nan, np.inf
    broken = population.weights.like(rows)
    save_population(Population(broken), tmp_path / "a.st")
    assert_refused(tmp_path / "a.st", r"network 2 has a weight in '0.bias' that is not finite \(2 of 5")
    with pytest.warns(UserWarning, match="2 of 5 networks were dropped"):
        kept = load_population(tmp_path / "a.st", on_invalid="drop")
    np.testing.assert_array_equal(np.asarray(kept.weights), rows[[0, 1, 3]])
    assert kept.weights.steps.tolist() == [0, 4, 12]
    save_population(Population(broken[[2]]), tmp_path / "a.st")
    assert_refused(tmp_path / "a.st", "No network is left", lambda path: load_population(path, on_invalid="drop"))
    with pytest.raises(ValueError, match="'error' or 'drop'"):
        load_population(tmp_path / "a.st", on_invalid="ignore")


def test_what_cannot_be_saved_is_refused_before_writing(tmp_path):
    empty = Population(make_population().weights[:0])
    odd = Population(make_population().weights, provenance={"object": object()})
    reserved = Architecture((plain("wsflow.run", (3,)),))
    named = Population(WeightArray(np.zeros((1, 3)), reserved))
    for population, message in [(empty, "at least one"), (odd, "JSON"), (named, "'wsflow.run' is reserved")]:
        with pytest.raises(InvalidInputError, match=message):
            save_population(population, tmp_path / "a.st")
    assert not list(tmp_path.iterdir())


# faults of the place


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


# models


class Shift(TransformerMixin, BaseEstimator):
    """An estimator of the kind that wsflow saves."""

    def __init__(self, amount=1.0, widths=(3, 4), task=None, architecture=None, random_state=None, progress=None):
        self.amount = amount
        self.widths = widths
        self.task = task
        self.architecture = architecture
        self.random_state = random_state
        self.progress = progress

    def fit(self, X, y=None):
        self.mean_ = np.asarray(X).mean(axis=0)
        self.count_ = np.asarray(len(X))
        self.empty_ = np.zeros((0, 3))
        self.curve_ = [1.5, float("nan")]
        self.architecture_ = ARCHITECTURE
        self.range_ = (0, 1)
        return self

    def transform(self, X):
        return np.asarray(X) - self.mean_ + self.amount

    def _get_fitted(self):
        arrays = {"mean_": self.mean_, "count_": self.count_, "empty_": self.empty_}
        return arrays, {"curve_": self.curve_, "range_": self.range_, "architecture": self.architecture_.to_json()}

    def _set_fitted(self, arrays, data):
        self.architecture_ = Architecture.from_json(data["architecture"])
        self.curve_, self.range_ = data["curve_"], data["range_"]
        for name in ("mean_", "count_", "empty_"):
            setattr(self, name, arrays[name])


class Impostor(Shift):
    """A class of its own, whatever its base."""


@pytest.fixture(autouse=True)
def shift_is_a_step(monkeypatch):
    monkeypatch.setitem(models.STEPS, "Shift", __name__)


def fitted(**params: object) -> Shift:
    return Shift(**params).fit(np.random.default_rng(2).normal(size=(6, 27)))


@pytest.mark.parametrize("pipeline", [False, True])
def test_a_model_comes_back_with_parameters_arrays_and_values(tmp_path, pipeline):
    params = {
        "amount": np.float64(0.1), "widths": {"a": [(1, 2), float("inf")]}, "task": load_task("iris"),
        "architecture": ARCHITECTURE, "random_state": 3, "progress": print,
    }  # fmt: skip
    step = fitted(**params)
    model = make_pipeline(fitted(), step) if pipeline else step
    save_model(model, tmp_path / "model.st")
    loaded = load_model(tmp_path / "model.st")
    assert not pipeline or [name for name, _ in loaded.steps] == ["shift-1", "shift-2"]
    last = loaded[-1] if pipeline else loaded
    assert (last.amount, last.widths, last.architecture) == (0.1, params["widths"], ARCHITECTURE)
    assert last.random_state == 3 and last.progress is None and last.range_ == (0, 1) and last.task.checksum == params["task"].checksum
    assert last.mean_.tobytes() == step.mean_.tobytes() and last.mean_.dtype == np.float64
    assert (last.count_.shape, last.count_, last.empty_.shape) == ((), 6, (0, 3))
    assert last.architecture_ == ARCHITECTURE and last.curve_[0] == 1.5 and np.isnan(last.curve_[1])
    X = np.random.default_rng(3).normal(size=(4, 27))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    save_model(loaded, tmp_path / "again.st")
    assert (tmp_path / "again.st").read_bytes() == (tmp_path / "model.st").read_bytes()
    assert set(load_file(tmp_path / "model.st")) >= {"shift-2.mean_" if pipeline else "shift.mean_"}


def test_a_models_task_without_source_is_saved_with_its_data(tmp_path):
    task = Task(np.eye(4), [0, 1, 2, 0], validation=Task(np.eye(4), [0, 1, 2, 0]))
    save_model(fitted(task=task), tmp_path / "model.st")
    assert load_model(tmp_path / "model.st").task.checksum == task.checksum


def test_a_model_is_described_by_its_header(tmp_path):
    save_model(make_pipeline(fitted(task=load_task("iris"), amount=2)), tmp_path / "model.st")
    description = describe(tmp_path / "model.st")
    assert description["architecture"] == "4-3-3 relu (27 weights)"
    assert description["steps"][0]["class"] == "Shift"
    assert description["steps"][0]["params"]["widths"] == [3, 4]
    assert description["steps"][0]["params"]["task"]["name"] == "iris"
    json.dumps(description, allow_nan=False)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (StandardScaler(), "'standardscaler' is StandardScaler, which wsflow does not save"),
        ("passthrough", "is 'passthrough'"),
        (make_pipeline(Shift()), "is Pipeline"),
        (Impostor(), "is Impostor"),
        (Shift(), "not fitted"),
        (fitted(random_state=np.random.RandomState(0)), "'random_state' of Shift is a RandomState"),
        (fitted(amount=object()), "'shift.params.amount' is of the type object"),
        (fitted(widths={"$tuple": 3}), "is of the type dict"),
    ],
)
def test_what_is_not_wsflows_is_refused_by_name(tmp_path, step, message):
    with pytest.raises(InvalidInputError, match=message):
        save_model(make_pipeline(step), tmp_path / "model.st")
    assert not list(tmp_path.iterdir())


def test_arrays_of_objects_are_never_pickled(tmp_path):
    step = fitted()
    step.mean_ = np.array([object()])
    with pytest.raises(InvalidInputError, match="'shift.mean_' of dtype object"):
        save_model(step, tmp_path / "model.st")


def test_names_that_would_collide_are_refused(tmp_path):
    step = fitted()
    step._get_fitted = lambda: ({"params.amount": np.zeros(1)}, {})
    step.amount = np.ones(2)
    with pytest.raises(InvalidInputError, match="'shift.params.amount'"):
        save_model(step, tmp_path / "model.st")


def test_a_population_is_no_model_and_a_model_no_population(tmp_path, zoo):
    save_model(fitted(), tmp_path / "model.st")
    assert_refused(tmp_path / "model.st", "is a model, not a population")
    assert_refused(zoo, "is a population, not a model", load_model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda step: step.update({"class": "os.system"}), "'os.system', which this wsflow does not have"),
        (lambda step: step["params"].update(colour=1), "colour"),
        (lambda step: step.pop("data"), "has no 'data'"),
        (lambda step: step.update(arrays=["variance_"]), "has no 'shift.variance_'"),
        (lambda step: step["params"].update(amount={"$pickle": "x"}), "'\\$pickle' is unknown"),
        (lambda step: step.clear(), "has no 'name'"),
    ],
)
def test_models_of_another_version_are_refused(tmp_path, change, message):
    save_model(fitted(), tmp_path / "model.st")
    tensors, data = read(tmp_path / "model.st", "model")
    change(data["steps"][0])
    write(tmp_path / "model.st", "model", tensors, data)
    assert_refused(tmp_path / "model.st", message, load_model)


def test_every_bit_of_a_model_is_checked(tmp_path):
    save_model(fitted(), tmp_path / "model.st")
    content = (tmp_path / "model.st").read_bytes()
    for position in range(8, len(content), 97):
        flipped = bytearray(content)
        flipped[position] ^= 4
        (tmp_path / "model.st").write_bytes(flipped)
        with pytest.raises(InvalidInputError), warnings.catch_warnings():
            load_model(tmp_path / "model.st")
    assert KEY in json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
