"""Pickles are read without a call of anything they name: bombs are refused or inert, tensors stay in their storage."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import make_networks

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers import leaves, load_networks, unpickling
from wsflow.populations.importers.unpickling import Global, Opaque, unpickle

CALLED: list[str] = []


class Calls:
    """What calls something when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced

    def __call__(self) -> None:
        """Be callable, as the first part of what is reduced has to be."""


class Notices:
    """What would notice that it is made, given a state or filled."""

    def __new__(cls, *arguments: Any) -> Notices:
        CALLED.append("new")
        return super().__new__(cls)

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        CALLED.append("setstate")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Notices, (1,), {"value": 2}


class FilledList(list):
    """A list that would notice what is appended."""

    def append(self, value: Any) -> None:
        CALLED.append("append")

    def extend(self, values: Any) -> None:
        CALLED.append("extend")


class FilledDictionary(dict):
    """A dictionary that would notice its items."""

    def __setitem__(self, key: Any, value: Any) -> None:
        CALLED.append("setitem")


def archive(path: Path, program: bytes, **storages: bytes) -> Path:
    """A file of torch with this pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", program)
        file.writestr("net/byteorder", "little")
        file.writestr("net/version", "3\n")
        for key, content in storages.items():
            file.writestr(f"net/data/{key.strip('_')}", content)
    return path


def refused(path: Path, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        load_networks(path, activation="tanh")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def harmful(canary: Path) -> dict[str, Any]:
    """Objects that would write the canary, or take all memory."""
    touch = f"touch {canary}"
    return {
        "os.system": Calls(os.system, touch),
        "posix": Calls(os.popen, touch),
        "subprocess": Calls(subprocess.Popen, ["touch", str(canary)]),
        "eval": Calls(eval, f"open({str(canary)!r}, 'w')"),
        "exec": Calls(exec, f"open({str(canary)!r}, 'w')"),
        "import": Calls(builtins.__import__, "antigravity"),
        "open": Calls(open, str(canary), "w"),
        "pickle in a pickle": Calls(pickle.loads, pickle.dumps(Calls(open, str(canary), "w"))),
        "bytearray": Calls(bytearray, 10**13),
        "memmap": Calls(np.memmap, str(canary), "float64", "w+", 0, (3,)),
    }


@pytest.mark.parametrize("name", harmful(Path("canary")))
@pytest.mark.parametrize("suffix", [".pt", ".th", ".pkl"])
def test_bombs_are_refused_and_do_not_go_off(tmp_path, name, suffix):
    canary, path = tmp_path / "canary", tmp_path / f"net{suffix}"
    content = {**make_networks(1)[0].state_dict(), "x": [{"deep": (harmful(canary)[name],)}]}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=suffix == ".pt")
    refused(path, r"holds Python objects \(.*\) that would run commands or take all memory.*Nothing of it was run")
    assert not canary.exists()


@pytest.mark.parametrize(
    "value",
    [
        Calls(Path.write_text, Path("canary"), "x"),
        Calls(Path.touch, Path("canary")),
        Calls(np.save, "canary", np.ones(1)),
        Calls(torch.save, {}, "canary"),
        Calls(getattr, Calls(getattr, Path("canary"), "touch"), "__call__"),
        Calls(Calls(getattr, Path("canary"), "touch")),
        Notices(),
        FilledList([1, 2]),
        FilledDictionary(a=1),
    ],
    ids=["write_text", "touch", "save", "torch.save", "getattr", "call of a call", "setstate", "append", "setitem"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_is_not_known_is_inert(tmp_path, monkeypatch, value, protocol):
    monkeypatch.chdir(tmp_path)
    net = make_networks(1)[0]
    content = {"state_dict": {k: v.numpy() for k, v in net.state_dict().items()}, "x": value}
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(content, protocol))
    CALLED.clear()
    population = load_networks("net.pkl", activation="tanh")
    expected = torch.cat([tensor.reshape(-1) for tensor in net.state_dict().values()]).numpy()
    np.testing.assert_array_equal(np.asarray(population.weights)[0], expected)
    assert CALLED == [] and [path.name for path in tmp_path.iterdir()] == ["net.pkl"]
    if isinstance(value, Notices):
        # the canary sings where the pickle is loaded
        pickle.loads((tmp_path / "net.pkl").read_bytes())
        assert CALLED


PROGRAMS = {
    "a global of eval alone": (b"cbuiltins\neval\n.", "holds Python objects .eval"),
    "an instance of os.system": (b"(S'touch canary'\nios\nsystem\n.", r"\(os.system\) that would run commands"),
    "an object of os.system": (b"(cos\nsystem\nS'touch canary'\no.", r"\(os.system\) that would run commands"),
    "a new os.system": (b"cos\nsystem\n(S'touch canary'\nt\x81.", r"\(os.system\) that would run commands"),
    "keywords": (b"csubprocess\nPopen\n)}\x92.", r"\(subprocess.Popen\) that would run commands"),
    "an extension": (b"\x82\x01.", "the instruction EXT1, which is not read"),
    "a persistent id that is no storage": (b"S'anything'\nQ.", "persistent id that is no storage"),
    "a persistent id in text": (b"Panything\n.", "persistent id that is no storage"),
    "an empty stack": (b"0.", "goes wrong at the instruction POP"),
    "no end": (b"]", "exhausted before seeing STOP"),
    "a memo that is not there": (b"h\x07.", "goes wrong at the instruction BINGET"),
    "items of a number": (b"K\x01K\x02K\x03s.", "goes wrong at the instruction SETITEM"),
    "an odd dictionary": (b"(K\x01K\x02K\x03d.", "goes wrong at the instruction DICT"),
    "a string without an end": (b"X\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),
    "a huge string": (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "no intact file of torch"),
    "text that is no UTF-8": (b"X\x02\x00\x00\x00\xff\xfe.", "no intact file of torch"),
    "a buffer out of band": (b"\x97.", "NEXT_BUFFER, which is not read"),
    "nested builtins": (
        b"c__builtin__\ngetattr\n(c__builtin__\neval\nS'__call__'\ntR.",
        "holds Python objects .*getattr",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_pickles(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    program, message = PROGRAMS[name]
    refused(archive(tmp_path / "net.pt", program), message)
    (tmp_path / "net.pt").unlink()
    assert not list(tmp_path.iterdir())


def test_a_pickle_that_contains_itself(tmp_path):
    loop: dict[str, Any] = {"net": {k: v.numpy() for k, v in make_networks(1)[0].state_dict().items()}}
    loop["again"] = [loop]
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(loop))
    assert len(load_networks(tmp_path / "net.pkl", activation="tanh")) == 1


def test_a_pickle_that_laughs(tmp_path, monkeypatch):
    # lists of lists that would be 2^60 elements when they are walked
    monkeypatch.setattr(leaves, "MAXIMUM_NODES", 1000)
    program = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(60)) + b"."
    refused(archive(tmp_path / "net.pt", program), "more than 1000 dictionaries, lists and objects")


def test_long_lists_of_numbers_are_no_objects(tmp_path, monkeypatch):
    monkeypatch.setattr(leaves, "MAXIMUM_NODES", 1000)
    torch.save({"losses": [0.5] * 2000, "net": make_networks(1)[0].state_dict()}, tmp_path / "net.pt")
    assert len(load_networks(tmp_path / "net.pt", activation="tanh")) == 1


def test_pickles_of_too_many_instructions(monkeypatch):
    monkeypatch.setattr(unpickling, "MAXIMUM_INSTRUCTIONS", 1000)
    with pytest.raises(ValueError, match="more than 1000 instructions"):
        unpickle(io.BytesIO(b"N0" * 501 + b"."), {})


def test_deep_nesting_ends():
    depth = 10**5
    value = unpickle(io.BytesIO(b"]" * depth + b"a" * (depth - 1) + b"."), {})
    assert isinstance(value, list)


def tensor_program(numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], key: str = "0") -> bytes:
    """A pickle of {"0.weight": tensor}."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", numel) if isinstance(value, Stands) else None

    class Stands:
        pass

    stream = io.BytesIO()
    arguments = (Stands(), offset, size, stride, False, {})
    Pickler(stream, 2).dump({"0.weight": Calls(torch._utils._rebuild_tensor_v2, *arguments)})
    return stream.getvalue()


def test_a_tensor_of_a_written_program_is_read(tmp_path):
    numbers = struct.pack("<8f", *range(8))
    path = archive(tmp_path / "net.pt", tensor_program(8, 1, (2, 3), (1, 2)), _0=numbers)
    population = load_networks(path, activation="tanh")
    assert np.asarray(population.weights).tolist() == [[1, 3, 5, 2, 4, 6]]
    assert torch.load(path, weights_only=True)["0.weight"].tolist() == [[1, 3, 5], [2, 4, 6]]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tensor_program(8, 3, (2, 3), (3, 1)), r"shape \(2, 3\) that needs 36 bytes of a storage of 32"),
        (tensor_program(8, 0, (2, 3), (100, 1)), "that needs 412 bytes of a storage of 32"),
        (tensor_program(8, -1, (2, 3), (3, 1)), "are no sizes"),
        (tensor_program(8, 0, (2, 3), (-3, 1)), "are no sizes"),
        (tensor_program(8, 0, (-2, 3), (3, 1)), "are no sizes"),
        (tensor_program(8, 0, (2, 3), (3,)), "do not go together"),
        (tensor_program(8, 0, (2**61, 2**61), (0, 0)), "too large"),
        (tensor_program(8, 0, (1,) * 100, (1,) * 100), "too large"),
        (tensor_program(8, 0, (2.5, 3), (3, 1)), "are no sizes"),
        (tensor_program(8, 0, "ab", (3, 1)), "do not go together"),
        (tensor_program(2**60, 0, (2, 3), (3, 1)), "has 32 bytes, and is said to have"),
        (tensor_program(-8, 0, (2, 3), (3, 1)), "whose size is no number"),
        (tensor_program(8, 0, (2, 3), (3, 1), key="7"), "the storage '7' is missing"),
        (tensor_program(8, 0, (2, 3), (3, 1), key="../../net/data/0"), "is missing"),
    ],
)
def test_tensors_that_leave_their_storage(tmp_path, program, message):
    refused(archive(tmp_path / "net.pt", program, _0=bytes(32)), message)


def test_what_is_recorded_of_a_call():
    value = unpickle(io.BytesIO(pickle.dumps(Notices(), 2)), {})
    assert isinstance(value, Opaque) and value.called == Global(__name__, "Notices")
    assert (value.arguments, value.state) == ((1,), {"value": 2})
