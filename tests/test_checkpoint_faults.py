"""What is no checkpoint is named as what it is, what does not fit by its name, and what is not clear by a warning."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoints import Layout, make_networks, renamed, saved
from click.testing import CliRunner
from torch import nn

import wsflow
from wsflow.architecture import Architecture
from wsflow.cli import main
from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers import load_networks
from wsflow.weights import WeightArray

STATE = make_networks(1)[0].state_dict()


def png() -> bytes:
    """A PNG image of one pixel."""
    chunks = [(b"IHDR", struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tar() -> bytes:
    """A tar archive with a file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("net.pt"), io.BytesIO())
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"
FOREIGN = {
    "a pointer of Git LFS": LFS,
    "an HTML page": b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>",
    "an HTML page ": b"\n  <html lang='en'></html>",
    "an XML document": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "a PNG image": png(),
    "a JPEG image": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(20),
    "a GIF image": b"GIF89a" + bytes(20),
    "a PDF document": b"%PDF-1.7\n" + bytes(20),
    "packed by gzip": gzip.compress(b"x" * 100),
    "packed by zstd": b"\x28\xb5\x2f\xfd" + bytes(20),
    "packed by xz": b"\xfd7zXZ\x00" + bytes(20),
    "a tar archive": tar(),
    "a GGUF file": b"GGUF\x03\0\0\0" + bytes(20),
    "a program": b"\x7fELF\x02\x01\x01" + bytes(20),
    "an SQLite database": b"SQLite format 3\x00" + bytes(20),
}


def refused(path: object, match: str, **keywords: object) -> None:
    with pytest.raises(InvalidInputError, match=match) as caught:
        load_networks(path, **{"activation": "tanh", **keywords})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz", ".h5", ".msgpack", ".nnet", ".pkl"])
def test_files_of_another_kind_are_named(tmp_path, what, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(FOREIGN[what])
    refused(path, rf"net{suffix}: this is {what.strip()}")


@pytest.mark.parametrize("what", FOREIGN)
def test_commands_name_files_of_another_kind(tmp_path, what):
    path = tmp_path / "zoo.safetensors"
    path.write_bytes(FOREIGN[what])
    for command in ("info", "align"):
        arguments = [command, str(path)] + (["-o", str(tmp_path / "out.safetensors")] if command == "align" else [])
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 3 and f"this is {what.strip()}" in result.stderr
    with pytest.raises(InvalidInputError, match=f"this is {what.strip()}"):
        wsflow.load_population(path)


def test_data_of_another_kind_are_named(tmp_path):
    for name in ("data.csv", "data.npz"):
        (tmp_path / name).write_bytes(LFS)
        with pytest.raises(InvalidInputError, match=f"{name}: this is a pointer of Git LFS"):
            wsflow.load_task(str(tmp_path / name))


@pytest.mark.parametrize("url", ["https://host.org/net.pt", "hf://org/model", "s3://bucket/net.safetensors?x=[1]"])
def test_addresses_are_no_files(url):
    refused(url, "this is a URL, and only local files are read. Download it first")


def script(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"):
            archive.writestr(name, b"\x80\x02N.")
    return path


def test_programs_of_torchscript_are_named(tmp_path):
    refused(
        script(tmp_path / "net.pt"), r"this is a TorchScript archive, a program with its weights. Save a state_dict"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_torch_scripts_is_named(tmp_path):
    torch.jit.save(torch.jit.trace(make_networks(1)[0], torch.ones(2, 4)), tmp_path / "net.pt")
    refused(tmp_path / "net.pt", r"this is a TorchScript archive")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.joblib", "loading a file of joblib runs whatever is in it"),
        ("net.npy", "an array alone, without names of layers"),
        ("net.tflite", "TensorFlow Lite"),
        ("net.gguf", "quantized"),
        ("net.zip", "this is an archive. Unpack it first"),
        ("net.txt", "Networks are read from files ending in"),
    ],
)
def test_formats_that_are_not_read(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"anything")
    refused(tmp_path / name, message)


# folders in which other tools keep one network, by the files in them
FOLDERS = {
    "torch.distributed": ([".metadata", "__0_0.distcp", "meta.pt"], "checkpoint of torch.distributed in parts"),
    "SavedModel": (["saved_model.pb", "variables/variables.index"], "a SavedModel of TensorFlow"),
    "TensorFlow": (
        ["checkpoint", "model.ckpt-1.index", "model.ckpt-1.data-00000-of-00001"],
        "checkpoint of TensorFlow",
    ),
    "orbax": (["_CHECKPOINT_METADATA", "default/manifest.ocdbt", "default/d/0a1b"], "a checkpoint of orbax"),
    "its item": (["_METADATA", "manifest.ocdbt", "d/0a1b"], "a checkpoint of orbax"),
    "zarr": (["params.kernel/.zarray", "params.kernel/0.0"], "a checkpoint of orbax"),
    "peft": (["adapter_config.json", "adapter_model.safetensors"], "an adapter such as LoRA.*merge_and_unload"),
    "a run": (["step-1/net.pt", "step-1/optimizer.pt", "step-10/net.pt"], r"in folders of it \('step-1', 'step-10'\)"),
    "DeepSpeed": (["latest", "global_step5/mp_rank_00_model_states.pt"], r"\*/mp_rank_00_model_states.pt'"),
    "nothing": (["readme.txt", "logs/events.out"], "no file ending in .* is in this folder"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_other_tools_are_named(tmp_path, kind):
    names, message = FOLDERS[kind]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"anything")
    refused(tmp_path, message)


HALF = torch.ones(1, dtype=torch.float16)
FOREIGN_WEIGHTS = {
    "peft": (
        {"base_model.model.0.lora_A.weight": torch.ones(2, 4), "base_model.model.0.lora_B.weight": torch.ones(5, 2)},
        "'base_model.model.0.lora_A.weight' is one of adapters such as LoRA",
    ),
    "peft beside": (
        {
            **renamed(STATE, lambda name: name.replace("0.", "0.base_layer.")),
            "0.lora_A.default.weight": torch.ones(2, 4),
        },
        "adapters such as LoRA",
    ),
    "bitsandbytes": (
        {**STATE, "0.SCB": torch.ones(5), "0.weight_format": torch.ones(())},
        "'0.SCB' is one of quantized",
    ),
    "four bits": ({**STATE, "0.weight.absmax": HALF, "0.weight.quant_map": HALF}, "quantized weights"),
    "GPTQ": ({"0.qweight": HALF, "0.scales": HALF, "0.bias": torch.ones(5)}, "'0.qweight' is one of quantized weights"),
    "FSDP": ({"_flat_param": torch.ones(30), "1._flat_param": HALF}, "FSDP has flattened and divided.*full_state_dict"),
    "optimizer": (
        torch.optim.SGD(make_networks(1)[0].parameters(), 0.1, momentum=0.9).state_dict()
        | {"state": {0: {"momentum_buffer": torch.ones(5, 4)}}},
        "this is the state of an optimizer",
    ),
    "a vector": (torch.ones(51), r"this is an array alone.* WeightArray\(rows, architecture\)"),
}


@pytest.mark.parametrize("kind", FOREIGN_WEIGHTS)
@pytest.mark.parametrize("by", ["activation", "module"])
def test_weights_that_are_no_network_are_named(tmp_path, kind, by):
    content, message = FOREIGN_WEIGHTS[kind]
    keywords = {"module": make_networks(1)[0], "activation": None} if by == "module" else {}
    refused(saved(tmp_path, content), message, **keywords)


def test_zip_archives_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    refused(tmp_path / "net.pt", "a zip archive without a data.pkl")


def test_big_endian_files_of_torch(tmp_path):
    torch.save(STATE, tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as archive, zipfile.ZipFile(tmp_path / "big.pt", "w") as other:
        for info in archive.infolist():
            content = b"big" if info.filename.endswith("byteorder") else archive.read(info)
            other.writestr(info.filename, content)
    refused(tmp_path / "big.pt", "its numbers are big-endian")


QUANTIZED = {
    "int8.pt": lambda: {name: (tensor * 50).to(torch.int8) for name, tensor in STATE.items()},
    "uint8.pt": lambda: {**STATE, "2.weight": torch.ones(3, 5, dtype=torch.uint8)},
    "bool.pt": lambda: {**STATE, "2.weight": torch.ones(3, 5, dtype=torch.bool)},
}


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("by", ["activation", "module"])
def test_weights_of_eight_bits_are_refused(tmp_path, name, by):
    keywords = {"module": make_networks(1)[0], "activation": None} if by == "module" else {}
    kind = name.removesuffix(".pt")
    refused(
        saved(tmp_path, QUANTIZED[name](), name), rf"{name} has {kind} numbers in '\d.weight': quantized", **keywords
    )
    with pytest.raises(InvalidInputError, match=f"network 0 has {kind} numbers"):
        WeightArray.from_state_dicts([QUANTIZED[name]()], activation="tanh")


def test_int8_in_safetensors_is_refused(tmp_path):
    safetensors.torch.save_file(QUANTIZED["int8.pt"](), tmp_path / "net.safetensors")
    refused(tmp_path / "net.safetensors", "has int8 numbers in")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["qint8", "quint8"])
def test_tensors_that_torch_quantized_are_named(tmp_path, kind):
    quantized = torch.quantize_per_tensor(STATE["2.weight"], 0.1, 0, getattr(torch, kind))
    path = saved(tmp_path, {**STATE, "2.weight": quantized})
    refused(path, r"'2.weight' as torch._utils._rebuild_qtensor, which is no dense tensor", module=make_networks(1)[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("suffix", [".pt", ".th", ".safetensors"])
def test_narrow_precisions_become_single(tmp_path, dtype, suffix):
    state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in STATE.items()}
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == ".pt")
    population = load_networks(path, activation="tanh")
    assert population.weights.dtype == np.float32
    assert population.provenance["cast_to_float32"] == {path.name: [dtype]}
    expected = torch.cat([tensor.float().reshape(-1) for tensor in state.values()]).numpy()
    np.testing.assert_array_equal(np.asarray(population.weights)[0], expected)


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_half_precision_of_numpy_becomes_single(tmp_path, suffix):
    import pickle

    state = {name: tensor.half().numpy() for name, tensor in STATE.items()}
    if suffix == ".npz":
        np.savez(tmp_path / "net.npz", **state)
    else:
        (tmp_path / "net.pkl").write_bytes(pickle.dumps(state))
    population = load_networks(tmp_path / f"net{suffix}", activation="tanh")
    assert population.weights.dtype == np.float32 and list(population.provenance["cast_to_float32"])
    np.testing.assert_array_equal(
        np.asarray(population.weights)[0], np.concatenate([a.ravel() for a in state.values()])
    )


MISFITS = [
    (
        {f"net.{name}": tensor for name, tensor in STATE.items() if name != "4.bias"},
        r"has no '4.bias' under its prefix 'net.'",
    ),
    ({**STATE, "5.weight": torch.ones(2)}, r"has a further '5.weight'"),
    (
        {**renamed(STATE, "model.{}".format), "model.norm.weight": torch.ones(2), "epoch": 3},
        r"has a further 'model.norm.weight'",
    ),
    (
        {**renamed(STATE, "net.{}".format), "net.0.weight": torch.ones(5, 7)},
        r"has 'net.0.weight' of shape \(5, 7\), expected \(5, 4\)",
    ),
    (
        {"conv1.weight": torch.ones(2, 1, 3, 3), "fc.bias": torch.ones(2)},
        r"has no '0.weight', but 'conv1.weight', 'fc.bias'",
    ),
    (
        {"state_dict": {"model": {k: v for k, v in STATE.items() if k != "0.bias"}}},
        r"has no '0.bias' under its prefix 'state_dict.model.'",
    ),
]


@pytest.mark.parametrize(("content", "message"), MISFITS)
def test_what_does_not_fit_is_named_with_its_prefix(tmp_path, content, message):
    refused(saved(tmp_path, content), f"net.pt {message}", activation=None, architecture=_mlp())


def _mlp() -> Architecture:
    return Architecture.mlp([4, 5, 3, 2], "tanh")


@pytest.mark.parametrize(
    "names",
    [("fc1", "fc2", "fc3"), ("input", "hidden", "output"), ("layers.0", "layers.3", "layers.12"), ("z", "y", "x")],
)
def test_state_dicts_under_other_names_in_order(names):
    new = dict(zip(("0", "2", "4"), names, strict=True))
    state = renamed(STATE, lambda name: f"{new[name[0]]}{name[1:]}")
    rows = WeightArray.from_state_dicts([state, STATE], architecture=_mlp())
    np.testing.assert_array_equal(np.asarray(rows)[0], np.asarray(rows)[1])


@pytest.mark.parametrize("prefix", ["net.", "0.", "encoder.layers.", "module.", "_orig_mod."])
def test_state_dicts_under_a_prefix(prefix):
    states = [renamed(net.state_dict(), (prefix + "{}").format) for net in make_networks(2)]
    plain = WeightArray.from_state_dicts([net.state_dict() for net in make_networks(2)], activation="tanh")
    for keywords in ({"activation": "tanh"}, {"architecture": _mlp()}):
        np.testing.assert_array_equal(WeightArray.from_state_dicts(states, **keywords), plain)


def test_a_checkpoint_is_no_state_dict():
    for keywords in ({"activation": "tanh"}, {"architecture": _mlp()}):
        with pytest.raises(InvalidInputError, match="'state_dict'"):
            WeightArray.from_state_dicts([{"state_dict": STATE}], **keywords)


def test_state_dicts_with_two_networks_are_said():
    first, second = make_networks(2)
    state = {**renamed(second.state_dict(), "ema.{}".format), **renamed(first.state_dict(), "net.{}".format)}
    with pytest.warns(UserWarning, match=r"network 0: several networks fit. 'net.' was taken, and not 'ema.'"):
        rows = WeightArray.from_state_dicts([state], architecture=_mlp())
    assert np.asarray(rows)[0, 0] == first.state_dict()["0.weight"][0, 0]


@pytest.mark.parametrize("order", [(0, 2, 4), (4, 2, 0), (2, 0, 4)])
def test_the_order_of_keys_does_not_matter_where_names_fit(order):
    state = {f"{i}.{kind}": STATE[f"{i}.{kind}"] for i in order for kind in ("bias", "weight")}
    rows = WeightArray.from_state_dicts([state, STATE], architecture=_mlp())
    np.testing.assert_array_equal(np.asarray(rows)[0], np.asarray(rows)[1])


def test_other_names_in_another_order_are_refused():
    new = {"0": "c", "2": "b", "4": "a"}
    state = renamed(dict(sorted(STATE.items(), reverse=True)), lambda name: f"{new[name[0]]}{name[1:]}")
    with pytest.raises(InvalidInputError, match=r"network 0 has no '0.weight', but"):
        WeightArray.from_state_dicts([state], architecture=_mlp())


def test_names_without_an_order_and_equal_shapes_are_refused(tmp_path):
    square = {f"{name}.weight": torch.eye(3) for name in ("in", "mid", "out")}
    safetensors.torch.save_file(square, tmp_path / "net.safetensors")
    architecture = Architecture.mlp([3, 3, 3, 3], bias=False)
    refused(tmp_path / "net.safetensors", r"has no '0.weight', but", activation=None, architecture=architecture)


class Both(nn.Module):
    """A network that is a part of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = make_networks(2)


def test_a_part_of_a_network_is_said(tmp_path):
    both = Both()
    both.decoder = nn.Linear(2, 7)
    path = saved(tmp_path, both.state_dict())
    with pytest.warns(UserWarning, match=r"net.pt: 'encoder.' was taken, and not what else is there: 'decoder.weight'"):
        population = load_networks(path, module=make_networks(1)[0])
    assert population.provenance["left_out"] == {"net.pt": ["decoder.weight", "decoder.bias"]}


@pytest.mark.parametrize("name", ["norm.bias", "scale", "mean"])
def test_what_may_be_of_the_network_is_not_left_out(tmp_path, name):
    state = {**renamed(STATE, "mlp.{}".format), name: torch.ones(2)}
    refused(saved(tmp_path, state), rf"net.pt: .*what is '{name}', of shape \(2,\)")
    with pytest.warns(UserWarning, match=rf"'mlp.' was taken, and not what else is there: '{name}'"):
        load_networks(tmp_path / "net.pt", module=make_networks(1)[0])


def test_networks_that_may_be_stacked_along_two_axes(tmp_path):
    stack = {
        name: torch.arange(4.0 ** (tensor.ndim + 1)).reshape((4,) * (tensor.ndim + 1)) for name, tensor in STATE.items()
    }
    architecture = Architecture.mlp([4, 4, 4, 4], "tanh")
    path = saved(tmp_path, stack)
    with pytest.warns(UserWarning, match="several networks fit. '' was taken, and not 'stacked along axis -1'"):
        population = load_networks(path, architecture=architecture)
    np.testing.assert_array_equal(np.asarray(population.weights)[1, :16], stack["0.weight"][1].reshape(-1))


def test_many_files_are_not_open_at_once(tmp_path):
    resource = pytest.importorskip("resource")
    names = tuple(f"net_{i}.pt" for i in range(40))
    written(tmp_path, names, make_networks(40))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else limits[0] - 30
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, limits[1]))
    try:
        assert load_networks(tmp_path, activation="tanh").n_runs == 40
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_changed_byte_in_a_tensor_is_seen(tmp_path):
    content = bytearray(saved(tmp_path, STATE).read_bytes())
    place = content.find(STATE["2.weight"].numpy().tobytes())
    content[place + 1] ^= 1
    (tmp_path / "net.pt").write_bytes(content)
    refused(tmp_path / "net.pt", "no intact file of torch: 'net/data/2' is cut off or has changed")


def test_twins_that_follow_one_another_are_one_network(tmp_path):
    layers = {name: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)) for name in ("encoder", "decoder")}
    path = saved(tmp_path, nn.ModuleDict(layers).state_dict())
    assert load_networks(path, activation="tanh").weights.shape == (1, 80)


def test_different_networks_of_one_file_are_asked_for(tmp_path):
    shapes = {"generator": (4, 5, 3), "discriminator": (7, 5, 1)}
    nets = {k: nn.Sequential(nn.Linear(a, b), nn.Tanh(), nn.Linear(b, c)) for k, (a, b, c) in shapes.items()}
    path = saved(tmp_path, {name: net.state_dict() for name, net in nets.items()})
    refused(
        path,
        r"several networks, 'generator', 'discriminator', of different architectures. Choose one with key= \(--key\)",
    )
    for name, (a, b, c) in shapes.items():
        assert load_networks(path, activation="tanh", key=name).weights.shape == (1, (a + 1) * b + (b + 1) * c)


def test_keys_choose_among_networks(tmp_path):
    first, second = make_networks(2)
    path = saved(tmp_path, {"model": first.state_dict(), "ema": {"shadow": second.state_dict()}})
    with pytest.warns(
        UserWarning, match=r"'model.' was taken, and not 'ema.shadow.': key= \(--key\) chooses another one"
    ):
        population = load_networks(path, activation="tanh")
    assert population.provenance["not_taken"] == {"net.pt": ["ema.shadow."]}
    for key in ("ema", "ema.shadow", "ema.shadow."):
        chosen = load_networks(path, activation="tanh", key=key)
        expected = torch.cat([tensor.reshape(-1) for tensor in second.state_dict().values()]).numpy()
        np.testing.assert_array_equal(np.asarray(chosen.weights)[0], expected)
    refused(path, r"net.pt: there is nothing under the key 'swa', only under 'model', 'ema'", key="swa")


@pytest.mark.filterwarnings("default")
def test_the_command_line_says_what_was_taken(tmp_path):
    first, second = make_networks(2)
    path, out = saved(tmp_path, {"model": first.state_dict(), "ema": second.state_dict()}), tmp_path / "zoo.safetensors"
    arguments = ["import", str(path), "--activation", "tanh", "-o", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and "'model.' was taken, and not 'ema.'" in result.stderr
    out.unlink()
    result = CliRunner().invoke(main, [*arguments, "--key", "ema", "--json"])
    assert json.loads(result.stdout)["provenance"]["networks"] == ["net.pt"] and not result.stderr
    row = np.asarray(wsflow.load_population(out).weights)[0]
    assert row[0] == second.state_dict()["0.weight"][0, 0]


SNAPSHOTS = {
    "steps": ("net_epoch_1.pt", "net_epoch_20.pt"),
    "lightning": ("epoch=3-step=120.ckpt", "epoch=4-step=160.ckpt"),
    "losses": ("ckpt-001-0.53.pt", "ckpt-002-0.47.pt"),
    "folders": ("checkpoint-500/model.pt", "checkpoint-1000/model.pt"),
    "best and last": ("best.pt", "last.pt"),
    "best and final": ("mlp_best.pt", "mlp_final.pt"),
    "iterations": ("iter_100.pt", "iter_200.pt"),
    "a measure": ("epoch=1-val_loss=0.41.ckpt", "epoch=9-val_loss=0.2.ckpt"),
    "snapshots of a seed": ("seed_3_snapshot7.pt", "seed_3_snapshot8.pt"),
}


def written(folder: Path, names: tuple[str, ...], networks: list[nn.Sequential]) -> list[Path]:
    for name, net in zip(names, networks, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save(net.state_dict(), folder / name)
    return [folder / name for name in names]


@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_snapshots_of_one_run_are_said(tmp_path, kind):
    paths = written(tmp_path, SNAPSHOTS[kind], make_networks(2))
    with pytest.warns(
        UserWarning, match=r"are snapshots of one run by their names.*Splits by run would leak: pass runs="
    ):
        assert load_networks(paths, activation="tanh").weights.runs.tolist() == [0, 1]
    assert load_networks(paths, activation="tanh", runs=[0, 0]).n_runs == 1


@pytest.mark.parametrize(
    "names",
    [
        ("net_1.pt", "net_2.pt"),
        ("seed_1_best.pt", "seed_2_best.pt"),
        ("run_1/epoch_9.pt", "run_2/epoch_9.pt"),
        ("a/last.pt", "b/last.pt"),
        ("lr_0.1_epoch_5.pt", "lr_0.2_epoch_5.pt"),
        ("epoch_5_lr_0.1.pt", "epoch_5_lr_0.2.pt"),
        ("epoch=3-seed=1.ckpt", "epoch=3-seed=2.ckpt"),
        ("lr1e-3.pt", "lr1e-4.pt"),
        ("batch_32.pt", "batch_64.pt"),
        ("model_a.pt", "model_b.pt"),
    ],
)
def test_runs_of_their_own_are_not_warned_of(tmp_path, names):
    assert load_networks(written(tmp_path, names, make_networks(2)), activation="tanh").n_runs == 2


def test_files_that_hold_the_same_network_are_said(tmp_path):
    first, second = make_networks(2)
    paths = written(tmp_path, ("a.pt", "b.pt", "c.pt"), [first, second, first])
    message = r"a.pt and .*c.pt hold the same network, and count as runs of their own. Splits by run would leak"
    with pytest.warns(UserWarning, match=message):
        load_networks(paths, activation="tanh")
    load_networks(paths, activation="tanh", runs=[0, 1, 0])


@pytest.mark.filterwarnings("default")
def test_the_command_line_takes_runs(tmp_path):
    written(tmp_path, ("epoch_1.pt", "epoch_2.pt"), make_networks(2))
    arguments = ["import", str(tmp_path / "*.pt"), "--activation", "tanh", "-o", str(tmp_path / "zoo.safetensors")]
    result = CliRunner().invoke(main, [*arguments, "--runs", "0,0"])
    assert result.exit_code == 0 and not result.stderr and "of 1 runs" in result.stdout
    (tmp_path / "zoo.safetensors").unlink()
    result = CliRunner().invoke(main, [*arguments, "--runs", "7"])
    assert result.exit_code == 3 and "The runs of a WeightArray of 2 rows are 2 numbers" in result.stderr
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and "pass --runs" in result.stderr


@pytest.mark.parametrize("url", ["https://host.org/net.pt", "hf://org/model"])
def test_the_command_line_names_addresses(tmp_path, url):
    arguments = ["import", url, "--activation", "tanh", "-o", str(tmp_path / "zoo.safetensors")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3 and "this is a URL" in result.stderr


def test_steps_in_the_keys_of_a_file(tmp_path):
    path = saved(tmp_path, {f"step_{i}": net.state_dict() for i, net in zip((5, 50), make_networks(2), strict=True)})
    population = load_networks(path, activation="tanh")
    assert (population.weights.runs.tolist(), population.weights.steps.tolist()) == ([0, 0], [5, 50])
    assert population.provenance["networks"] == ["net.pt[step_5]", "net.pt[step_50]"]


SHARDS = {
    "a tensor that is not there": ({"weight_map": {"9.weight": "model.safetensors"}}, "is not in model.safetensors"),
    "a path": ({"weight_map": {"0.weight": "../net.pt"}}, "it names '../net.pt', and only files beside it"),
    "no table": ({"metadata": {}}, "no table 'weight_map'"),
    "numbers": ({"weight_map": {"0.weight": 3}}, "no table 'weight_map'"),
    "no file": ({"weight_map": {"0.weight": "other.safetensors"}}, "other.safetensors: there is no such file"),
}


@pytest.mark.parametrize("kind", SHARDS)
def test_indices_of_shards_that_lie(tmp_path, kind):
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    content, message = SHARDS[kind]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    refused(tmp_path / "model.safetensors.index.json", message)


def test_one_shard_is_no_network(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "model-00001-of-00003.safetensors")
    refused(tmp_path / "model-00001-of-00003.safetensors", "this is one of 3 files that hold one network together")


def test_layouts_have_names_of_their_own():
    from checkpoints import LAYOUTS

    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names) and all(isinstance(layout, Layout) for layout in LAYOUTS)


def test_the_page_lists_the_kinds_of_layouts():
    from checkpoints import LAYOUTS

    page = (Path(__file__).parent.parent / "docs" / "your_checkpoints.rst").read_text(encoding="utf-8")
    page = page.partition("\nZoos\n")[0]
    rows = [line.removeprefix("   * - ") for line in page.splitlines() if line.startswith("   * - ")]
    assert sorted(rows[1:]) == sorted({layout.kind for layout in LAYOUTS})
