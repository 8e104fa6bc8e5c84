"""wsflow info: what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command
from wsflow.cli.inputs import InputFile
from wsflow.cli.rendering import echo_json

MENTIONED = 12


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@options.common
def info(file: Path, seed: int, as_json: bool, quiet: bool) -> None:
    """What FILE holds: networks and their task, or a model and its settings.

    Nothing here is random and nothing takes long: --seed and -q are taken as by every command, and change nothing.

    \b
    Example:
      wsflow info zoo.safetensors
    """
    from wsflow.persistence import describe

    description = describe(file)
    if as_json:
        echo_json(description)
        return
    for line in _lines(description):
        click.echo(line)


def _lines(data: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}:")
            for item in value:
                lines += _lines(item, indent + "  ")
        else:
            lines.append(f"{indent}{key}: {_short(value)}")
    return lines


def _short(value: Any) -> str:
    """Format a value, or the beginning of a long list."""
    if not isinstance(value, list) or len(value) <= MENTIONED:
        return str(value)
    return f"[{', '.join(map(str, value[:3]))}, ... {len(value)} in all]"
