"""State dicts in files of safetensors, alone or in shards, of NumPy, and of flax: dictionaries of arrays in msgpack.

References
----------
flax/serialization.py (the types of extensions).
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.damaged import intact
from wsflow.populations.importers.leaves import Checkpoint
from wsflow.populations.importers.stored import BFLOAT16, NUMBERS, StoredArray, StoredDtype
from wsflow.populations.importers.torch_files import read_torch
from wsflow.populations.readers import MAXIMUM_BYTES, check_kind, read_member

SHARD = re.compile(r"-\d{5}-of-(\d{5})\.(safetensors|bin|pt|pth)$")
INDEX = ".index.json"
ARRAY, SCALAR = 1, 3  # extensions of flax


def read_safetensors(path: Path) -> Checkpoint:
    """Read a state dict that safetensors wrote, which does not keep the order of layers."""
    shard = SHARD.search(path.name)
    if shard and int(shard.group(1)) > 1:
        raise InvalidInputError(
            f"{path}: by its name this is one of {int(shard.group(1))} files that hold one network together. Pass the "
            f"folder, or the index (model.safetensors{INDEX})."
        )
    state, metadata = _tensors(path)
    if "wsflow" in metadata:
        raise InvalidInputError(f"{path}: this is a file of wsflow. Load it with wsflow.load_population(path).")
    if not state:
        raise InvalidInputError(f"{path}: there is no tensor in this file. Save a state_dict with safetensors.")
    return Checkpoint(state, what="safetensors file", ordered=False)


def _tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    # read, not mapped: a file that is cut off while it is mapped kills the process
    data = path.read_bytes()
    try:
        state = load(data)
    except SafetensorError as error:
        raise ValueError(error) from error
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    return state, json.loads(header).get("__metadata__") or {}


def read_index(path: Path) -> Checkpoint:
    """Read the files of a network that lies in shards, from the index that names them."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict) and "shards" in content and "weight_map" not in content:
        raise InvalidInputError(
            f"{path}: this is a population of wsflow in shards. Load it with wsflow.load_population(path)."
        )
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(file, str) for file in table.values()):
        raise ValueError("it has no table 'weight_map' from names of tensors to names of files")
    shards = {file: _shard(path, file) for file in dict.fromkeys(table.values())}
    missing = [name for name, file in table.items() if name not in shards[file]]
    if missing:
        raise InvalidInputError(
            f"{path}: the tensor {missing[0]!r} is not in {table[missing[0]]}, where the index has it. Restore it."
        )
    return Checkpoint({name: shards[file][name] for name, file in table.items()}, what="shards", ordered=False)


def _shard(index: Path, file: str) -> dict[str, Any]:
    if Path(file).name != file or file in ("", ".", ".."):
        raise InvalidInputError(
            f"{index}: it names {file!r}, and only files beside it are read. Restore it from a copy."
        )
    path = index.parent / file
    check_kind(path)
    with intact(path, "shard", "Restore it from a copy."):
        tree = _tensors(path)[0] if path.suffix == ".safetensors" else read_torch(path).tree
        if not isinstance(tree, dict):
            raise ValueError("it holds no state dict")
        return tree


def read_npz_state(path: Path) -> Checkpoint:
    """Read what ``numpy.savez(path, **state)`` wrote."""
    with zipfile.ZipFile(path) as archive:
        names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        total = sum(info.file_size for info in archive.infolist())
        if total > MAXIMUM_BYTES or len(set(names)) < len(names):
            raise InvalidInputError(
                f"{path}: the file would unpack to {total} bytes (at most {MAXIMUM_BYTES} are read), or has an "
                "array twice. Write it with numpy.savez."
            )
        state = {name: read_member(path, archive, name) for name in names}
    if not state:
        raise InvalidInputError(f"{path}: there is no array in this file. Write it with numpy.savez(path, **state).")
    return Checkpoint(state, what="npz file")


def read_msgpack(path: Path) -> Checkpoint:
    """Read what ``flax.serialization.to_bytes`` or ``msgpack_serialize`` made, whose dictionaries have no order."""
    try:
        import msgpack
    except ImportError as error:
        raise InvalidInputError(f"{path}: files of flax need the msgpack package: pip install wsflow[flax].") from error
    tree = msgpack.unpackb(path.read_bytes(), ext_hook=_extension, raw=False, strict_map_key=False)
    return Checkpoint(tree, what="file of flax", ordered=False)


def _extension(code: int, data: bytes) -> Any:
    if code not in (ARRAY, SCALAR):
        return None
    import msgpack

    content = msgpack.unpackb(data, raw=True)
    if not isinstance(content, (list, tuple)) or len(content) != 3 or not isinstance(content[1], (bytes, str)):
        raise ValueError("an array in it is damaged")
    shape, name, numbers = content
    array = StoredArray()
    array.set(tuple(shape), _dtype(name), False, numbers)
    return array


def _dtype(name: bytes | str) -> StoredDtype:
    text = name.decode("ascii") if isinstance(name, bytes) else name
    if text == BFLOAT16:
        return StoredDtype(BFLOAT16)
    code = np.dtype(text).str
    return StoredDtype(code if NUMBERS.match(code) else "object")
