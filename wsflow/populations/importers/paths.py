"""The files of paths, folders and patterns, sorted naturally, without what lies beside the networks in a folder."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from wsflow.exceptions import InvalidInputError
from wsflow.populations.file_kinds import is_url
from wsflow.populations.importers.state_dict_files import INDEX, SHARD

# what training writes beside the weights
BESIDE = re.compile(
    r"^(optim\w*|opt_state|\w*scheduler\w*|\w*scaler|\w*sampler\w*|train\w*_args|trainer_state|rng_state\w*|"
    r"random_states?\w*|dl_state_dict\w*|custom_checkpoint\w*|args|\w*config|hparams|\w*_optim_states)\.",
    re.IGNORECASE,
)
# folders in which other tools keep one network, by a file in them
TENSORFLOW = "Load it there, and save the weights with model.save_weights('x.weights.h5')."
ORBAX = "this is a checkpoint of orbax. Restore it, and write flax.serialization.to_bytes(params) to a .msgpack file."
FOREIGN_FOLDERS = {
    "*.distcp": "this is a checkpoint of torch.distributed in parts. Join them with "
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER net.pt.",
    "saved_model.pb": f"this is a SavedModel of TensorFlow. {TENSORFLOW}",
    "*.data-?????-of-?????": f"this is a checkpoint of TensorFlow. {TENSORFLOW}",
    **dict.fromkeys(("_CHECKPOINT_METADATA", "manifest.ocdbt", "*/manifest.ocdbt", "*/.zarray"), ORBAX),
    "adapter_config.json": "this is an adapter such as LoRA, which changes another network. Merge it into that one "
    "(merge_and_unload of peft), and save the whole.",
}
PICKLES = (".pkl", ".pickle")  # in a folder, what else is there has priority


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``net_2`` before ``net_10``."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def network_files(sources: Iterable[str | Path], suffixes: Collection[str]) -> list[Path]:
    """List the files of paths, folders (by suffix) and patterns, and refuse a file that is listed twice."""
    files = [path for source in sources for path in _files(Path(source), suffixes)]
    if not files:
        raise InvalidInputError("The list of files is empty: at least one network is needed.")
    seen: set[Path] = set()
    for path in files:
        if path.resolve() in seen:
            raise InvalidInputError(f"{path}: this file is there twice, and would count as two networks. Name it once.")
        seen.add(path.resolve())
    return files


def _files(path: Path, suffixes: Collection[str]) -> list[Path]:
    if path.is_dir():
        files = _of_folder(path, suffixes)
        what = _without_networks(path, suffixes) if not files else ""
    elif not path.exists() and glob.has_magic(str(path)) and not is_url(path):
        files = [p for p in map(Path, glob.glob(str(path), recursive=True)) if not p.is_dir()]
        what = "no file is of this pattern. Check the path."
    else:
        return [path]
    if not files:
        raise InvalidInputError(f"{path}: {what}")
    return sorted(files, key=natural_key)


def _of_folder(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the networks in a folder; of one in shards, the index."""
    for pattern, what in FOREIGN_FOLDERS.items():
        if any(folder.glob(pattern)):
            raise InvalidInputError(f"{folder}: {what}")
    files = [p for p in folder.iterdir() if not p.is_dir() and not BESIDE.match(p.name)]
    indices = [p for p in files if p.name.endswith(INDEX)]
    safe = [p for p in indices if ".safetensors" in p.name]
    found = [p for p in files if p.suffix.lower() in suffixes]
    if indices:
        found = [*(safe or indices), *(p for p in found if not SHARD.search(p.name))]
    return [p for p in found if p.suffix.lower() not in PICKLES] or found


def _without_networks(folder: Path, suffixes: Collection[str]) -> str:
    """Describe a folder in which there are no networks, but for those of folders in it."""
    below = sorted((p for p in folder.glob("*/*") if p.suffix.lower() in suffixes), key=natural_key)
    found = [p for p in below if not BESIDE.match(p.name)]
    if not found:
        return f"no file ending in {', '.join(suffixes)} is in this folder. Check the path."
    names = ", ".join(dict.fromkeys(repr(p.parent.name) for p in found[:5]))
    return (
        f"networks are not in this folder, but in folders of it ({names}). Pass one, or '{folder}/*/{found[0].name}'."
    )
