"""The formats of network files: suffix -> the function that reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.imported import Checkpoint, ImportedNetwork
from wsflow.populations.importers.keras_files import read_hdf5, read_keras
from wsflow.populations.importers.msgpack_files import read_msgpack
from wsflow.populations.importers.nnet import read_nnet
from wsflow.populations.importers.onnx_files import read_onnx
from wsflow.populations.importers.state_dict_files import INDEX, read_index, read_npz_state, read_safetensors
from wsflow.populations.importers.torch_files import read_pickle, read_torch
from wsflow.populations.readers import check_kind

FORMATS: dict[str, Callable[[Path], ImportedNetwork | Checkpoint]] = {
    ".pt": read_torch,
    ".pth": read_torch,
    ".th": read_torch,
    ".ckpt": read_torch,
    ".bin": read_torch,
    ".safetensors": read_safetensors,
    ".npz": read_npz_state,
    ".nnet": read_nnet,
    ".onnx": read_onnx,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".keras": read_keras,
    ".msgpack": read_msgpack,
    ".pkl": read_pickle,
    ".pickle": read_pickle,
}
UNREAD = {
    ".joblib": "loading a file of joblib runs whatever is in it, so it is never loaded. Load it yourself if you trust "
    "it, and pass the fitted MLPClassifier or MLPRegressor, or save state dicts.",
    ".npy": "an array alone has no names. Write numpy.savez(path, **state).",
    ".index": "checkpoints of TensorFlow are not read. Save the weights with model.save_weights('x.weights.h5').",
    ".pb": "graphs of TensorFlow are not read. Save the weights with model.save_weights('x.weights.h5').",
    ".tflite": "models of TensorFlow Lite are not read: their weights are quantized. Save those of Keras.",
    ".gguf": "GGUF files are not read: their weights are quantized. Pass the weights from which it was made.",
}


def read_file(path: Path) -> ImportedNetwork | Checkpoint:
    """Read the networks of a file by its suffix."""
    check_kind(path)
    suffix = path.suffix.lower()
    if path.name.endswith(INDEX):
        return read_index(path)
    if suffix in UNREAD:
        raise InvalidInputError(f"{path}: {UNREAD[suffix]}")
    if suffix not in FORMATS:
        raise InvalidInputError(f"{path}: networks are read from files ending in {', '.join(FORMATS)}. Convert it.")
    return FORMATS[suffix](path)
