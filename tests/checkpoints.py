"""Checkpoints as training tools write them: each layout writes networks into a folder, and says what to load."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import json
import pathlib
import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kernels
import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

WIDTHS = (4, 5, 3, 2)
State = dict[str, torch.Tensor]


def make_networks(n: int) -> list[nn.Sequential]:
    """Perceptrons with tanh, of which no two weights are equal."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [(nn.Linear(a, b), nn.Tanh()) for _ in range(n) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)]
    modules = [module for pair in layers for module in pair]
    return [nn.Sequential(*modules[6 * i : 6 * i + 5]) for i in range(n)]


@dataclass(frozen=True)
class Layout:
    """One layout: the kind of which it is one, how it is written, and what is said of it."""

    kind: str
    name: str
    write: Callable[[Path, Sequence[nn.Sequential]], Path]
    networks: int = 1  # how many of the networks are in it
    written: int = 1  # how many are needed to write it, those that are not taken last
    warns: str | None = None
    runs: tuple[int, ...] = (0,)
    needs: tuple[str, ...] = ()  # packages that write or read it

    def __str__(self) -> str:
        return self.name


LAYOUTS: list[Layout] = []
DECOY = 1  # the network that is written and not taken, behind the one that is


def layout(kind: str, **keywords: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what writes a layout; its name is that of the function."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        LAYOUTS.append(Layout(kind, function.__name__, function, **keywords))
        return function

    return register


def saved(folder: Path, content: Any, name: str = "net.pt", **keywords: Any) -> Path:
    """Write a file of torch."""
    torch.save(content, folder / name, **keywords)
    return folder / name


def renamed(state: State, rename: Callable[[str], str]) -> State:
    """The tensors under other names."""
    return {rename(name): tensor for name, tensor in state.items()}


PREFIX = "A prefix before all names"
for _prefix in (
    "net.",
    "ema_model.",
    "student.",
    "encoder.",
    "0.",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "backbone.mlp.",
    "policy.",
):

    def _write(folder: Path, nets: Sequence[nn.Sequential], prefix: str = _prefix) -> Path:
        return saved(folder, renamed(nets[0].state_dict(), lambda name: prefix + name))

    LAYOUTS.append(Layout(PREFIX, f"prefix {_prefix}", _write))

WRAPPERS = "Wrappers of torch"


@layout(WRAPPERS)
def data_parallel(folder, nets):
    return saved(folder, nn.DataParallel(nets[0]).state_dict())


@layout(WRAPPERS)
def distributed_data_parallel(folder, nets):
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        return saved(folder, nn.parallel.DistributedDataParallel(nets[0]).state_dict())
    finally:
        torch.distributed.destroy_process_group()


def compiled_module(module: nn.Module) -> nn.Module:
    """The module under torch.compile, without what its import warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.compile(module)


@layout(WRAPPERS)
def compiled(folder, nets):
    return saved(folder, compiled_module(nets[0]).state_dict())


@layout(WRAPPERS)
def compiled_layers(folder, nets):
    inside = nn.Sequential(*(compiled_module(layer) if isinstance(layer, nn.Linear) else layer for layer in nets[0]))
    assert "0._orig_mod.weight" in inside.state_dict()
    return saved(folder, inside.state_dict())


@layout(WRAPPERS)
def checkpointed_layers(folder, nets):
    rename = lambda name: name.replace(".", "._checkpoint_wrapped_module.")  # noqa: E731
    return saved(folder, renamed(nets[0].state_dict(), rename))


@layout(WRAPPERS)
def fully_sharded_and_compiled(folder, nets):
    rename = lambda name: "_orig_mod._fsdp_wrapped_module." + name.replace(".", "._fsdp_wrapped_module.")  # noqa: E731
    return saved(folder, renamed(nets[0].state_dict(), rename))


@layout(WRAPPERS)
def averaged_model(folder, nets):
    averaged = AveragedModel(nets[0])
    averaged.update_parameters(nets[0])
    assert "n_averaged" in averaged.state_dict()
    return saved(folder, averaged.state_dict())


@layout(WRAPPERS)
def data_parallel_part(folder, nets):
    return saved(folder, nn.ModuleDict({"body": nn.DataParallel(nets[0])}).state_dict())


BESIDE = "Further keys beside the network"


def lightning(state: State, net: nn.Module) -> dict[str, Any]:
    """What a trainer of Lightning saves."""
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": collections.OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_path": "a.ckpt", "best": torch.ones(())}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "width": 5},
    }


@layout(BESIDE)
def lightning_checkpoint(folder, nets):
    state = renamed({k: v.clone() for k, v in nets[0].state_dict().items()}, lambda name: "net." + name)
    more = {"loss.weight": torch.ones(2), "val_acc.tp": torch.zeros(2, dtype=torch.long)}
    return saved(folder, lightning({**state, **more}, make_networks(1)[0]), "last.ckpt")


@layout(BESIDE)
def metrics_beside_plain_names(folder, nets):
    more = {"train_metrics.mean": torch.ones(3), "loss_fn.weight": torch.ones(2), "epoch": 3, "note": "best so far"}
    return saved(folder, {**nets[0].state_dict(), **more})


@layout(BESIDE, written=2, warns=r"'student.' was taken, and not 'teacher.'")
def teacher_and_student(folder, nets):
    both = [
        renamed(net.state_dict(), (p + "{}").format)
        for p, net in zip(("teacher.", "student."), nets[::-1], strict=True)
    ]
    return saved(folder, {**both[0], **both[1]})


@layout(BESIDE, written=2, warns=r"'model.' was taken, and not 'ema_model.'")
def averaged_twin(folder, nets):
    both = [
        renamed(net.state_dict(), (p + "{}").format)
        for p, net in zip(("ema_model.", "model."), nets[::-1], strict=True)
    ]
    return saved(folder, {**both[0], **both[1], "ema_model.n_averaged": torch.tensor(3)})


@layout(BESIDE)
def optimizer_and_schedule(folder, nets):
    other = make_networks(1)[0]
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    state = {"model": nets[0].state_dict(), "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict()}
    return saved(folder, {**state, "rng_state": torch.get_rng_state(), "best_acc": torch.tensor(0.5)})


@layout(BESIDE, written=2, warns=r"'state_dict.' was taken, and not 'state_dict_ema.'")
def networks_of_timm(folder, nets):
    states = {"state_dict_ema": nets[1].state_dict(), "state_dict": nets[0].state_dict()}
    return saved(
        folder, {"epoch": 1, "arch": "mlp", "args": argparse.Namespace(lr=1), **states, "amp_scaler": {"scale": 1.0}}
    )


@layout(BESIDE)
def constants_of_the_data(folder, nets):
    return saved(folder, {"mean": torch.zeros(4), "std": torch.ones(4), "net": nets[0].state_dict()})


NESTED = "A nested dictionary"
for _key in ("state_dict", "model", "params", "weights", "ema", "generator", "model_ema", "agent"):

    def _write_nested(folder: Path, nets: Sequence[nn.Sequential], key: str = _key) -> Path:
        return saved(folder, {"epoch": 3, key: nets[0].state_dict(), "config": {"lr": 0.1}})

    LAYOUTS.append(Layout(NESTED, f"under {_key}", _write_nested))


@layout(NESTED)
def two_levels(folder, nets):
    return saved(
        folder, {"checkpoint": {"epoch": 1, "net": renamed(nets[0].state_dict(), lambda name: "module." + name)}}
    )


@layout(NESTED, written=2, warns=r"'state_dict.' was taken, and not 'model.'|'model.' was taken, and not 'state_dict.'")
def two_candidates(folder, nets):
    return saved(folder, {"model": nets[0].state_dict(), "state_dict": nets[1].state_dict()})


@layout(NESTED, written=2, warns=r"'last.' was taken, and not 'best.'")
def best_and_last(folder, nets):
    return saved(folder, {"best": nets[1].state_dict(), "last": nets[0].state_dict()})


SEVERAL = "Several networks in one file"


@layout(SEVERAL, networks=3, written=3, runs=(0, 1, 2))
def dictionary_of_seeds(folder, nets):
    return saved(folder, {f"seed_{i}": net.state_dict() for i, net in zip((2, 7, 11), nets, strict=True)})


@layout(SEVERAL, networks=3, written=3, runs=(0, 1, 2))
def dictionary_of_numbers(folder, nets):
    return saved(folder, {"results": {seed: {"net": net.state_dict(), "acc": 0.5} for seed, net in enumerate(nets)}})


@layout(SEVERAL, networks=3, written=3, runs=(0, 0, 0))
def list_of_state_dicts(folder, nets):
    return saved(folder, [net.state_dict() for net in nets])


@layout(SEVERAL, networks=3, written=3, runs=(0, 0, 0))
def dictionary_of_epochs(folder, nets):
    return saved(folder, {f"epoch_{i}": net.state_dict() for i, net in zip((1, 5, 10), nets, strict=True)})


@layout(SEVERAL, networks=3, written=3, runs=(0, 1, 2))
def stacked_first(folder, nets):
    return saved(folder, torch.func.stack_module_state(nets)[0])


@layout(SEVERAL, networks=3, written=3, runs=(0, 1, 2))
def stacked_last(folder, nets):
    stack = {name: torch.stack([net.state_dict()[name] for net in nets], -1) for name in nets[0].state_dict()}
    return saved(folder, {"params": stack})


@layout(SEVERAL, networks=3, written=3, runs=(0, 1, 2))
def stacked_second(folder, nets):
    return saved(folder, {k: torch.stack([net.state_dict()[k] for net in nets], 1) for k in nets[0].state_dict()})


@layout(SEVERAL, networks=3, written=3, runs=(0, 0, 0))
def list_of_steps_and_state_dicts(folder, nets):
    return saved(folder, {"history": [(10 * i, net.state_dict()) for i, net in enumerate(nets)]})


@layout(SEVERAL, networks=2, written=2, runs=(0, 1))
def ensemble_module(folder, nets):
    return saved(folder, nn.ModuleDict({"members": nn.ModuleList(nets)}).state_dict())


FOLDERS = "Shards, and folders with other files"


def shards(folder: Path, state: State, name: str, suffix: str, save: Callable[..., Any]) -> None:
    """What ``save_pretrained(max_shard_size=...)`` writes: shards and their index."""
    names = list(state)
    files = {key: f"{name}-{1 + (i >= 3):05d}-of-00002.{suffix}" for i, key in enumerate(names)}
    for file in set(files.values()):
        save({key: state[key] for key in names if files[key] == file}, folder / file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    (folder / f"{name}.{suffix}.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text('{"architectures": ["Net"]}')


@layout(FOLDERS)
def sharded_safetensors(folder, nets):
    shards(folder, nets[0].state_dict(), "model", "safetensors", safetensors.torch.save_file)
    return folder


@layout(FOLDERS)
def sharded_by_index(folder, nets):
    shards(folder, nets[0].state_dict(), "model", "safetensors", safetensors.torch.save_file)
    return folder / "model.safetensors.index.json"


@layout(FOLDERS)
def sharded_torch(folder, nets):
    shards(folder, nets[0].state_dict(), "pytorch_model", "bin", torch.save)
    return folder


@layout(FOLDERS)
def trainer_folder(folder, nets):
    safetensors.torch.save_file(nets[0].state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    optimizer = torch.optim.AdamW(nets[0].parameters())
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(), folder / "scheduler.pt")
    torch.save(argparse.Namespace(lr=0.1), folder / "training_args.bin")
    torch.save({"cpu": torch.get_rng_state()}, folder / "rng_state.pth")
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text("{}")
    return folder


@layout(FOLDERS)
def torch_under_the_name_of_safetensors(folder, nets):
    return saved(folder, nets[0].state_dict(), "net.safetensors")


@layout(FOLDERS)
def safetensors_under_the_name_of_torch(folder, nets):
    safetensors.torch.save_file(nets[0].state_dict(), folder / "pytorch_model.bin")
    return folder


@layout(FOLDERS)
def folder_of_deepspeed(folder, nets):
    torch.save({"module": nets[0].state_dict(), "ds_version": "0.15"}, folder / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {}}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    return folder


@layout(FOLDERS)
def folder_of_accelerate(folder, nets):
    safetensors.torch.save_file(nets[0].state_dict(), folder / "model.safetensors")
    for name in ("optimizer.bin", "scheduler.bin", "sampler.bin", "dl_state_dict.bin", "random_states_0.pkl"):
        saved(folder, {"step": 1}, name)
    saved(folder, {"step": torch.ones(())}, "custom_checkpoint_0.pkl")
    return folder


@layout(FOLDERS)
def step_of_deepspeed(folder, nets):
    saved(folder, {"optimizer_state_dict": {"groups": [torch.ones(9)]}}, "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    saved(folder, {"module": nets[0].state_dict(), "ds_version": "0.14", "lr_scheduler": None}, "mp_rank_00_model.pt")
    return folder


ORDER = "Other names than the architecture's"


def by_number(state: State, names: Sequence[str]) -> State:
    """The layers under other names."""
    layers = dict(zip(dict.fromkeys(name.split(".")[0] for name in state), names, strict=True))
    return renamed(state, lambda name: f"{layers[name.split('.')[0]]}.{name.split('.')[1]}")


@layout(ORDER)
def named_layers(folder, nets):
    return saved(folder, by_number(nets[0].state_dict(), ("fc_in", "hidden", "fc_out")))


@layout(ORDER)
def numbered_otherwise(folder, nets):
    return saved(folder, renamed(by_number(nets[0].state_dict(), ("fc1", "fc2", "fc10")), lambda name: "net." + name))


@layout(ORDER)
def numbered_without_an_order(folder, nets):
    state = by_number(nets[0].state_dict(), ("layers.2", "layers.9", "layers.10"))
    safetensors.torch.save_file(state, folder / "net.safetensors")
    return folder / "net.safetensors"


@layout(ORDER)
def arrays_with_slashes(folder, nets):
    np.savez(folder / "net.npz", **{f"mlp/{k.replace('.', '/')}": v.numpy() for k, v in nets[0].state_dict().items()})
    return folder / "net.npz"


@layout(ORDER)
def a_list_of_parameters(folder, nets):
    return saved(folder, list(nets[0].parameters()))


@layout(ORDER)
def weights_and_biases_with_numbers(folder, nets):
    pairs = zip((f"{kind}{i}" for i in (1, 2, 3) for kind in "Wb"), nets[0].state_dict().values(), strict=True)
    np.savez(folder / "net.npz", **{name: tensor.numpy() for name, tensor in pairs})
    return folder / "net.npz"


OBJECTS = "Other Python objects beside the tensors"


class Phase(enum.Enum):
    """An enumeration, as configurations have them."""

    TRAIN = "train"


@dataclass
class Settings:
    """A class of the user's own."""

    width: int
    where: pathlib.Path


Best = collections.namedtuple("Best", ["epoch", "loss"])


class Trainer:
    """A class of the user's own with the network in it."""

    def __init__(self, state: State) -> None:
        self.state_dict = state
        self.settings = Settings(5, pathlib.Path("runs"))


def with_object(state: State, value: Any) -> dict[str, Any]:
    """A checkpoint with an object."""
    return {"args": value, "state_dict": state, "epoch": 3}


for _name, _value in {
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs/1"), widths=[4, 5]),
    "path": pathlib.Path("runs") / "1",
    "numpy scalars": {"loss": np.float64(0.5), "step": np.int32(7), "history": np.arange(6.0).reshape(2, 3)},
    "date": datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
    "enumeration": Phase.TRAIN,
    "own class": Settings(5, pathlib.Path("runs")),
    "counter": collections.Counter({"a": 3}),
    "named tuple": Best(3, 0.5),
    "partial": functools.partial(np.add, 1),
    "function": np.tanh,
    "device": torch.device("cpu"),
    "nested defaults": collections.defaultdict(list, {"a": [1]}),
}.items():

    def _write_object(folder: Path, nets: Sequence[nn.Sequential], value: Any = _value) -> Path:
        return saved(folder, with_object(nets[0].state_dict(), value))

    LAYOUTS.append(Layout(OBJECTS, f"with {_name}", _write_object))


@layout(OBJECTS)
def whole_module(folder, nets):
    return saved(folder, nets[0])


@layout(OBJECTS)
def whole_module_in_a_checkpoint(folder, nets):
    return saved(folder, {"model": nn.DataParallel(nets[0]), "epoch": 3})


@layout(OBJECTS)
def whole_module_before_zip(folder, nets):
    return saved(folder, {"net": nets[0], "args": argparse.Namespace(lr=1)}, _use_new_zipfile_serialization=False)


@layout(OBJECTS)
def object_that_holds_the_network(folder, nets):
    return saved(folder, Trainer(nets[0].state_dict()))


class Labelled(torch.Tensor):
    """A subclass of tensors, as torchvision has them."""


@layout(OBJECTS)
def tensors_of_a_subclass(folder, nets):
    return saved(folder, {name: tensor.as_subclass(Labelled) for name, tensor in nets[0].state_dict().items()})


@layout(OBJECTS)
def parameters_with_attributes(folder, nets):
    state = {name: nn.Parameter(tensor) for name, tensor in nets[0].state_dict().items()}
    for parameter in state.values():
        parameter.sharded = Settings(5, pathlib.Path())
    return saved(folder, state)


class Buffered(nn.Module):
    """A module with buffers that are not saved with its state, and one that is None."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.register_buffer("positions", torch.ones(4, 4), persistent=False)
        self.register_parameter("scale", None)
        self.net = net


@layout(OBJECTS)
def whole_module_with_buffers(folder, nets):
    return saved(folder, Buffered(nets[0]))


@layout(OBJECTS)
def pickled_tensors(folder, nets):
    (folder / "net.pkl").write_bytes(pickle.dumps(with_object(nets[0].state_dict(), Settings(5, pathlib.Path()))))
    return folder / "net.pkl"


for _protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):

    def _write_pickle(folder: Path, nets: Sequence[nn.Sequential], protocol: int = _protocol) -> Path:
        arrays = {name: np.asfortranarray(tensor.numpy()) for name, tensor in nets[0].state_dict().items()}
        (folder / "net.pickle").write_bytes(pickle.dumps({"weights": arrays, "loss": np.float32(1)}, protocol))
        return folder / "net.pickle"

    LAYOUTS.append(Layout(OBJECTS, f"pickled arrays of protocol {_protocol}", _write_pickle))


@layout(OBJECTS)
def best_model_in_tar(folder, nets):
    content = {"epoch": 3, "arch": "mlp", "state_dict": nets[0].state_dict(), "args": argparse.Namespace(lr=0.1)}
    return saved(folder, content, "model_best.pth.tar")


@layout(OBJECTS)
def older_file_in_tar(folder, nets):
    return saved(folder, {"model": nets[0]}, "model.pth.tar", _use_new_zipfile_serialization=False)


@layout(OBJECTS)
def suffix_of_ones_own(folder, nets):
    return saved(folder, nets[0].state_dict(), "net.weights")


PRECISION = "Half precision and tensors that are views"


@layout(PRECISION)
def views_of_one_storage(folder, nets):
    flat = torch.cat([tensor.reshape(-1) for tensor in nets[0].state_dict().values()])
    pieces = flat.split([tensor.numel() for tensor in nets[0].state_dict().values()])
    state = {k: p.view_as(v) for (k, v), p in zip(nets[0].state_dict().items(), pieces, strict=True)}
    return saved(folder, state)


@layout(PRECISION)
def without_checksums(folder, nets):
    torch.serialization.set_crc32_options(False)
    try:
        return saved(folder, nets[0].state_dict())
    finally:
        torch.serialization.set_crc32_options(True)


@layout(PRECISION)
def transposed_storage(folder, nets):
    return saved(folder, {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in nets[0].state_dict().items()})


@layout(PRECISION)
def big_endian_arrays(folder, nets):
    np.savez(folder / "net.npz", **{k: v.numpy().astype(">f4") for k, v in nets[0].state_dict().items()})
    return folder / "net.npz"


KERNELS = "Kernels of Keras and flax"
NEEDS_HDF5 = ("h5py", "pyfive")


@layout(KERNELS, needs=NEEDS_HDF5)
def keras_archive(folder, nets):
    kernels.write_keras(folder / "net.keras", kernels.layers_of(list(nets[0]), kernels.KERAS))
    return folder / "net.keras"


@layout(KERNELS, needs=NEEDS_HDF5)
def keras_archive_with_own_names(folder, nets):
    layers = kernels.layers_of(list(nets[0]), kernels.KERAS)
    named = dict(zip(("wide", "narrow", "head"), layers.values(), strict=True))
    kernels.write_keras(folder / "net.keras", named)
    return folder / "net.keras"


@layout(KERNELS, needs=NEEDS_HDF5)
def keras_model_in_hdf5(folder, nets):
    kernels.write_keras_2(folder / "net.h5", kernels.layers_of(list(nets[0]), kernels.KERAS), suffix="")
    return folder / "net.h5"


@layout(KERNELS, needs=NEEDS_HDF5)
def hdf5_under_the_name_of_keras(folder, nets):
    kernels.write_keras_2(folder / "net.keras", kernels.layers_of(list(nets[0]), kernels.KERAS))
    return folder / "net.keras"


@layout(KERNELS, needs=NEEDS_HDF5)
def keras_2_weights(folder, nets):
    kernels.write_keras_2(folder / "net.hdf5", kernels.layers_of(list(nets[0]), kernels.KERAS), model=False)
    return folder / "net.hdf5"


@layout(KERNELS, needs=NEEDS_HDF5)
def keras_3_weights(folder, nets):
    layers = kernels.layers_of(list(nets[0]), kernels.KERAS)
    kernels.write_keras_3(folder / "net.weights.h5", layers, compression="gzip")
    return folder / "net.weights.h5"


@layout(KERNELS)
def keras_arrays_by_position(folder, nets):
    arrays = [a for layer in kernels.layers_of(list(nets[0]), kernels.KERAS).values() for a in layer.values()]
    np.savez(folder / "net.npz", *arrays)
    return folder / "net.npz"


@layout(KERNELS)
def pairs_of_weights_and_biases(folder, nets):
    pairs = [tuple(layer.values()) for layer in kernels.layers_of(list(nets[0]), kernels.KERAS).values()]
    (folder / "net.pkl").write_bytes(pickle.dumps(pairs))
    return folder / "net.pkl"


@layout(KERNELS)
def keras_arrays_in_a_pickle(folder, nets):
    arrays = [a for layer in kernels.layers_of(list(nets[0]), kernels.KERAS).values() for a in layer.values()]
    (folder / "net.pkl").write_bytes(pickle.dumps(arrays))
    return folder / "net.pkl"


def flax_variables(net: nn.Sequential) -> dict[str, Any]:
    """The variables of a perceptron in flax."""
    return kernels.variables(kernels.layers_of(list(net), kernels.FLAX))


@layout(KERNELS, needs=("msgpack",))
def flax_variables_in_msgpack(folder, nets):
    kernels.write_flax(folder / "net.msgpack", flax_variables(nets[0]))
    return folder / "net.msgpack"


@layout(KERNELS, needs=("msgpack",), written=2)
def flax_train_state(folder, nets):
    params = flax_variables(nets[0])["params"]
    moments = {"0": {"count": 3, "mu": flax_variables(nets[1])["params"], "nu": flax_variables(nets[1])["params"]}}
    kernels.write_flax(folder / "net.msgpack", {"step": 3, "params": params, "opt_state": moments})
    return folder / "net.msgpack"


@layout(KERNELS, needs=("msgpack",), networks=3, written=3, runs=(0, 1, 2))
def flax_ensemble_of_vmap(folder, nets):
    trees = [kernels.flat(flax_variables(net)) for net in nets]
    stack = {key.split("/")[1]: {} for key in trees[0]}
    for key in trees[0]:
        stack[key.split("/")[1]][key.split("/")[2]] = np.stack([tree[key] for tree in trees])
    kernels.write_flax(folder / "net.msgpack", {"params": stack})
    return folder / "net.msgpack"


@layout(KERNELS)
def flax_arrays_in_npz(folder, nets):
    np.savez(folder / "net.npz", **kernels.flat(flax_variables(nets[0])))
    return folder / "net.npz"


@layout(KERNELS)
def flax_parameters_in_a_pickle(folder, nets):
    (folder / "net.pkl").write_bytes(pickle.dumps(flax_variables(nets[0])))
    return folder / "net.pkl"
