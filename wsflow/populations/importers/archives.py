"""Networks in npz files: a name and an array for each tensor."""

from __future__ import annotations

import zipfile
from pathlib import Path

from wsflow.exceptions import InvalidInputError
from wsflow.populations.importers.imported import ImportedNetworks
from wsflow.populations.readers import MAXIMUM_BYTES, check_file, read_member


def read_npz(path: Path) -> ImportedNetworks:
    """Read a state dict that ``numpy.savez(path, **state)`` wrote."""
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            total = sum(info.file_size for info in archive.infolist())
            if total > MAXIMUM_BYTES or len(set(names)) < len(names):
                raise InvalidInputError(
                    f"{path}: the file would unpack to {total} bytes (at most {MAXIMUM_BYTES} are read), or has an "
                    "array twice. Write it with numpy.savez."
                )
            state = {name: read_member(path, archive, name) for name in names}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, MemoryError) as error:
        raise InvalidInputError(f"{path}: this is no npz file ({error}). Write it with numpy.savez.") from error
    if not state:
        raise InvalidInputError(f"{path}: there is no array in this file. Write it with numpy.savez(path, **state).")
    return ImportedNetworks((state,))
