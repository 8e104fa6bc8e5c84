"""Reading idx files, the format of MNIST, gzipped or not: a header and bytes.

Two zero bytes, the type (8: unsigned bytes), the number of axes, each axis' length in 4 bytes (big-endian), the values.

References
----------
LeCun, Cortes and Burges, "The MNIST database of handwritten digits", http://yann.lecun.com/exdb/mnist.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.readers import MAXIMUM_BYTES, MAXIMUM_RATIO, check_file

UNSIGNED_BYTES = 8


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_idx(path: Path, n_axes: int) -> np.ndarray:
    """Read the bytes of an idx file with 3 axes (images) or 1 (labels), unpacking no more than its header announces."""
    check_file(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _shape(path, file, n_axes)
            size = math.prod(shape)
            _check_size(path, size)
            content = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidInputError(f"{path}: this gzip file is damaged ({error}). Download it again.") from error
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror or error}.") from error
    if len(content) != size:
        count = "more" if len(content) > size else f"{len(content)}"
        raise InvalidInputError(
            f"{path}: the header announces {size} values of shape {shape}, but there are {count}. Download it again."
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _shape(path: Path, file: _Readable, n_axes: int) -> tuple[int, ...]:
    magic = file.read(4)
    if magic != bytes([0, 0, UNSIGNED_BYTES, n_axes]):
        raise InvalidInputError(
            f"{path}: this is no idx file of unsigned bytes with {n_axes} axes: it begins with {magic.hex(' ')!r} "
            f"instead of '00 00 08 {n_axes:02x}'."
        )
    lengths = file.read(4 * n_axes)
    if len(lengths) != 4 * n_axes:
        raise InvalidInputError(f"{path}: the file ends within its header. Download it again.")
    return tuple(int(length) for length in np.frombuffer(lengths, dtype=">u4"))


def _check_size(path: Path, size: int) -> None:
    packed = path.stat().st_size
    if size > MAXIMUM_BYTES or size > MAXIMUM_RATIO * packed:
        raise InvalidInputError(
            f"{path}: the header announces {size} bytes in a file of {packed}. At most {MAXIMUM_BYTES} bytes and a "
            f"factor of {MAXIMUM_RATIO} are read."
        )
