"""A folder with what is trained, and files of what is done, each of which is complete or not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.schema import shortened
from wsflow.training.distributed import ALONE, Processes
from wsflow.training.state import TrainingState
from wsflow.writing import remove_abandoned, write_bytes

DESCRIPTION = "training.json"
KEY = "wsflow"
MENTIONED = 3


@dataclass(frozen=True)
class CheckpointFolder:
    """The folder of one training; `fingerprint`, the SHA-256 of what is trained, is repeated in each of its files."""

    folder: Path
    fingerprint: str
    # the names of its files
    FILES: ClassVar[str] = "chunk-*.safetensors"

    @classmethod
    def open(
        cls, folder: str | Path, description: Mapping[str, Any], resume: bool, check: Callable[[Any, str], object]
    ) -> Self:
        """Begin a checkpoint, or resume one, which must be of the same training: settings, data and versions.

        `check` raises a ValueError where a description that was read is none.
        """
        folder = Path(folder)
        text = json.dumps(description, sort_keys=True, indent=1)
        opened = cls(folder, hashlib.sha256(text.encode()).hexdigest())
        described = folder / DESCRIPTION
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder)
            # listed first: another process may begin, with its description, at any time
            done = next(folder.glob(cls.FILES), None)
            before = described.read_bytes() if described.exists() else None
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror or error}. Give another folder.") from error
        if before is None and done is not None:
            raise InvalidInputError(f"{done}: no {DESCRIPTION} beside it says what was trained. Give another folder.")
        if before is None:
            write_bytes(described, text.encode())
        else:
            _check_same(folder, _description(folder, before, check), json.loads(text), resume)
        return opened

    @classmethod
    def described(cls, folder: str | Path, check: Callable[[Any, str], object]) -> dict[str, Any] | None:
        """What a folder says was trained in it; None where it says nothing."""
        try:
            text = Path(folder, DESCRIPTION).read_bytes()
        except OSError:
            return None
        return _description(Path(folder), text, check)

    def pack(self, tensors: Mapping[str, Any], values: Mapping[str, Any] | None = None) -> bytes:
        """The content of a file: arrays or tensors, and values as JSON data, with their checksum."""
        arrays = {name: torch.as_tensor(value).detach().cpu().contiguous() for name, value in tensors.items()}
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(name.encode() + arrays[name].numpy().tobytes())
        text = json.dumps(values, sort_keys=True) if values is not None else None
        content = {"checksum": digest.hexdigest(), "training": self.fingerprint, "values": text}
        from safetensors.torch import save

        return save(arrays, metadata={KEY: json.dumps(content, sort_keys=True)})

    def unpack(self, path: Path) -> tuple[dict[str, Tensor], Any] | None:
        """The tensors and values of a file; None where it is not there, is damaged, or is of another training."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            content = path.read_bytes()
            tensors = load(content)
            size = int.from_bytes(content[:8], "little")
            text = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][KEY])["values"]
            values = None if text is None else json.loads(text)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError):
            return None
        return (tensors, values) if self.pack(tensors, values) == content else None


def _description(folder: Path, text: bytes, check: Callable[[Any, str], object]) -> dict[str, Any]:
    try:
        found = json.loads(text)
        check(found, "")
    except (ValueError, RecursionError) as error:
        what = str(error).rstrip(".")
        raise InvalidInputError(f"{folder / DESCRIPTION}: it is damaged ({what}). Give another folder.") from error
    return dict(found)


def _check_same(folder: Path, then: dict[str, Any], now: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise InvalidInputError(f"{folder}: there is a checkpoint already. Resume it, or give another folder.")
    then, now = _by_field(then), _by_field(now)
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


def _by_field(description: dict[str, Any]) -> dict[str, Any]:
    """Name what is in a mapping of its own, as the versions are, in dots."""
    fields: dict[str, Any] = {}
    for name, value in description.items():
        has_fields = isinstance(value, dict) and value
        fields |= {f"{name}.{key}": inner for key, inner in value.items()} if has_fields else {name: value}
    return fields


class Measuring(Protocol):
    """A loss that measures something at its first step, which later steps use."""

    measured: dict[str, float]


@dataclass(frozen=True)
class Stage:
    """The file of one stage of a training.

    Parameters
    ----------
    checkpoint : CheckpointFolder
    every : int
        Steps after which the training is put away; it is at its end in any case.
    name : str
    loss : Measuring, optional
    processes : Processes
        Those that train together, of which the first has the file.
    """

    checkpoint: CheckpointFolder
    every: int
    name: str
    loss: Measuring | None = None
    processes: Processes = ALONE

    def save(self, state: TrainingState) -> None:
        """Put a training away, where it is time."""
        if not self.processes.is_first or (not state.is_done and state.step % self.every):
            return
        values = state.values() | {"measured": {} if self.loss is None else self.loss.measured}
        write_bytes(self._path, self.checkpoint.pack(state.tensors(), values))

    def restore(self, state: TrainingState) -> None:
        """Take a training up where it was put away last; where it was not, or its file is damaged, it begins anew."""
        found = self.processes.on_first(lambda: self.checkpoint.unpack(self._path))
        if found is None:
            return
        tensors, values = found
        state.restore(tensors, values)
        if self.loss is not None:
            self.loss.measured.update(values["measured"])

    @property
    def _path(self) -> Path:
        return self.checkpoint.folder / f"stage-{self.name}.safetensors"
