"""Archives of zoos, unpacked into a folder of their own: nothing is written outside of it, and no more than fits."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from wsflow.exceptions import InvalidInputError
from wsflow.populations.file_kinds import head_of, kind_of
from wsflow.populations.importers.damaged import intact
from wsflow.populations.readers import MAXIMUM_RATIO

MEMBERS = 2_000_000
HEADER = 2**20  # bytes between two members of a tar archive
CHUNK = 2**20
FREE = 0.9  # of the disk that may be filled
OPENERS: dict[str, Callable[[Path], Any]] = {
    ".tar": lambda path: path.open("rb"),
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
    ".tar.bz2": bz2.open,
}
ARCHIVES = (".zip", *OPENERS)
Members = Iterable[tuple[str, int, Callable[[], Any]]]


@contextlib.contextmanager
def unpacked(source: Any) -> Iterator[Any]:
    """Give the folder into which an archive was unpacked, which is there for so long; all else as it is.

    Raises
    ------
    InvalidInputError
        If a member lies outside of the archive or is no file, the archive would unpack to far more than it is or than
        the disk holds, or it is damaged. Errors name the archive in the place of the folder.
    """
    path = Path(source) if isinstance(source, (str, Path)) else None
    if path is None or not is_archive(path):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="wsflow-") as folder:
        with intact(path, "archive", "Restore it from a copy."):
            for name, size, file in _members(path, Path(folder)):
                _write(path, Path(folder), name, size, file)
        try:
            yield _root(Path(folder))
        except InvalidInputError as error:
            said = str(error).replace(folder, str(path)).replace("this folder", "this archive")
            raise InvalidInputError(said) from error


def is_archive(path: Path) -> bool:
    """Return whether a path is that of a tar or zip archive, and of no network that is kept in one."""
    if not path.name.lower().endswith(ARCHIVES) or not path.is_file():
        return False
    head = head_of(path)
    if path.name.lower().endswith(".zip"):
        return head.startswith(b"PK")
    kind = kind_of(head, path.suffix)
    return kind is not None and (kind[0].endswith(" archive") or kind[0].startswith("packed by"))


def _members(path: Path, folder: Path) -> Members:
    """Yield names, sizes and contents of the files, as long as they are few and small enough."""
    found = _of_zip(path) if path.name.lower().endswith(".zip") else _of_tar(path)
    most = min(MAXIMUM_RATIO * path.stat().st_size, int(FREE * shutil.disk_usage(folder).free))
    total = 0
    for count, (name, size, file) in enumerate(found):
        total += size
        if total > most or count >= MEMBERS:
            raise InvalidInputError(
                f"{path}: it would unpack to more than {most} bytes or {MEMBERS} files, which a factor of "
                f"{MAXIMUM_RATIO} or the disk allows. Unpack it yourself if you trust it, and pass the folder."
            )
        yield name, size, file


def _of_zip(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            # the type of a Unix file, if it was written there
            if (kind := info.external_attr >> 28) not in (0, 8):
                raise _no_file(path, info.filename, kind)
            yield info.filename, info.file_size, partial(archive.open, info)


def _of_tar(path: Path) -> Members:
    suffix = next(suffix for suffix in sorted(OPENERS, key=len, reverse=True) if path.name.lower().endswith(suffix))
    with OPENERS[suffix](path) as file:
        bounded = _Bounded(file)
        with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                if not (member.isdir() or member.isreg()):
                    raise _no_file(path, member.name, member.type)
                if member.isreg():
                    bounded.left = member.size + HEADER
                    yield member.name, member.size, partial(archive.extractfile, member)
                bounded.left = HEADER


class _Bounded:
    """A stream of which no more than a number of bytes may be read: headers of tar archives may be of any size."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, HEADER

    def read(self, n: int = -1) -> bytes:
        """Read bytes."""
        content = self.file.read(n)
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("a header is larger than headers are")
        return content


def _no_file(path: Path, name: str, kind: Any) -> InvalidInputError:
    return InvalidInputError(
        f"{path}: its member {name[:100]!r} is no file but a link or a device (type {kind!r}). Only files are unpacked."
    )


def _write(path: Path, folder: Path, name: str, size: int, file: Callable[[], Any]) -> None:
    """Write a member below a folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    inside = [part for part in parts if part != "."]
    if not inside or name.startswith("/") or ".." in inside or any(":" in part or "\0" in part for part in inside):
        raise InvalidInputError(
            f"{path}: its member {name[:100]!r} would lie outside of the folder. It is not unpacked: get it from "
            "someone you trust."
        )
    target = folder.joinpath(*inside)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise InvalidInputError(f"{path}: its member {name[:100]!r} is there twice. Restore it from a copy.")
    with file() as content, target.open("xb") as out:
        written = 0
        while chunk := content.read(CHUNK):
            written += len(chunk)
            if written > size:
                raise ValueError(f"its member {name[:100]!r} is larger than it says")
            out.write(chunk)


def _root(folder: Path) -> Path:
    """Return the folder in which an archive has all that it has."""
    inside = list(folder.iterdir())
    return _root(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder
