"""Files that are damaged, hostile or something else: refused by name, nothing executed, nothing huge allocated."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from wsflow.architecture import Architecture
from wsflow.architecture.parameters import fixed_parameter
from wsflow.architecture.state_rows import rows_of_states
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers import load_networks
from wsflow.weights import WeightArray

STATE = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "2.weight": torch.ones(1, 3), "2.bias": torch.ones(1)}


def refused(path: Path, match: str, **keywords: object) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        load_networks(path, **{"activation": "relu", **keywords})
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def saved(path: Path, state: object = STATE) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **{k: np.asarray(v) for k, v in state.items()})
    elif path.suffix == ".nnet":
        path.write_text("1,2,1,2,\n2,1,\n0,\n0,0,\n1,1,\n0,0,0,\n1,1,1,\n1,2,\n3,\n")
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz", ".nnet"])
@pytest.mark.parametrize("keep", [0, 5, 0.5, -2])
def test_files_that_are_cut_off(tmp_path, suffix, keep):
    whole = saved(tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    refused(path, "no intact")


class Bomb:
    """What makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_bomb_is_not_executed(tmp_path, legacy):
    content = {**STATE, "x": Bomb(tmp_path / "executed")}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / "a.pt", r"holds Python objects .*Save a state_dict instead")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(content))
    refused(tmp_path / "b.pt", "Save a state_dict instead")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(content))
    refused(tmp_path / "c.pkl", r"Nothing of it was run")
    assert not (tmp_path / "executed").exists()


class Huge:
    """What torch would fill with zeros when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return bytearray, (10**13,)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_huge_is_allocated(tmp_path, legacy):
    torch.save({**STATE, "x": Huge()}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / "a.pt", r"holds Python objects \(bytearray\)")


@pytest.mark.parametrize("size", [b"J\xff\xff\xff\x7f", b"\x8a\x06\xff\xff\xff\xff\xff\x7f"])
@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_that_are_said_to_be_huge(tmp_path, size, legacy):
    path = tmp_path / "a.pt"
    torch.save({"0.weight": torch.ones(7, 11)}, path, _use_new_zipfile_serialization=not legacy)

    def lie(content: bytes) -> bytes:
        # the number of elements of the storage, of which there are 77
        return content.replace(b"cpuq\x05KM", b"cpuq\x05" + size).replace(b"cpuq\x06KM", b"cpuq\x06" + size)

    if legacy:
        changed = lie(path.read_bytes())
    else:
        stream = io.BytesIO()
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(stream, "w") as other:
            for info in archive.infolist():
                other.writestr(info.filename, lie(archive.read(info)))
        changed = stream.getvalue()
    assert size in changed
    path.write_bytes(changed)
    refused(path, "no intact file of torch")


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Sequential(nn.ReLU()), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", r"torch.nn.modules.container.Sequential.*Save a state_dict instead: torch.save\(module")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "this is an array alone, without names of layers"),
        ({}, "an empty dictionary"),
        ({"epoch": 3, "lr": 0.1}, "'epoch' is no tensor but a int"),
        ({"state_dict": {"note": "x"}}, "'state_dict' is no tensor but a dict"),
        ({"state_dict": {0: torch.ones(2)}}, r"what is 'state_dict.0', of shape \(2,\)"),
        (torch.optim.SGD([torch.ones(1)], lr=0.1).state_dict(), "the state of an optimizer"),
        ({"0.weight": torch.ones(1).expand(10**6, 10**6)}, r"'0.weight' of shape .* repeats a tensor of 4 bytes"),
        ({"0.weight": torch.ones(1, 1, dtype=torch.complex64)}, "'0.weight' has the dtype complex64"),
        ({"0.weight": torch.eye(2).to_sparse()}, "sparse"),
    ],
)
def test_what_is_no_state_dict(tmp_path, content, message):
    refused(saved(tmp_path / "a.pt", content), message)


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    path = saved(tmp_path / "a.pt", {"0.weight": torch.zeros(1000, 1000)})
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as other:
        for info in archive.infolist():
            other.writestr(info.filename, archive.read(info))
    refused(tmp_path / "b.pt", "is compressed")


def test_npz_files_with_objects(tmp_path):
    np.savez(tmp_path / "a.npz", **{"0.weight": np.array([Bomb(tmp_path / "executed")], dtype=object)})
    refused(tmp_path / "a.npz", "holds Python objects")
    assert not (tmp_path / "executed").exists()


def npz_member(shape: tuple[int, ...], payload: bytes) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + payload


@pytest.mark.parametrize(("shape", "payload"), [((10**6,), bytes(8 * 10**6)), ((10**12,), bytes(8))])
def test_npz_files_that_are_bombs(tmp_path, shape, payload):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("0.weight.npy", npz_member(shape, payload))
    refused(tmp_path / "a.npz", "would unpack from|does not go with its size")


def test_an_npz_file_with_an_array_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", npz_member((1,), bytes(8)))
        archive.writestr("w.npy", npz_member((1,), bytes(8)))
    refused(tmp_path / "a.npz", "an array twice")


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 4) + b"\xff\xfe{}",
        struct.pack("<Q", 2) + b"[]",
        *(
            struct.pack("<Q", len(text)) + text + bytes(8)
            for text in (
                json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}).encode(),
                json.dumps({"w": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}}).encode(),
                json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}).encode(),
            )
        ),
    ],
)
def test_safetensors_files_that_lie(tmp_path, header):
    (tmp_path / "a.safetensors").write_bytes(header)
    refused(tmp_path / "a.safetensors", "no intact safetensors file")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1,2,1,2,", "2,2,1,2,", "its header counts"),
        ("2,1,", "2,1000000000,1,", "its header counts"),
        ("0,0,0,", "0,0,", "means are 2 numbers, expected 3"),
        ("3,", "3,4,", "it has 4 weights, and its widths .* need 3"),
        ("3,", "three,", "could not convert"),
        ("1,1,1,", "1,nan,1,", "finite"),
    ],
)
def test_nnet_files_that_lie(tmp_path, old, new, message):
    path = saved(tmp_path / "a.nnet")
    lines = path.read_text().splitlines()
    place = len(lines) - 1 if old == "3," else lines.index(old)
    path.write_text("\n".join([*lines[:place], new, *lines[place + 1 :]]))
    refused(path, message)


def test_a_range_of_zero_and_no_constants_cannot_be_folded(tmp_path):
    path = saved(tmp_path / "a.nnet")
    path.write_text(path.read_text().replace("1,1,1,", "1,0,1,"))
    refused(path, "range of the normalization is zero", fold=True)
    refused(saved(tmp_path / "a.pt"), "no constants of normalization", fold=True)


def test_weights_that_are_not_finite_are_named_or_dropped(tmp_path):
    for i in range(3):
        saved(tmp_path / f"net_{i}.pt", {**STATE, "2.weight": torch.full((1, 3), torch.nan if i == 1 else float(i))})
    with pytest.raises(InvalidInputError, match=r"net_1.pt has a weight in '2.weight' that is not finite.*'drop'"):
        load_networks(tmp_path, activation="relu")
    with pytest.warns(UserWarning, match="1 of 3 networks were dropped"):
        population = load_networks(tmp_path, activation="relu", on_invalid="drop")
    assert population.weights.runs.tolist() == [0, 2]
    with pytest.raises(ValueError, match="'on_invalid' of load_networks"):
        load_networks(tmp_path, activation="relu", on_invalid="ignore")


def test_mixed_architectures_are_listed_with_their_files(tmp_path):
    others = [
        STATE,
        {name: tensor for name, tensor in STATE.items() if name != "2.bias"},
        {**STATE, "0.weight": torch.ones(2, 3)},
        {**STATE, "9.weight": torch.ones(1)},
        {"a": torch.ones(1)},
    ]
    for i, state in enumerate(others):
        saved(tmp_path / f"net_{i}.pt", state)
    message = r"net_1.pt has no '2.bias'; .*net_2.pt has '0.weight' of shape \(2, 3\), expected \(3, 2\); .*and 5 more"
    with pytest.raises(InvalidInputError, match=message):
        load_networks(tmp_path, activation="relu")


def test_formats_that_say_different_architectures(tmp_path):
    saved(tmp_path / "a.nnet")
    text = "2,2,1,2,\n2,2,1,\n0,\n0,0,\n1,1,\n0,0,0,\n1,1,1,\n1,2,\n1,2,\n3,\n3,\n1,2,\n3,\n"
    (tmp_path / "b.nnet").write_text(text)
    refused(tmp_path, r"a.nnet is 2-1 .*, but .*b.nnet is 2-2-1 relu")


def test_what_is_missing_is_asked_for(tmp_path):
    path = saved(tmp_path / "a.pt")
    refused(path, r"pass activation='relu' .*module= .*architecture=", activation=None)
    with pytest.raises(ValueError, match="'swoosh' is not in wsflow's table"):
        load_networks(path, activation="swoosh")
    with pytest.raises(InvalidInputError, match="from_modules and from_state_dicts"):
        load_networks(STATE)
    with pytest.raises(InvalidInputError, match="got a Linear"):
        load_networks([nn.utils.skip_init(nn.Linear, 1, 1)])


def test_paths_that_lead_nowhere(tmp_path):
    refused(tmp_path / "a.pt", "there is no such file")
    refused(tmp_path, "no file ending in")
    refused(tmp_path / "*.pt", "no file is of this pattern")
    (tmp_path / "a.txt").write_text("x")
    refused(tmp_path / "a.txt", "read from files ending in .pt")
    path = saved(tmp_path / "b.pt")
    with pytest.raises(InvalidInputError, match="there twice"):
        load_networks([path, tmp_path / "." / "b.pt"], activation="relu")
    with pytest.raises(InvalidInputError, match="list of files is empty"):
        load_networks([], activation="relu")


def tied() -> Architecture:
    mlp = Architecture.mlp([2, 2, 2], bias=False)
    first, second = mlp.parameters
    kept = type(first)(first.name, first.shape, first.blocks, aliases=("decoder.weight",))
    return Architecture((kept, second), mlp.wires, constants=("grid",))


def test_tied_tensors_are_read_once_under_any_of_their_names():
    weight, other = torch.arange(4.0).reshape(2, 2), torch.ones(2, 2)
    states = [
        {"0.weight": weight, "decoder.weight": weight, "2.weight": other, "grid": torch.arange(3)},
        {"decoder.weight": weight, "2.weight": other},
    ]
    rows = WeightArray.from_state_dicts(states, architecture=tied())
    np.testing.assert_array_equal(np.asarray(rows[0]), np.asarray(rows[1]))
    states[1] = {**states[0], "decoder.weight": other}
    with pytest.raises(InvalidInputError, match=r"network 1 has 'decoder.weight' that differs from '0.weight'"):
        WeightArray.from_state_dicts(states, architecture=tied())
    states[1] = {**states[0], "grid": torch.zeros(3)}
    with pytest.raises(InvalidInputError, match="network 1 has another 'grid'"):
        WeightArray.from_state_dicts(states, architecture=tied())


def test_counters_that_old_files_lack_are_zero():
    parameters = [(name, (2,)) for name in ("n.running_mean", "n.running_var")]
    architecture = Architecture(
        (
            *(fixed_parameter(*p, "statistic") for p in parameters),
            fixed_parameter("n.num_batches_tracked", (), "statistic"),
        )
    )
    state = {name: np.ones(shape, dtype=np.float32) for name, shape in parameters}
    rows = rows_of_states([state], architecture)
    assert rows.tolist() == [[1, 1, 1, 1, 0]] and rows.dtype == np.float32
