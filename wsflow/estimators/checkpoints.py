"""Checkpoints of a fit: what it depends on, and its seed, without which it could not be taken up to the bit."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn

from wsflow.architecture import Architecture
from wsflow.models.settings import FlowSettings
from wsflow.populations.population import versions
from wsflow.schema import expect, mapping, record, text
from wsflow.task import Task
from wsflow.training.checkpoints import CheckpointFolder

DESCRIPTION = record(
    {
        **{field.name: text for field in fields(FlowSettings)},
        **dict.fromkeys(("networks", "runs", "conditions", "start", "architecture"), text),
        "seed": expect("a whole number of at least 0", lambda v: type(v) is int and v >= 0),
        "versions": mapping(text),
    },
    further=True,
)


class FitCheckpoint(CheckpointFolder):
    """The folder of one fit, with the last state of each of its stages."""

    FILES = "stage-*.safetensors"

    @classmethod
    def begin(
        cls,
        folder: Any,
        settings: FlowSettings,
        architecture: Architecture | None,
        data: dict[str, Any],
        random_state: Any,
        generator: torch.Generator,
    ) -> FitCheckpoint:
        """Begin a checkpoint, or take one up, with the generator's seed as it was where no `random_state` says it."""
        if not isinstance(random_state, Integral) and (before := cls.described(folder, DESCRIPTION)) is not None:
            generator.manual_seed(before["seed"])
        described: dict[str, Any] = {field.name: _plain(getattr(settings, field.name)) for field in fields(settings)}
        described |= {name: _checksum(value) for name, value in data.items()}
        described["architecture"] = _checksum(None if architecture is None else architecture.to_json())
        described |= {"seed": generator.initial_seed(), "versions": versions("torch", "numpy")}
        return cls.open(folder, described, True, DESCRIPTION)


def _plain(value: Any) -> str:
    return value.checksum if isinstance(value, Task) else repr(value)


def _checksum(value: Any) -> str:
    """The SHA-256 of a text, an array or the weights of a module."""
    if value is None:
        return "none"
    if isinstance(value, nn.Module):
        value = np.concatenate([tensor.cpu().numpy().ravel() for tensor in value.state_dict().values()])
    array = None if isinstance(value, str) else np.asarray(value)
    if array is None or array.dtype.kind not in "biuf":
        return hashlib.sha256(repr(value if array is None else array.tolist()).encode()).hexdigest()
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
