"""Checkpoints of a training: a folder with the weights of the chunks that are done, and what was trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.populations.hyperparameters import HYPERPARAMETERS
from wsflow.populations.settings import COUNTS, NUMBERS, TABLES
from wsflow.schema import (
    either,
    expect,
    list_of,
    mapping,
    nullable,
    number,
    one_of,
    record,
    row,
    shortened,
    text,
    whole,
)
from wsflow.writing import remove_abandoned, write_bytes

DESCRIPTION = "training.json"
KEY = "wsflow"
MENTIONED = 3
_RANGE = either(row(number, number), number)
# what is trained may have further fields, which are compared
TRAINING = record(
    {
        "hidden": nullable(list_of(whole(1))),
        "architecture": nullable(text),
        "activation": nullable(text),
        "activation_argument": nullable(number),
        "device": text,
        **{name: one_of(*table) for name, table in TABLES.items()},
        **{name: nullable(_RANGE) if known.optional else _RANGE for name, known in HYPERPARAMETERS.items()},
        **dict.fromkeys(COUNTS, whole(1)),
        # seeds may be of any size
        **dict.fromkeys(NUMBERS, expect("a whole number of at least 0", lambda v: type(v) is int and v >= 0)),
        "data": text,
        **dict.fromkeys(("targets", "initial", "networks"), nullable(text)),
        "versions": mapping(text),
    },
    further=True,
)


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one training; a file in it is complete, or is not there."""

    folder: Path
    fingerprint: str  # the SHA-256 of what is trained, which the file of each chunk repeats

    @classmethod
    def open(cls, folder: str | Path, description: Mapping[str, Any], resume: bool) -> Checkpoint:
        """Begin a checkpoint, or resume one, which must be of the same training: settings, data and versions."""
        folder = Path(folder)
        text = json.dumps(description, sort_keys=True, indent=1)
        checkpoint = cls(folder, hashlib.sha256(text.encode()).hexdigest())
        described = folder / DESCRIPTION
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder)
            # listed first: another process may begin, with its description, at any time
            chunks = next(folder.glob("chunk-*.safetensors"), None)
            before = described.read_bytes() if described.exists() else None
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror or error}. Give another folder.") from error
        if before is None and chunks is not None:
            raise InvalidInputError(f"{chunks}: no {DESCRIPTION} beside it says what was trained. Give another folder.")
        if before is None:
            write_bytes(described, text.encode())
        else:
            _check_same(folder, before, json.loads(text), resume)
        return checkpoint

    def load(self, index: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """Load the weights of a chunk; None if it is not done or its file is damaged, as it is trained again."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            content = self._path(index).read_bytes()
            weights = load(content)["weights"]
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        return weights if weights.shape == shape and self._pack(weights) == content else None

    def save(self, index: int, weights: np.ndarray) -> None:
        """Save the weights of a chunk, of shape (n, d)."""
        write_bytes(self._path(index), self._pack(weights))

    def _path(self, index: int) -> Path:
        return self.folder / f"chunk-{index:06d}.safetensors"

    def _pack(self, weights: np.ndarray) -> bytes:
        from safetensors.numpy import save

        checksum = hashlib.sha256(weights.tobytes()).hexdigest()
        content = json.dumps({"checksum": checksum, "training": self.fingerprint}, sort_keys=True)
        return save({"weights": weights}, metadata={KEY: content})


def _check_same(folder: Path, before: bytes, now: dict[str, Any], resume: bool) -> None:
    try:
        then = json.loads(before)
        TRAINING(then, "")
    except (ValueError, RecursionError) as error:
        what = str(error).rstrip(".")
        raise InvalidInputError(f"{folder / DESCRIPTION}: it is damaged ({what}). Give another folder.") from error
    if not resume:
        raise InvalidInputError(f"{folder}: there is a checkpoint already. Resume it, or give another folder.")
    differences = [
        f"{name!r} was {shortened(then.get(name))} and is {shortened(now.get(name))}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if differences:
        more = f" (and {len(differences) - MENTIONED} more)" if len(differences) > MENTIONED else ""
        raise InvalidInputError(
            f"{folder}: this checkpoint is of another training: {'; '.join(differences[:MENTIONED])}{more}. Resume it "
            "with what it was begun with, or give another folder."
        )
