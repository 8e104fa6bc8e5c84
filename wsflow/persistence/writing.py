"""Writing a file completely or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from wsflow.exceptions import OutputError


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


def _checked_folder(path: Path) -> Path:
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}. Make it first.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} is read-only. Give another path.")
    return path


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder, and rename it when it is complete."""
    path = check_target(path)
    temporary = path.parent / f".wsflow-{secrets.token_hex(8)}.tmp"
    try:
        _write(temporary, content, mode=stat.S_IMODE(path.stat().st_mode) if path.exists() else None)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: it could not be written ({reason}). Nothing was changed.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, content: bytes, mode: int | None) -> None:
    with open(path, "xb") as file:
        if mode is not None:
            os.chmod(path, mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems cannot sync a folder; the file itself is complete
    finally:
        os.close(descriptor)
