"""Checkpoints of the training of a population: the weights of the chunks that are done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.populations.hyperparameters import HYPERPARAMETERS
from wsflow.populations.settings import COUNTS, NUMBERS, TABLES
from wsflow.schema import either, expect, list_of, mapping, nullable, number, one_of, record, row, text, whole
from wsflow.training.checkpoints import CheckpointFolder
from wsflow.writing import write_bytes

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


class Checkpoint(CheckpointFolder):
    """The folder of one population, with the weights of the chunks that are done."""

    @classmethod
    def begin(cls, folder: str | Path, description: Mapping[str, Any], resume: bool) -> Checkpoint:
        """Begin a checkpoint, or resume one of the same settings, data and versions."""
        return cls.open(folder, description, resume, TRAINING)

    def load(self, index: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """Load the weights of a chunk; None if it is not done or its file is damaged, as it is trained again."""
        found = self.unpack(self._path(index))
        weights = None if found is None else found[0].get("weights")
        return weights.numpy() if weights is not None and tuple(weights.shape) == shape else None

    def save(self, index: int, weights: np.ndarray) -> None:
        """Save the weights of a chunk, of shape (n, d)."""
        write_bytes(self._path(index), self.pack({"weights": weights}))

    def _path(self, index: int) -> Path:
        return self.folder / f"chunk-{index:06d}.safetensors"
