"""State dicts in files of torch, safetensors or NumPy, from which nothing but tensors is loaded."""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.imported import ImportedNetworks
from wsflow.populations.readers import MAXIMUM_BYTES, check_file, read_member

# the keys under which checkpoints keep the state dict, the first of which counts
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
READ_SIZE = 2**24
SAVE = "Save a state_dict instead: torch.save(module.state_dict(), path)."


def read_torch(path: Path) -> ImportedNetworks:
    """Read a state dict, or a list of them, that ``torch.save`` wrote, alone or within a checkpoint."""
    check_file(path)
    _check_archive(path)
    content, where = _unwrapped(_loaded(path))
    states = content if isinstance(content, (list, tuple)) and content else [content]
    for state in states:
        if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
            raise InvalidInputError(f"{path}: there is no state dict in this file, but {_what(state)}. {SAVE}")
        other = next((key for key, value in state.items() if not hasattr(value, "detach")), None)
        if other is not None:
            raise InvalidInputError(
                f"{path}: {other!r} is no tensor but {_what(state[other])}, and no key of {', '.join(WRAPPERS)} "
                f"holds a state dict. {SAVE}"
            )
    return ImportedNetworks(tuple(states), notes={"key": where} if where else {})


def _check_archive(path: Path) -> None:
    """Refuse compressed archives and large allocations, with which a small file could take all memory."""
    try:
        with path.open("rb") as file:
            packed = _packed(file)
            file.seek(0)
            # torch lets files make a bytearray of any size, and fills it with zeros at once
            huge = _mentions(file, b"bytearray")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InvalidInputError(f"{path}: this is no intact file of torch: {error}. {SAVE}") from error
    if packed is not None:
        raise InvalidInputError(
            f"{path}: {packed.filename!r} is compressed ({packed.compress_size} to {packed.file_size} bytes), "
            f"as torch never does. {SAVE}"
        )
    if huge:
        raise InvalidInputError(f"{path}: it holds Python objects (bytearray), and only tensors are loaded. {SAVE}")


def _packed(file: IO[bytes]) -> zipfile.ZipInfo | None:
    """Return the first compressed member, if torch would take the file for a zip archive."""
    if file.read(4) != b"PK\x03\x04":
        return None
    with zipfile.ZipFile(file) as archive:
        return next((info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED), None)


def _mentions(file: IO[bytes], word: bytes) -> bool:
    end = b""
    while block := file.read(READ_SIZE):
        if word in end + block:
            return True
        end = block[-len(word) :]
    return False


def _loaded(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # the message of torch goes on to advise what must not be done
        match = re.search(r"GLOBAL (\S+)|global (\S+)|class (\S+)", str(error))
        name = next((group for group in match.groups() if group), "") if match else ""
        reason = f"it holds Python objects ({name.strip('`.,')})" if name else "it is no state dict"
        raise InvalidInputError(
            f"{path}: {reason}. Loading those would run code, so nothing but tensors is loaded. {SAVE}"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if "TorchScript" in reason:
            reason = "it is a TorchScript archive"
        raise InvalidInputError(f"{path}: this is no intact file of torch: {reason}. {SAVE}") from error


def _unwrapped(content: Any) -> tuple[Any, str]:
    where: list[str] = []
    while isinstance(content, Mapping):
        holders = (Mapping, list, tuple)
        key = next((k for k in WRAPPERS if isinstance(content.get(k), holders) and content[k]), None)
        if key is None:
            break
        where, content = [*where, key], content[key]
    return content, ".".join(where)


def _what(value: Any) -> str:
    return "an empty dictionary" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"


def read_safetensors(path: Path) -> ImportedNetworks:
    """Read a state dict that safetensors wrote, which does not keep the order of layers."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_file(path)
    try:
        # read, not mapped: a file that is cut off while it is mapped kills the process
        data = path.read_bytes()
        state = load(data)
        metadata = _metadata(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise InvalidInputError(
            f"{path}: this is no intact safetensors file: {error}. Restore it from a copy."
        ) from error
    if "wsflow" in metadata:
        raise InvalidInputError(f"{path}: this is a file of wsflow. Load it with wsflow.load_population(path).")
    if not state:
        raise InvalidInputError(f"{path}: there is no tensor in this file. Save a state_dict with safetensors.")
    return ImportedNetworks((state,), ordered=False)


def _metadata(data: bytes) -> dict[str, str]:
    stream = io.BytesIO(data)
    length = int.from_bytes(stream.read(8), "little")
    return json.loads(stream.read(length)).get("__metadata__") or {}


def read_npz_state(path: Path) -> ImportedNetworks:
    """Read a state dict that ``numpy.savez(path, **state)`` wrote."""
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            total = sum(info.file_size for info in archive.infolist())
            if total > MAXIMUM_BYTES or len(set(names)) < len(names):
                raise InvalidInputError(
                    f"{path}: the file would unpack to {total} bytes (at most {MAXIMUM_BYTES} are read), or has an "
                    "array twice. Write it with numpy.savez."
                )
            state = {name: read_member(path, archive, name) for name in names}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, MemoryError) as error:
        raise InvalidInputError(f"{path}: this is no npz file ({error}). Write it with numpy.savez.") from error
    if not state:
        raise InvalidInputError(f"{path}: there is no array in this file. Write it with numpy.savez(path, **state).")
    return ImportedNetworks((state,))
