"""What was read from which file and what was done to it, as JSON data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsflow.populations.importers.choice import Choice
from wsflow.populations.importers.files import File
from wsflow.populations.population import versions

LISTED = 20


def provenance_of(files: Sequence[File], choices: Sequence[Choice], names: Sequence[str], fold: bool) -> dict[str, Any]:
    """Return the names of the networks, and by files the prefixes, further keys, precisions and notes."""
    short = _short([file.name for file in files])
    both = list(zip(short, files, choices, strict=True))
    done: dict[str, dict[str, Any]] = {
        "notes": {name: {**file.content.notes, **choice.notes} for name, file, choice in both},
        "normalization": {name: file.content.normalization for name, file, _ in both},
        "prefixes": {name: choice.prefix for name, _, choice in both},
        "not_taken": {name: list(choice.others) for name, _, choice in both},
        "left_out": {name: list(choice.left_out[:LISTED]) for name, _, choice in both},
        "cast_to_float32": {name: list(choice.cast) for name, _, choice in both},
    }
    kept = {key: {name: value for name, value in values.items() if value} for key, values in done.items()}
    return {
        "made_by": "load_networks",
        "networks": _short(names),
        **{key: values for key, values in kept.items() if values},
        **({"normalization_is": "folded, without clipping" if fold else "kept apart"} if kept["normalization"] else {}),
        "versions": versions("torch"),
    }


def _short(names: Sequence[str]) -> list[str]:
    """Return paths relative to the folder that all of them have in common, which others need not know."""
    folders = {str(Path(name).parent) for name in names}
    common = os.path.commonpath([os.path.abspath(folder) for folder in folders])
    return [Path(os.path.relpath(os.path.abspath(name), common)).as_posix() for name in names]
