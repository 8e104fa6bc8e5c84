"""The formats of network files: suffix -> what reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsflow.exceptions import InvalidInputError
from wsflow.populations.file_kinds import other_than
from wsflow.populations.importers.damaged import ARRAY, SAVE, intact
from wsflow.populations.importers.keras_files import read_hdf5, read_keras
from wsflow.populations.importers.leaves import Checkpoint
from wsflow.populations.importers.onnx_files import read_onnx
from wsflow.populations.importers.perceptrons import read_nnet
from wsflow.populations.importers.state_dict_files import (
    INDEX,
    read_index,
    read_msgpack,
    read_npz_state,
    read_safetensors,
)
from wsflow.populations.importers.torch_files import ZIP, read_pickle, read_torch
from wsflow.populations.readers import check_kind

COPY = "Restore it from a copy."
KERAS = "Save it again with model.save or model.save_weights."


@dataclass(frozen=True)
class Format:
    """A kind of file: the function that reads it, what it is called, and what to do where it is damaged.

    The function raises a ValueError, or what its parser raises, where a file is damaged.
    """

    read: Callable[[Path], Checkpoint]
    what: str
    remedy: str = COPY


_TORCH = Format(read_torch, "file of torch", SAVE)
_HDF5 = Format(read_hdf5, "HDF5 file", KERAS)
_PICKLE = Format(read_pickle, "pickle", SAVE)
_INDEX = Format(read_index, "index of shards")

TORCH = (".pt", ".pth", ".th", ".ckpt", ".bin", ".tar")

FORMATS: dict[str, Format] = {
    **dict.fromkeys(TORCH, _TORCH),
    ".safetensors": Format(read_safetensors, "safetensors file"),
    ".npz": Format(read_npz_state, "npz file", "Write it with numpy.savez."),
    ".nnet": Format(read_nnet, "nnet file"),
    ".onnx": Format(read_onnx, "ONNX file", "Export it again."),
    **dict.fromkeys((".h5", ".hdf5"), _HDF5),
    ".keras": Format(read_keras, "archive of Keras", KERAS),
    ".msgpack": Format(read_msgpack, "file of flax", "Write it with flax.serialization.to_bytes."),
    **dict.fromkeys((".pkl", ".pickle"), _PICKLE),
}
UNREAD = {
    ".joblib": "loading a file of joblib runs whatever is in it, so it is never loaded. Load it yourself if you trust "
    "it, and pass the fitted MLPClassifier or MLPRegressor, or save state dicts.",
    ".npy": f"this is {ARRAY}",
    ".zip": "this is an archive. Unpack it first.",
    ".index": "checkpoints of TensorFlow are not read. Save the weights with model.save_weights('x.weights.h5').",
    ".pb": "graphs of TensorFlow are not read. Save the weights with model.save_weights('x.weights.h5').",
    ".tflite": "models of TensorFlow Lite are not read: their weights are quantized. Save those of Keras.",
    ".gguf": "GGUF files are not read: their weights are quantized. Pass the weights from which it was made.",
}


def read_file(path: Path) -> Checkpoint:
    """Read the networks of a file by its suffix."""
    check_kind(path)
    suffix = path.suffix.lower()
    if suffix in UNREAD:
        raise InvalidInputError(f"{path}: {UNREAD[suffix]}")
    kind = _INDEX if path.name.endswith(INDEX) else _by_content(path) or FORMATS.get(suffix)
    if kind is None:
        raise InvalidInputError(
            f"{path}: {other_than(path, 'file of a network')}. Networks are read from files ending in "
            f"{', '.join(FORMATS)}. Convert it."
        )
    with intact(path, kind.what, kind.remedy):
        return kind.read(path)


def _by_content(path: Path) -> Format | None:
    """Return the format of a file whose first bytes are of another one than its suffix, but for kinds of zip archives.

    Keras has written HDF5 to files that end in ``.keras``, and weights are renamed from one suffix to another.
    """
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(b"\x89HDF"):
        return _HDF5
    if head.startswith(ZIP) and FORMATS.get(path.suffix.lower()) in (None, FORMATS[".safetensors"], _HDF5):
        return _TORCH
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size and path.suffix in TORCH:
        return FORMATS[".safetensors"]
    return None
