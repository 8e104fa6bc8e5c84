"""The formats of network files: suffix -> the function that reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.imported import ImportedNetworks
from wsflow.populations.importers.nnet import read_nnet
from wsflow.populations.importers.onnx_files import read_onnx
from wsflow.populations.importers.state_dict_files import read_npz_state, read_safetensors, read_torch
from wsflow.populations.readers import check_file

FORMATS: dict[str, Callable[[Path], ImportedNetworks]] = {
    ".pt": read_torch,
    ".pth": read_torch,
    ".th": read_torch,
    ".ckpt": read_torch,
    ".bin": read_torch,
    ".safetensors": read_safetensors,
    ".npz": read_npz_state,
    ".nnet": read_nnet,
    ".onnx": read_onnx,
}
PICKLES = (".pkl", ".pickle", ".joblib")


def read_file(path: Path) -> ImportedNetworks:
    """Read the networks of a file by its suffix."""
    check_file(path)
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise InvalidInputError(
            f"{path}: loading a pickle runs whatever is in it, so it is never loaded. Load it yourself if you trust "
            "it, and pass the fitted MLPClassifier or MLPRegressor, or save state dicts."
        )
    if suffix not in FORMATS:
        raise InvalidInputError(f"{path}: networks are read from files ending in {', '.join(FORMATS)}. Convert it.")
    return FORMATS[suffix](path)
