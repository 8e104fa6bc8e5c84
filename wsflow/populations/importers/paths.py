"""From a path, a folder, a pattern or a list of them to files, in the order in which people count."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from wsflow.exceptions import InvalidInputError


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """What sorts ``net_2`` before ``net_10``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of tuple

    Examples
    --------
    >>> from pathlib import Path
    >>> from wsflow.populations.importers.paths import natural_key
    >>> [p.name for p in sorted([Path("net_10.pt"), Path("net_2.pt")], key=natural_key)]
    ['net_2.pt', 'net_10.pt']
    """
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def network_files(sources: Iterable[str | Path], suffixes: Collection[str]) -> list[Path]:
    """The files that paths, folders and patterns stand for; those of a folder or a pattern are sorted naturally.

    Parameters
    ----------
    sources : iterable of str or Path
    suffixes : collection of str
        Of a folder's files, the others are left alone.

    Returns
    -------
    list of Path

    Raises
    ------
    InvalidInputError
        If there are none, or one is there twice.
    """
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
        found = [p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.is_dir()]
        what = f"no file ending in {', '.join(suffixes)} is in this folder"
    elif not path.exists() and glob.has_magic(str(path)):
        found = [p for p in map(Path, glob.glob(str(path), recursive=True)) if not p.is_dir()]
        what = "no file is of this pattern"
    else:
        return [path]
    if not found:
        raise InvalidInputError(f"{path}: {what}. Check the path.")
    return sorted(found, key=natural_key)
