"""The files of paths, folders and patterns, sorted naturally."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from wsflow.exceptions import InvalidInputError


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
        files = [p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.is_dir()]
        what = f"no file ending in {', '.join(suffixes)} is in this folder"
    elif not path.exists() and glob.has_magic(str(path)):
        files = [p for p in map(Path, glob.glob(str(path), recursive=True)) if not p.is_dir()]
        what = "no file is of this pattern"
    else:
        return [path]
    if not files:
        raise InvalidInputError(f"{path}: {what}. Check the path.")
    return sorted(files, key=natural_key)
