"""Mutations of files: of their bytes, and of what is inside them, with lengths and checksums that are right again.

A mutation is a function of the content, of another file's content, and of a generator of random numbers. What a reader
does with a mutated file is watched: its memory is bounded, and nothing that it might run or write is allowed.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import os
import signal
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import wsflow

KEY = "wsflow"
HEADROOM = 2**30  # bytes that a reader may take
LIMIT = 10.0  # seconds of the processor that it may take
HUGE = (2**31 - 1, 2**32, 2**62, 2**63, 2**64 - 1, 10**30, -(2**63))
# what takes the place of a value in JSON data
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 0.5, -0.0, 1e308, 1e-320, *HUGE),
    *("", "x", "a\x00b", "\ud800", "\n", "ü", "nan", "__class__", "0.weight", "../x", "9" * 5000),
    *([], {}, [[]], [None], [0], ["x"], {"": 0}, {"$array": "x"}, {"$object": {}}, {"$tuple": 0}, {"$float": []}),
    *({"$architecture": {}}, {"$task": {}, "tensors": 0}, [1] * 40, {"class": "str", "params": {}}),
)
Mutation = Callable[[bytes, bytes, np.random.Generator], bytes]


def flip(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change up to four bits."""
    changed = bytearray(content)
    for place in rng.integers(max(len(content), 1), size=rng.integers(1, 5)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def replace(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Put other bytes in the place of some."""
    place, length = int(rng.integers(len(content))), int(rng.integers(1, 9))
    return content[:place] + rng.bytes(length) + content[place + length :]


def truncate(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Leave out the end."""
    return content[: int(rng.integers(len(content)))]


def remove(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Leave out some bytes."""
    place, length = int(rng.integers(len(content))), int(rng.integers(1, 33))
    return content[:place] + content[place + length :]


def insert(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Put in some bytes."""
    place = int(rng.integers(len(content) + 1))
    return content[:place] + rng.bytes(int(rng.integers(1, 33))) + content[place:]


def splice(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Go on with another file."""
    return content[: int(rng.integers(len(content) + 1))] + other[int(rng.integers(len(other) + 1)) :]


def repeat(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Repeat a part."""
    start, stop = sorted(int(i) for i in rng.integers(len(content) + 1, size=2))
    stop = min(stop, start + 2**12)
    return content[:start] + content[start:stop] * int(rng.integers(2, 5)) + content[stop:]


def number(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Put a huge, negative or zero number of 1 to 8 bytes in the place of one, mostly near an end."""
    near = int(rng.integers(min(len(content), 128)))
    place = (near, len(content) - near - 1, int(rng.integers(len(content))))[int(rng.integers(3))]
    width = int(rng.choice([1, 2, 4, 8]))
    value = int(rng.choice([0, 1, 2, 2**31 - 1, 2**62])) if rng.integers(2) else -int(rng.integers(1, 3))
    return content[:place] + (value % 256**width).to_bytes(width, "little") + content[place + width :]


def digits(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Put another number in the place of one that is written in digits."""
    places = [i for i, byte in enumerate(content[: 2**14]) if chr(byte).isdigit()]
    if not places:
        return flip(content, other, rng)
    place = places[int(rng.integers(len(places)))]
    texts = ("-1", "0", "1e999", "nan", "9" * 25, "4294967296", ".", "", "1e-400")
    return content[:place] + texts[int(rng.integers(len(texts)))].encode() + content[place + 1 :]


BYTES: tuple[Mutation, ...] = (flip, replace, truncate, remove, insert, splice, repeat, number, digits)


def of_bytes(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One of the mutations of bytes."""
    return BYTES[int(rng.integers(len(BYTES)))](content, other, rng)


def of_data(data: Any, other: Any, rng: np.random.Generator) -> Any:
    """Change one to three places of JSON data: other values and types, parts of other data, missing or further keys."""
    mutated = copy.deepcopy(data)
    for _ in range(int(rng.integers(1, 4))):
        places = [place for place in _places(mutated) if place]
        if places:
            _change(mutated, places[_deep(rng, places)], other, rng)
    return mutated


def _deep(rng: np.random.Generator, places: list[Any]) -> int:
    """A place, the depths of which are equally likely: a long list deep inside is not most of the data."""
    depths = sorted({len(place) for place in places})
    depth = depths[int(rng.integers(len(depths)))]
    return int(rng.choice([i for i, place in enumerate(places) if len(place) == depth]))


def _places(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _places(value, (*place, key))


def _at(data: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        data = data[key]
    return data


def _change(data: Any, place: tuple[Any, ...], other: Any, rng: np.random.Generator) -> None:
    parent, key = _at(data, place[:-1]), place[-1]
    value = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    kind = int(rng.integers(6))
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[value if isinstance(value, str) else "further"] = parent[key]
    elif kind == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == 3:
        taken = list(_places(other))
        parent[key] = copy.deepcopy(_at(other, taken[int(rng.integers(len(taken)))]))
    elif kind == 4 and type(parent[key]) in (int, float):
        parent[key] = parent[key] + int(rng.integers(-2, 3))
    else:
        parent[key] = value


def unsealed(content: bytes) -> tuple[dict[str, np.ndarray], Any]:
    """The tensors and the JSON data of a file of wsflow."""
    from safetensors.numpy import load

    length = struct.unpack("<Q", content[:8])[0]
    return load(content), json.loads(json.loads(content[8 : 8 + length])["__metadata__"][KEY])


def sealed(tensors: dict[str, np.ndarray], data: Any) -> bytes:
    """A file of wsflow with these contents, whose lengths and checksum are right."""
    from safetensors.numpy import save

    from wsflow.persistence.format import checksum

    data = {**data, "checksum": checksum(tensors, data)} if isinstance(data, dict) else data
    return save(tensors, metadata={KEY: json.dumps(data, sort_keys=True)})


def of_metadata(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change the JSON data of a file of wsflow, at times its tensors, and seal it again."""
    tensors, data = unsealed(content)
    further, other_data = unsealed(other)
    if not tensors or not further or rng.integers(4):
        data = of_data(data, other_data, rng)
    else:
        tensors = _of_tensors(tensors, further, rng)
    try:
        return sealed(tensors, data)
    except (ValueError, TypeError, OSError):
        # not JSON, or not UTF-8
        return flip(content, other, rng)


def _of_tensors(
    tensors: dict[str, np.ndarray], other: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    names = sorted(tensors)
    name = names[int(rng.integers(len(names)))]
    array = tensors[name]
    changes: list[Callable[[], Any]] = [
        lambda: array[:-1] if array.ndim else array[None],
        lambda: array[None],
        lambda: array.reshape(-1),
        lambda: array.T.copy(),
        lambda: array.astype(["float64", "int64", "bool", "float16"][int(rng.integers(4))]),
        lambda: np.full_like(array, np.nan if array.dtype.kind == "f" else 1),
        lambda: np.full_like(array, 1e30 if array.dtype.kind == "f" else 0),
        lambda: -array if array.dtype.kind in "fi" else array,
        lambda: array[:0] if array.ndim else array,
        lambda: other[sorted(other)[int(rng.integers(len(other)))]],
    ]
    with np.errstate(all="ignore"):
        changed = np.ascontiguousarray(changes[int(rng.integers(len(changes)))]())
    renamed = "further" if not rng.integers(5) else name
    return {key: value for key, value in tensors.items() if rng.integers(8) or key != name} | {renamed: changed}


def of_json(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change the data of a JSON text."""
    changed = of_data(json.loads(content), json.loads(other), rng)
    return json.dumps(changed).encode()


def of_archive(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change a member of a zip archive, or its name; the checksums are right again."""
    if not all(zipfile.is_zipfile(io.BytesIO(c)) for c in (content, other)):
        return of_bytes(content, other, rng)
    members, further = _members(content), _members(other)
    place = int(rng.integers(len(members)))
    info, inside = members[place]
    kind = int(rng.integers(8))
    if kind == 0:
        members.pop(place)
    elif kind == 1:
        members[place] = zipfile.ZipInfo(further[int(rng.integers(len(further)))][0].filename), inside
    elif kind == 2:
        members[place] = info, further[int(rng.integers(len(further)))][1]
    else:
        members[place] = info, of_bytes(inside, inside, rng) if inside else b"x"
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in dict.fromkeys(info.filename for info, _ in members):
            info, inside = next(member for member in members if member[0].filename == name)
            archive.writestr(name, inside, info.compress_type)
    return written.getvalue()


def _members(content: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(info, _unchecked(archive, info)) for info in archive.infolist()]


def _unchecked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        file._expected_crc = None  # torch writes archives without checksums, too
        return file.read()


def of_zipped(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change what a gzip file holds."""
    inside, further = (gzip.decompress(c) for c in (content, other))
    return gzip.compress(of_bytes(inside, further, rng), 1)


CELLS = ("", "-1", "0", "nan", "inf", "1e999", "1e308", "9" * 400, "x", '"', "a,b", "ü", "\0", "//", "0x1", "1_0", "١")


def of_cells(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change one to three cells of a text of lines of cells: others, missing ones, further ones; or whole lines."""
    lines = [line.split(b",") for line in content.split(b"\n")]
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(lines)))
        line, cell = lines[place], int(rng.integers(len(lines[place])))
        changes: list[Callable[[], Any]] = [
            lambda line=line, cell=cell: line.__setitem__(cell, CELLS[int(rng.integers(len(CELLS)))].encode()),
            lambda line=line, cell=cell: line.insert(cell, line[cell]),
            lambda line=line, cell=cell: line.__setitem__(slice(cell, cell + 1), []) if line[1:] else None,
            lambda line=line, place=place: lines.insert(place, list(line)),
            lambda place=place: lines.pop(place) if lines[1:] else None,
        ]
        changes[int(rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1]))]()
    return b"\n".join(b",".join(line) for line in lines)


def of_graph(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change one to three fields of the messages of an ONNX file."""
    import onnx

    model = onnx.load_from_string(content)
    for _ in range(int(rng.integers(1, 4))):
        messages = list(_messages(model))
        message = messages[int(rng.integers(len(messages)))]
        fields = [field for field, _ in message.ListFields()]
        if fields and rng.integers(8):
            _change_field(message, fields[int(rng.integers(len(fields)))], messages, rng)
        elif fields:
            message.ClearField(fields[int(rng.integers(len(fields)))].name)
    return model.SerializeToString()


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if _repeated(field) else [value]:
                yield from _messages(inner)


def _repeated(field: Any) -> bool:
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def _change_field(message: Any, field: Any, messages: list[Any], rng: np.random.Generator) -> None:
    """Put another value in the place of one, or of an element of a list; lists may lose, repeat and gain elements."""
    value = getattr(message, field.name)
    place = int(rng.integers(max(len(value), 1))) if _repeated(field) else 0
    kind = int(rng.integers(3)) if _repeated(field) and len(value) else 3
    if kind == 0:
        del value[place]
    elif kind == 1:
        value.extend([value[place]])
    elif field.message_type is not None:
        same = [other for other in messages if field.message_type == other.DESCRIPTOR]
        (value[place] if _repeated(field) else value).CopyFrom(copy.deepcopy(same[int(rng.integers(len(same)))]))
    elif kind == 2:
        value[place] = _scalar(value[place], messages, rng)
    else:
        # of an enumeration, only its own members
        with contextlib.suppress(ValueError):
            setattr(message, field.name, _scalar(value, messages, rng))


def _scalar(value: Any, messages: list[Any], rng: np.random.Generator) -> Any:
    if isinstance(value, bytes):
        return of_bytes(value, value, rng) if value else b"x"
    if isinstance(value, str):
        names = [text for m in messages for _, text in m.ListFields() if isinstance(text, str)]
        return ("", "x", "Gemm", "MatMul", "Conv", "Transpose", *names)[int(rng.integers(6 + len(names)))]
    if isinstance(value, float):
        return float(rng.choice([0.0, -1.0, np.nan, np.inf, 1e38]))
    return int(rng.choice([0, 1, 2, 3, 5, 7, 8, 16, -1, 2**31 - 1 if value < 2**31 else 2**62]))


def mutated(originals: list[bytes], mutations: tuple[Mutation, ...], number: int) -> bytes:
    """The mutation of this number of one of the files."""
    rng = np.random.default_rng(number)
    first, second = (originals[int(i)] for i in rng.integers(len(originals), size=2))
    return mutations[int(rng.integers(len(mutations)))](first, second, rng)


FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "pickle.find_class", "ctypes.", "exec")
PACKAGE = str(Path(wsflow.__file__).parent)
ALLOWED = ("os.scandir", "os.listdir", "os.mkdir")
_watching: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    # a folder is opened so for a file without a name, which is gone with its last user
    writes = writes and not (isinstance(arguments[0], str) and os.path.isdir(arguments[0]))
    imports = event == "exec" and arguments[0].co_filename.startswith((sys.base_prefix, sys.prefix, PACKAGE))
    if writes or (event.startswith(FORBIDDEN) and event not in ALLOWED and not imports):
        _watching[-1].append(f"{event} {arguments!r:.200}")


class TooLongError(BaseException):
    """What ends a reader that takes too long; no reader can take it for a fault of the file."""


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Bound the memory and the time, and list what is run or written."""
    if _watch not in _installed:
        sys.addaudithook(_watch)
        _installed.append(_watch)
    events: list[str] = []
    start = time.process_time()
    with _bounded_memory(), _bounded_time():
        _watching.append(events)
        try:
            yield events
        finally:
            _watching.pop()
    # one long call of a library is not interrupted
    if time.process_time() - start > LIMIT:
        raise TooLongError


@contextlib.contextmanager
def _bounded_time() -> Iterator[None]:
    """Interrupt what takes longer than `LIMIT`, in seconds of this process, where the system can."""
    if not hasattr(signal, "ITIMER_VIRTUAL"):
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


_installed: list[Any] = []


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let this process take no more than `HEADROOM` beyond what it has, where the system can."""
    if not Path("/proc/self/statm").exists():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + HEADROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
