"""What a command writes: checked, against what it reads and what is there, before anything long is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from wsflow.cli.inputs import INDEX, Input
from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.memory import check_memory

FIGURES = (".png", ".pdf", ".svg")
# of populations and models; a name may have none
RESULTS = (".safetensors", ".st", "")
# of populations in shards too
NETWORKS = (*RESULTS, INDEX)
REMEDY = "Ask for fewer with -n, several times with different --seed."
LEAST = 2**20  # bytes that any file may take


class Output(click.ParamType):
    """What a command writes."""

    # what shells complete it with
    completed = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a path of the text, which must not stand for the standard output."""
        if str(value) == "-":
            raise OutputError(
                "-: files of wsflow are not written to the standard output. Give the path of a file; --json prints "
                "the result."
            )
        return Path(value)

    def files(self, path: Path) -> Iterator[Path]:
        """Yield the files that are written."""
        yield path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete the path."""
        return [CompletionItem(incomplete, type=self.completed)]

    def check(self, path: Path) -> None:
        """Refuse a path that cannot be written."""
        raise NotImplementedError


class OutputFile(Output):
    """A file whose name ends in one of some suffixes."""

    name = "file"

    def __init__(self, what: str, suffixes: tuple[str, ...]) -> None:
        self.what, self.suffixes = what, suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a path of the text, which must not be that of a folder."""
        if str(value).endswith(os.sep):
            example = f"{value}new{self.suffixes[0]}"
            raise OutputError(f"{value}: this is the path of a directory. Give the path of a file, such as {example}.")
        return super().convert(value, param, ctx)

    def check(self, path: Path) -> None:
        """Refuse another suffix, and a path that cannot be written."""
        from wsflow.writing import check_target

        check_target(path)
        suffix = INDEX if path.name.endswith(INDEX) else path.suffix.lower()
        if suffix not in self.suffixes:
            named = " or ".join(suffix for suffix in self.suffixes if suffix)
            raise OutputError(f"{path}: {self.what} ends in {named}. Give it such a name.")
        check_room(path, LEAST)


class OutputFolder(Output):
    """A folder, which is made if it is not there, for files of some names."""

    name = "folder"
    completed = "dir"

    def __init__(self, *names: str) -> None:
        self.names = names

    def files(self, path: Path) -> Iterator[Path]:
        """Yield the files in the folder that are written."""
        yield from (path / name for name in self.names)

    def check(self, path: Path) -> None:
        """Refuse a folder, or a file in it, that cannot be written."""
        from wsflow.writing import check_folder, check_target

        check_folder(path)
        for file in self.files(path):
            if path.exists():
                check_target(file)


class Command(click.Command):
    """A command that runs when what it writes can be written, and replaces nothing unless it is forced to."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        if any(isinstance(param.type, Output) for param in self.params):
            self.params.append(click.Option(["--force"], is_flag=True, help="Replace files that are there."))

    def invoke(self, ctx: click.Context) -> Any:
        """Check all outputs, and run."""
        force = ctx.params.pop("force", False)
        read = [(type_, value) for _, type_, value in _given(self.params, ctx.params, Input)]
        written = list(_given(self.params, ctx.params, Output))
        _refuse_inputs(written, read)
        _refuse_shared(written)
        for _, type_, path in written:
            type_.check(path)
            for file in type_.files(path):
                if os.path.lexists(file) and not force:
                    raise OutputError(
                        f"{file}: this file is there already. Replace it with --force, or give another path."
                    )
        return super().invoke(ctx)


def _given(
    params: Iterable[click.Parameter], values: Mapping[str, Any], kind: type[click.ParamType]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield names, types and values of the parameters of a kind that were given."""
    for param in params:
        value = values.get(param.name or "")
        if isinstance(param.type, kind) and value is not None:
            name = max(param.opts, key=len)
            yield from ((name, param.type, each) for each in (value if isinstance(value, tuple) else (value,)))


def _refuse_inputs(written: list[tuple[str, Any, Path]], read: list[tuple[Any, Any]]) -> None:
    for _, output, path in written:
        for file in output.files(path):
            if any(_same(file, other) for type_, value in read for other in type_.files(value)):
                raise OutputError(f"{file}: this file is read, and would be lost. Give another path to write to.")
            if taker := next((value for type_, value in read if type_.takes(value, file)), None):
                raise OutputError(
                    f"{file}: the next command that reads {taker} would read this file too. Give another path to write "
                    "to."
                )


def _refuse_shared(written: list[tuple[str, Any, Path]]) -> None:
    """Refuse two outputs that are the same file, or one of which is a folder with the other in it."""
    for (name, _, path), (other_name, other, other_path) in permutations(written, 2):
        if _same(path, other_path):
            raise OutputError(f"{path}: {name} and {other_name} are the same. Give one of them another path.")
        if isinstance(other, OutputFolder) and Path(os.path.realpath(path)).is_relative_to(
            os.path.realpath(other_path)
        ):
            raise OutputError(
                f"{path}: this is in the folder {other_path} of {other_name}, which is for files of its own. Give "
                f"{name} another path."
            )


def _same(path: Path, other: Path) -> bool:
    """Whether paths are of one file, by links of either kind too, or would be."""
    with suppress(OSError):
        if path.samefile(other):
            return True
    return os.path.realpath(path) == os.path.realpath(other)


def check_room(path: Path, n_bytes: int) -> None:
    """Refuse a file that does not fit on the disk."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise OutputError(
            f"{path}: it takes about {n_bytes / 2**20:,.0f} MiB, and the disk has {free / 2**20:,.0f} MiB left. Free "
            "some space, or give another path."
        )


def check_size(n: int, n_weights: int, *paths: Path | None) -> None:
    """Refuse a number of networks that does not fit into memory, or on the disk, before anything is allocated."""
    check_memory(f"{n} networks of {n_weights} weights", 8 * n * n_weights, REMEDY)
    for path in paths:
        if path is not None:
            check_room(path, 4 * n * n_weights)


def check_checkpoint(folder: Path | None, resume: bool) -> None:
    """Refuse to resume without a folder, and a folder with a checkpoint that is not to be resumed."""
    from wsflow.training.checkpoints import DESCRIPTION

    if folder is None and resume:
        raise InvalidInputError("There is nothing to resume without --checkpoint: give its folder.")
    if folder is not None and not resume and (folder / DESCRIPTION).exists():
        raise InvalidInputError(f"{folder}: there is a checkpoint already. Give --resume, or another folder.")


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib completely or not at all."""
    from wsflow.writing import write_bytes

    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=150)
    write_bytes(path, content.getvalue())
