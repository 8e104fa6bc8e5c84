"""The safetensors format with one metadata key: written by the library, read by code of our own.

A file may come from anywhere and be damaged in any way, and safetensors' own reader maps the file into memory,
where a truncation kills the process. So this reader checks the header (its length before anything is allocated;
keys, dtypes and offsets without holes or overlaps; the exact length of the file), and copies the bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.mapped import chunks
from wsflow.persistence.constants import is_constant, put_apart, put_back, without_constants
from wsflow.populations.file_kinds import HEAD, OWN, SAFETENSORS, check_path, kind_of
from wsflow.schema import Check, anything
from wsflow.writing import check_target, write_bytes

FORMAT = 1
KEY = "wsflow"
KINDS = ("population", "model")
MAXIMUM_HEADER = 100_000_000
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip

Tensors = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
# from the tensors and the JSON data of a file to what it holds; an InvalidInputError where they do not make it
Decode = Callable[[Tensors, dict[str, Any]], object]


@dataclass(frozen=True)
class _Entry:
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """The JSON data, and the tensors' shapes and positions in the order of the file."""

    data: dict[str, Any]
    shapes: Shapes
    entries: tuple[_Entry, ...]


def write(
    path: str | Path,
    kind: str,
    tensors: Mapping[str, np.ndarray],
    data: Mapping[str, Any],
    decode: Decode = lambda tensors, data: data,
    schema: Check = anything,
) -> None:
    """Write tensors and JSON data, once they can be read and decoded; the same content gives the same bytes."""
    check_target(path)
    write_bytes(path, encode(path, kind, tensors, data, decode, schema)[0])


def encode(
    path: str | Path,
    kind: str,
    tensors: Mapping[str, np.ndarray],
    data: Mapping[str, Any],
    decode: Decode = lambda tensors, data: data,
    schema: Check = anything,
) -> tuple[bytes, str]:
    """Return the content of a file that can be read and decoded, and its checksum; a path is for errors alone."""
    content, constants = put_apart({**data, "kind": kind, "format": FORMAT})
    stored = {name: _storable(name, array) for name, array in {**tensors, **constants}.items()}
    content["checksum"] = checksum(stored, content)
    encoded = _encoded(stored, to_json(content), Path(path))
    _check_readable(encoded, stored, Path(path), kind, schema, decode)
    return encoded, content["checksum"]


def _encoded(tensors: Tensors, text: str, path: Path) -> bytes:
    from safetensors import SafetensorError
    from safetensors.numpy import save

    try:
        encoded: bytes = save(tensors, metadata={KEY: text})
    except (SafetensorError, UnicodeError) as error:
        raise InvalidInputError(f"{path}: nothing was written: {error}. Leave some of the provenance out.") from error
    return encoded


def _check_readable(encoded: bytes, tensors: Tensors, path: Path, kind: str, schema: Check, decode: Decode) -> None:
    """Refuse what could not be opened again."""
    try:
        header = _header(io.BytesIO(encoded), path)
        with decoding(path, kind):
            put_back(header.data, tensors)
            schema(header.data, "")
            decode(without_constants(tensors), header.data)
    except InvalidInputError as error:
        reason = str(error).removeprefix(f"{path}: ").removesuffix(" Restore it from a copy.")
        raise InvalidInputError(f"{path}: nothing was written, as it could not be read again: {reason}") from error


def read(
    path: str | Path, kind: str, schema: Check = anything, places: Mapping[str, np.ndarray] | None = None
) -> tuple[Tensors, dict[str, Any]]:
    """Read a file that `write` wrote, and check that not a bit of it has changed, and its data by their schema.

    Tensors that have a place, an array of their shape and dtype, are read into it, a few rows at a time.
    """
    path, places = Path(path), places or {}
    with _opened(path) as file:
        header = _header(file, path)
        check_kind(header, kind, path)
        tensors = {entry.name: _tensor(file, entry, path, places.get(entry.name)) for entry in header.entries}
    if header.data.get("checksum") != checksum(tensors, header.data):
        raise InvalidInputError(f"{path}: the file is damaged: its checksum differs. Restore it from a copy.")
    with decoding(path, kind):
        put_back(header.data, tensors)
        schema(header.data, "")
    return without_constants(tensors), header.data


def check_kind(header: Header, kind: str, path: Path) -> None:
    """Refuse a file that holds something else."""
    if header.data["kind"] != kind:
        raise InvalidInputError(
            f"{path}: this is a {header.data['kind']}, not a {kind}. Give the file of a {kind}, or load it "
            f"with load_{header.data['kind']}."
        )


def read_header(path: str | Path) -> Header:
    """Read the header of a file, and nothing else: large constants of programs are zero."""
    with _opened(Path(path)) as file:
        header = _header(file, Path(path))
    return _complete(header, Path(path))


def _complete(header: Header, path: Path) -> Header:
    """Put zeros in the places of large constants of programs."""
    with decoding(path, header.data["kind"]):
        put_back(header.data, {e.name: np.zeros(e.shape, e.dtype) for e in header.entries if is_constant(e.name)})
    return header


def header_of(content: bytes, path: Path) -> Header:
    """Read the header of the content of a file that `encode` returned."""
    return _complete(_header(io.BytesIO(content), path), path)


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Name the file in whatever error its content causes while it is decoded."""
    try:
        yield
    except KeyError as error:
        raise InvalidInputError(
            f"{path}: this {kind} has no {error}. Restore the file, or load it with the wsflow that saved it."
        ) from error
    except (ValueError, TypeError, IndexError, AttributeError, RuntimeError, MemoryError) as error:
        raise InvalidInputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def to_json(data: Any) -> str:
    """Encode JSON data with sorted keys, refusing everything else."""
    try:
        return json.dumps(data, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"Not everything can be saved as JSON ({error}). Use None, booleans, finite numbers, strings, lists and "
            "dicts with string keys."
        ) from error


def checksum(tensors: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> str:
    """Hash tensors (with names, shapes and dtypes) and the JSON data beside them, but for their own checksum."""
    digest = hashlib.sha256(to_json({k: v for k, v in data.items() if k != "checksum"}).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(to_json([name, array.dtype.str, list(array.shape)]).encode())
        for part in [...] if array.flags.c_contiguous or not array.ndim else chunks(len(array), array[:1].size):
            digest.update(np.ascontiguousarray(array[part]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.newbyteorder("<").str not in DTYPES.values():
        raise InvalidInputError(f"The array {name!r} of dtype {array.dtype} cannot be saved: only numbers can.")
    # not ascontiguousarray, which makes a vector of a number
    return np.array(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _opened(path: Path) -> IO[bytes]:
    check_path(path)
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidInputError(f"{path}: it cannot be read ({error.strerror or error}). Check the path.") from error


def _header(file: IO[bytes], path: Path) -> Header:
    try:
        content, length, size = _header_json(file)
        entries = _entries({k: v for k, v in content.items() if k != "__metadata__"}, size - length - 8)
        metadata = content.get("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are not strings")
    except (ValueError, RecursionError, OSError) as error:
        file.seek(0)
        if (kind := kind_of(file.read(HEAD), path.suffix)) is not None and kind[0] not in (OWN, SAFETENSORS):
            raise InvalidInputError(f"{path}: this is {kind[0]}, and no population or model. {kind[1]}") from error
        reason = str(error) or type(error).__name__
        raise InvalidInputError(
            f"{path}: this is no intact safetensors file: {reason}. Restore it from a copy."
        ) from error
    if KEY not in metadata:
        raise InvalidInputError(
            f"{path}: this safetensors file was not written by wsflow: its metadata have no key {KEY!r}. Make a "
            "population of it with load_networks."
        )
    return Header(_data(metadata[KEY], path), {e.name: e.shape for e in entries}, entries)


def _header_json(file: IO[bytes]) -> tuple[dict[str, Any], int, int]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size < 8:
        raise ValueError(f"it has {size} bytes, fewer than the 8 of the header's length")
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAXIMUM_HEADER):
        raise ValueError(f"its header is said to have {length} bytes, more than the file or the format allows")
    text = file.read(length)
    if len(text) < length:
        raise ValueError("it ends within its header")
    content = parse_json(text, "its header")
    if not isinstance(content, dict):
        raise ValueError("its header is not a JSON object")
    return content, length, size


def parse_json(content: bytes, what: str = "its content") -> Any:
    """Decode JSON data in which no key is there twice and every number is finite, or raise a ValueError about it."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} is not JSON ({error})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} is there twice")
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _entries(content: Mapping[str, Any], payload: int) -> tuple[_Entry, ...]:
    entries = sorted((_entry(name, value) for name, value in content.items()), key=lambda e: (e.start, e.stop))
    end = 0
    for entry in entries:
        if entry.start != end:
            raise ValueError(f"the tensor {entry.name!r} begins at byte {entry.start}, the one before ends at {end}")
        end = entry.stop
    if end != payload:
        raise ValueError(f"its tensors have {end} bytes, but {payload} follow the header")
    return tuple(entries)


def _entry(name: str, value: Any) -> _Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the tensor {name!r} is not described by dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"the tensor {name!r} has the dtype {code!r}, expected one of {', '.join(DTYPES)}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2 or len(shape) > 32:
        raise ValueError(f"the shape or the offsets of the tensor {name!r} are not natural numbers")
    dtype = np.dtype(DTYPES[code])
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the tensor {name!r} of shape {shape} and dtype {code} does not have its number of bytes")
    return _Entry(name, dtype, tuple(shape), *offsets)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _data(text: str, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        # JSON says one thing in several ways (\u00fc, \u00FC); the checksum is of the one that is written
        canonical = to_json(data) == text
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path}: its metadata are damaged ({error}). Restore it from a copy.") from error
    if not isinstance(data, dict) or type(data.get("format")) is not int or data.get("kind") not in KINDS:
        raise InvalidInputError(f"{path}: its metadata lack the format or the kind. Restore it from a copy.")
    if data["format"] > FORMAT:
        raise InvalidInputError(
            f"{path}: the file has format version {data['format']}, and this wsflow reads versions up to {FORMAT}. "
            "Install a newer wsflow."
        )
    if not canonical:
        raise InvalidInputError(f"{path}: its metadata are damaged. Restore it from a copy.")
    return data


def _tensor(file: IO[bytes], entry: _Entry, path: Path, place: np.ndarray | None) -> np.ndarray:
    if place is None:
        try:
            array = np.empty(entry.shape, dtype=entry.dtype)
        except MemoryError as error:
            raise InvalidInputError(f"{path}: its tensor {entry.name!r} does not fit into memory.") from error
        _fill(file, array, path)
        return array
    if (place.shape, place.dtype) != (entry.shape, entry.dtype):
        raise InvalidInputError(f"{path}: its tensor {entry.name!r} has changed. Is something writing to the file?")
    for part in chunks(len(place), place[:1].size):
        rows = np.empty((part.stop - part.start, *place.shape[1:]), dtype=place.dtype)
        _fill(file, rows, path)
        place[part] = rows
    return place


def _fill(file: IO[bytes], array: np.ndarray, path: Path) -> None:
    view = array.reshape(-1).view(np.uint8).data
    position = 0
    while position < len(view):
        count = file.readinto(view[position:])  # type: ignore[attr-defined]
        if not count:
            raise InvalidInputError(f"{path}: the file ended while it was read. Is something writing to it?")
        position += count
