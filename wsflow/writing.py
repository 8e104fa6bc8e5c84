"""Writing a file completely or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsflow.exceptions import OutputError

TEMPORARY = re.compile(r"\.wsflow-[0-9a-f]{32}\.tmp")
ATTEMPTS = 3
FULL = (errno.ENOSPC, errno.EDQUOT)


def check_target(path: str | Path) -> Path:
    """Refuse a path that cannot or should not be written, such as a link, before any work is done for it."""
    path = Path(path)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return _checked_folder(path)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: {getattr(error, 'strerror', None) or error}. Give another path.") from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: this is a directory. Give the path of a file.")
    if stat.S_ISLNK(mode):
        raise OutputError(f"{path}: this is a symbolic link. Give the path of the file that it points to.")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path}: this is a device or a pipe, not a file. Give the path of a file.")
    # the mode, because access() allows everything to root
    if not mode & 0o222 or not os.access(path, os.W_OK):
        raise OutputError(f"{path}: the file is read-only. Give another path, or make it writable.")
    return _checked_folder(path)


def check_folder(folder: str | Path) -> Path:
    """Refuse a folder that can neither be written to nor be made."""
    folder = Path(folder)
    first = next((path for path in (folder, *folder.absolute().parents) if os.path.lexists(path)), folder)
    if not first.is_dir():
        raise OutputError(f"{folder}: {first} is not a folder. Give another folder.")
    if not os.access(first, os.W_OK):
        raise OutputError(f"{folder}: the folder {first} is read-only. Give another folder.")
    return folder


def _checked_folder(path: Path) -> Path:
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} is read-only. Give another path.")
    return path


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder, and rename it when it is complete."""
    path = check_target(path)
    try:
        remove_abandoned(path.parent)
        _replace(path, content)
        _sync_folder(path.parent)
    except OSError as error:
        remedy = " Free some space." if error.errno in FULL else ""
        reason = error.strerror or error
        raise OutputError(f"{path}: it could not be written ({reason}). Nothing was changed.{remedy}") from error


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of writers that were killed: a living writer has its file locked."""
    with suppress(PermissionError):  # a folder may be written to without being listed
        for name in filter(TEMPORARY.fullmatch, os.listdir(folder)):
            with suppress(OSError):
                _remove_unlocked(folder / name)


def _remove_unlocked(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            path.unlink()
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    for attempt in range(ATTEMPTS):
        # nobody can guess the name, and what has it already, be it a link, is not opened
        temporary = path.parent / f".wsflow-{secrets.token_hex(16)}.tmp"
        try:
            _write_and_rename(temporary, path, content)
            return
        except FileNotFoundError:
            # another writer took the file for abandoned: it was not locked yet, or machines do not share locks
            if attempt == ATTEMPTS - 1:
                raise


def _write_and_rename(temporary: Path, path: Path, content: bytes) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with open(descriptor, "wb") as file:
            _lock(descriptor)
            if mode is not None:
                os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
            # the lock ends when the file is closed
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        # some file systems have no locks: nothing is abandoned there
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL):
            raise


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Wait until no other process is here, where the file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems cannot sync a folder; the file itself is complete
    finally:
        os.close(descriptor)
