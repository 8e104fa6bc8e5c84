"""Files of ``torch.save``, whose pickles are read inertly: zip archives, and the format before them.

References
----------
torch/serialization.py (both formats).
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.damaged import SAVE
from wsflow.populations.importers.leaves import Checkpoint
from wsflow.populations.importers.stored import FUNCTIONS, Storage, item_bytes, storage_dtype
from wsflow.populations.importers.unpickling import unpickle

SCRIPT = re.compile(r"^[^/]*/(constants\.pkl$|code/)")
ZIP, HEADER = b"PK\x03\x04", 30  # of each member, which ends with the lengths of two fields behind it
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAXIMUM_PICKLE = 2**28


def read_torch(path: Path) -> Checkpoint:
    """Read what ``torch.save`` wrote, or a plain pickle: tensors, and placeholders for all other objects."""
    with path.open("rb") as file:
        head = file.read(len(ZIP))
    content = _zip_content(path) if head == ZIP else legacy_content(io.BytesIO(path.read_bytes()))
    return Checkpoint(content, what="file of torch")


def read_pickle(path: Path) -> Checkpoint:
    """Read a pickle as `read_torch` does, with its arrays of NumPy."""
    return Checkpoint(read_torch(path).tree, what="pickle")


def _zip_content(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = _members(path, archive.infolist())
    root = next((name.removesuffix("data.pkl") for name in members if name.count("/") < 2 and _is_pickle(name)), None)
    if root is None:
        raise ValueError("it is a zip archive without a data.pkl")
    order = members.get(f"{root}byteorder")
    if order is not None and _member(path, order).strip() != b"little":
        raise ValueError("its numbers are big-endian, and only little-endian ones are read")
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        dtype, key, n_elements = _identity(identity)
        member = members.get(f"{root}data/{key}")
        if member is None:
            raise ValueError(f"the storage {key!r} is missing")
        if key not in storages:
            size = n_elements * item_bytes(dtype)
            if member.file_size != size:
                raise ValueError(f"the storage {key!r} has {member.file_size} bytes, and is said to have {size}")
            storages[key] = Storage(dtype, size, lambda: _member(path, member))
        return storages[key]

    return unpickle(io.BytesIO(_member(path, members[f"{root}data.pkl"])), _functions(), persistent)


def _member(path: Path, info: zipfile.ZipInfo) -> bytes:
    """Read a member, whose checksum is 0 where torch did not compute it."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(HEADER)
        if len(header) < HEADER or not header.startswith(ZIP):
            raise ValueError(f"{info.filename!r} is not where the archive has it")
        file.seek(sum(struct.unpack("<HH", header[-4:])), io.SEEK_CUR)
        content = file.read(info.file_size)
    if len(content) < info.file_size or (info.CRC and zlib.crc32(content) != info.CRC):
        raise ValueError(f"{info.filename!r} is cut off or has changed")
    return content


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or name.endswith("/data.pkl")


def _members(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name, and refuse archives that would unpack to more than they are."""
    if any(SCRIPT.search(info.filename) for info in infos):
        raise InvalidInputError(
            f"{path}: this is a TorchScript archive, a program with its weights. {SAVE.replace('module', 'script')}"
        )
    packed = next((info for info in infos if info.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise InvalidInputError(
            f"{path}: {packed.filename!r} is compressed ({packed.compress_size} to {packed.file_size} bytes), "
            f"as torch never does. {SAVE}"
        )
    members = {info.filename: info for info in infos}
    if len(members) < len(infos) or sum(info.file_size for info in infos) > path.stat().st_size:
        raise ValueError("its members overlap, or one is there twice")
    large = next((info for name, info in members.items() if _is_pickle(name) and info.file_size > MAXIMUM_PICKLE), None)
    if large is not None:
        raise ValueError(f"its pickle has {large.file_size} bytes, and at most {MAXIMUM_PICKLE} are read")
    return members


def _identity(identity: Any) -> tuple[str, str, int]:
    """Return the dtype, the key and the number of elements that a persistent id describes."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] not in ("storage", b"storage"):
        raise ValueError("it has a persistent id that is no storage")
    _, kind, key, _, n_elements, *view = identity
    if not isinstance(n_elements, int) or not 0 <= n_elements < 2**62 or not isinstance(key, (str, int)):
        raise ValueError("it has a storage whose size is no number")
    if any(value is not None for value in view):
        raise ValueError("it has storages that are views of others, as torch wrote before 0.4")
    return storage_dtype(kind), str(key), n_elements


def _functions(nested: bool = False) -> dict[str, Callable[..., Any]]:
    """Return what pickles may call; a storage within a plain pickle is a file of torch of its own."""

    def load_from_bytes(content: Any) -> Any:
        if nested or not isinstance(content, (bytes, bytearray)):
            raise ValueError("it has a storage that is no file of torch")
        return legacy_content(io.BytesIO(content), nested=True)

    return {**FUNCTIONS, "torch.storage._load_from_bytes": load_from_bytes}


def legacy_content(file: io.BytesIO, nested: bool = False) -> Any:
    """Return what is in a file before torch 1.6, where the storages follow the pickle, or in a plain pickle."""
    functions = _functions(nested)
    size = len(file.getbuffer())
    storages: dict[str, Storage] = {}
    places: dict[str, int] = {}

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and len(identity) > 1 and identity[0] in ("module", b"module"):
            return identity[1]  # a class, with the text of its source
        dtype, key, n_elements = _identity(identity)
        n_bytes = n_elements * item_bytes(dtype)
        if n_bytes > size:
            raise ValueError(f"the storage {key!r} is said to have {n_bytes} bytes, more than the file")
        read = lambda: file.getvalue()[places[key] : places[key] + n_bytes]  # noqa: E731
        return storages.setdefault(key, Storage(dtype, n_bytes, read))

    first = unpickle(file, functions)
    if first != LEGACY_MAGIC:
        return first
    if unpickle(file, functions) != LEGACY_PROTOCOL:
        raise ValueError(f"its protocol is not {LEGACY_PROTOCOL}")
    unpickle(file, functions)  # the byte order and sizes of the machine, which torch does not look at either
    content = unpickle(file, functions, persistent)
    keys = unpickle(file, functions)
    if not isinstance(keys, list) or {str(key) for key in keys} != set(storages):
        raise ValueError("its list of storages is not that of its tensors")
    for key in map(str, keys):
        _place(file, key, storages[key], places)
    return content


def _place(file: io.BytesIO, key: str, storage: Storage, places: dict[str, int]) -> None:
    head = file.read(8)
    if len(head) < 8:
        raise ValueError(f"it ends before the storage {key!r}")
    (n_elements,) = struct.unpack("<q", head)
    start = file.tell()
    stop = start + storage.n_bytes
    if n_elements * item_bytes(storage.dtype) != storage.n_bytes or stop > len(file.getbuffer()):
        raise ValueError(f"the storage {key!r} has another size than it is said to have, or is cut off")
    places[key] = start
    file.seek(stop)
