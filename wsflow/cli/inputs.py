"""The types of arguments that name files to be read: no command writes to one of these files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

# of a network or a population in shards
INDEX = ".index.json"


class Input(click.ParamType):
    """What a command reads, given as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take the text as it is."""
        return value

    def files(self, value: Any) -> Iterator[Path]:
        """Yield the files that are read."""
        raise NotImplementedError

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete the path."""
        return [CompletionItem(incomplete, type="file")]

    def takes(self, value: Any, path: Path) -> bool:
        """Whether a file would be read if it were there."""
        return False


class InputFile(Input):
    """A file."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a path of the text."""
        return Path(value)

    def files(self, value: Path) -> Iterator[Path]:
        """Yield the file, and the shards beside an index."""
        yield value
        if value.name.endswith(INDEX) and value.is_file():
            yield from filter(_is_network, value.parent.iterdir())


class TaskName(Input):
    """The name of a task, or a file of data, which has a suffix."""

    name = "text"

    def files(self, value: str) -> Iterator[Path]:
        """Yield the file of data."""
        if Path(value).suffix:
            yield Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names of tasks, and else paths."""
        from wsflow.populations.datasets import TASKS

        names = [CompletionItem(name) for name in TASKS if name.startswith(incomplete)]
        return names or super().shell_complete(ctx, param, incomplete)


class OwnCode(Input):
    """The user's own code, ``FILE.py:NAME``."""

    name = "text"

    def files(self, value: str) -> Iterator[Path]:
        """Yield the file before the colon."""
        yield Path(value.rpartition(":")[0])


class Networks(Input):
    """A file, a folder or a pattern of files of networks."""

    name = "path"

    def files(self, value: str) -> Iterator[Path]:
        """Yield the file, or the files of the folder or of the pattern, and the shards beside an index."""
        path = Path(value)
        named = [path] if path.exists() else list(map(Path, glob.iglob(value, recursive=True)))
        yield from (found for found in named if not found.is_dir())
        folders = {found.parent for found in named if found.name.endswith(INDEX)}
        for folder in {path} if path.is_dir() else folders:
            yield from filter(_is_network, folder.iterdir())

    def takes(self, value: str, path: Path) -> bool:
        """Whether a file of that name would be among those of the folder or the pattern."""
        if Path(value).is_dir():
            return _is_network(path) and os.path.realpath(path.parent) == os.path.realpath(value)
        return _matches(Path(os.path.abspath(path)).parts, Path(os.path.abspath(value)).parts)


def _is_network(path: Path) -> bool:
    from wsflow.populations.importers.formats import FORMATS

    return path.suffix.lower() in FORMATS


def _matches(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern or not path:
        return not path and set(pattern) <= {"**"}
    if pattern[0] == "**":
        return _matches(path, pattern[1:]) or _matches(path[1:], pattern)
    return fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
