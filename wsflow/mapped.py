"""Arrays that need not fit into memory: in chunks of rows, and in files that the system maps and can put away.

A mapped array lies in a file without a name: nothing else can change or cut it off while it is used, and it is gone
with the last array that shows it, however the process ends.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wsflow.exceptions import OutputError

# of the rows that are worked on at once: 32 MiB in double precision
CHUNK_NUMBERS = 2**22
# of rows that stand for all where statistics of a sample do
THINNED_NUMBERS = 2**24


class _Mapping(mmap.mmap):
    """The memory of a file in a folder, in which arrays that are made of this one are put too."""

    folder: Path


def chunks(n: int, width: int, numbers: int | None = None, multiple: int = 1) -> Iterator[slice]:
    """Yield slices of n rows of `width` numbers, of so many numbers together, or of the least multiple of rows."""
    size = multiple * max(1, (numbers or CHUNK_NUMBERS) // (max(1, width) * multiple))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def mapped(shape: tuple[int, ...], dtype: Any, folder: str | Path | None = None) -> np.ndarray:
    """Return an array of zeros in a file without a name.

    Parameters
    ----------
    folder : path, optional
        On whose disk it is, if it can be written to (default, and else: the folder for temporary files).

    Raises
    ------
    OutputError
        If the disk has no room for it.
    """
    n_bytes = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if not n_bytes:
        return np.zeros(shape, dtype)
    here = _writable(folder)
    try:
        with tempfile.TemporaryFile(dir=here) as file:
            _allocate(file.fileno(), n_bytes)
            memory = _Mapping(file.fileno(), n_bytes)
    except OSError as error:
        free = shutil.disk_usage(here).free / 2**20
        raise OutputError(
            f"{here}: an array of {n_bytes / 2**20:,.0f} MiB could not be put there while it is worked on "
            f"({error.strerror}), where {free:,.0f} MiB are free. Free some space."
        ) from error
    memory.folder = here
    return np.ndarray(shape, dtype, buffer=memory)


def empty_like(array: np.ndarray, shape: tuple[int, ...] | None = None, dtype: Any = None) -> np.ndarray:
    """Return an array of no particular values, mapped where another one is, of its shape and dtype by default."""
    shape, dtype = array.shape if shape is None else shape, dtype or array.dtype
    memory = _memory(array)
    is_large = int(np.prod(shape, dtype=object)) > CHUNK_NUMBERS
    return np.empty(shape, dtype) if memory is None or not is_large else mapped(shape, dtype, memory.folder)


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array shows memory of `mapped`."""
    return _memory(array) is not None


def taken(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the rows with these numbers, or where a mask is true, mapped where the array is and they are many."""
    numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
    result = empty_like(array, (len(numbers), *array.shape[1:]))
    for part in chunks(len(numbers), array[:1].size):
        result[part] = array[numbers[part]]
    return result


def thinned(rows: Any, numbers: int | None = None) -> Any:
    """Return every k-th row of an array or a Tensor (n, d): all of them, unless these are more than so many numbers."""
    return rows[:: max(1, -(-rows.shape[0] * rows.shape[1] // (numbers or THINNED_NUMBERS)))]


def finite_rows(array: np.ndarray) -> np.ndarray:
    """Return which rows (n,) of an array (n, d) have finite numbers only."""
    parts = [np.isfinite(array[part]).all(axis=1) for part in chunks(*array.shape)]
    return np.concatenate(parts) if parts else np.ones(0, dtype=bool)


def _memory(array: Any) -> _Mapping | None:
    while array is not None and not isinstance(array, _Mapping):
        array = getattr(array, "base", None)
    return array


def _allocate(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        # a disk that is full later would kill the process as it writes to the memory
        os.posix_fallocate(descriptor, 0, n_bytes)
    else:
        os.truncate(descriptor, n_bytes)


def _writable(folder: str | Path | None) -> Path:
    """Return a folder if a file can be made in it, and else that for temporary files."""
    if folder is not None:
        with suppress(OSError), tempfile.TemporaryFile(dir=folder):
            return Path(folder)
    return Path(tempfile.gettempdir())
