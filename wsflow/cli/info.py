"""wsflow info: what is in a file."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command
from wsflow.cli.inputs import InputFile
from wsflow.cli.rendering import Reporter

WIDTH = 100


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@click.option("--tensors", is_flag=True, help="List the tensors and their shapes too.")
@options.common
def info(file: Path, tensors: bool, seed: int, reporter: Reporter) -> None:
    """What FILE holds: networks and their task, or a model, to what it was fitted, and its settings.

    The date is that of the file; there is none in it. Nothing here is random and nothing takes long: --seed and -q are
    taken as by every command, and change nothing.

    \b
    Example:
      wsflow info zoo.safetensors
    """
    from wsflow.persistence import describe
    from wsflow.persistence.summary import short, summary, title

    description = describe(file)
    first = f"{description['path']}: {title(description)}"
    lines = [*_card(first, {**summary(description), **dict(_file(description))})]
    if tensors:
        lines += ["tensors:", *(f"  {name}: {short(shape)}" for name, shape in description["tensors"].items())]
    reporter.show(description, "\n".join(lines))


def _file(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    written = datetime.fromisoformat(data["written"])
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    shards = f" in {data['shards']} shard{'s' * (data['shards'] != 1)}" if "shards" in data else ""
    yield "file", f"{data['bytes']:,} bytes{shards}, {len(data['tensors'])} tensors (--tensors lists them)"
    yield "written", f"{written:%Y-%m-%d %H:%M} (by the file system), with {versions}"


def _card(title: str, rows: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of a card: a title, and below it the values of names."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    margin = max(map(len, rows)) + 4
    yield title
    for name, value in rows.items():
        lines = textwrap.wrap(value, width - margin, break_on_hyphens=False) or [""]
        yield f"  {name:<{margin - 2}}" + f"\n{' ' * margin}".join(lines)
