"""Reading the user's own data: a function and row for each format; bad files are refused before they are loaded.

Beside csv and npz files these are idx files, the format of MNIST, gzipped or not: two zero bytes, the type (8: unsigned
bytes), the number of axes, each axis' length in 4 bytes (big-endian), the values.

References
----------
LeCun, Cortes and Burges, "The MNIST database of handwritten digits", http://yann.lecun.com/exdb/mnist.
"""

from __future__ import annotations

import csv
import gzip
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Protocol

import numpy as np

from wsflow.exceptions import InvalidInputError
from wsflow.populations.file_kinds import check_path, foreign_kind, head_of, other_than

MAXIMUM_BYTES = 2 * 2**30
MAXIMUM_RATIO = 1000
UNSIGNED_BYTES = 8  # the type of values in idx files

Examples = tuple[np.ndarray, np.ndarray]


def read_csv(path: Path, target: str | int | None = None) -> Examples:
    """Read inputs (b, p) and targets (b,), numbers or strings, of a csv file, by default those of the last column."""
    check_kind(path)
    lines, rows = _csv_rows(path)
    widths = [len(row) for row in rows]
    ragged = next((i for i, width in enumerate(widths) if width != widths[0]), None)
    if ragged is not None:
        raise InvalidInputError(
            f"{path}: line {lines[ragged]} has {widths[ragged]} values, and line {lines[0]} has {widths[0]}. "
            "Give every line the same number."
        )
    header = rows[0] if _has_header(rows) else None
    if header is not None:
        lines, rows = lines[1:], rows[1:]
    if not rows or widths[0] < 2:
        raise InvalidInputError(f"{path}: a task needs examples of at least one input and one target, one a line.")
    column = _target_column(path, header, widths[0], target)
    inputs = [i for i in range(widths[0]) if i != column]
    names = header or [str(i) for i in range(widths[0])]
    X = [[_input(path, line, names[i], row[i]) for i in inputs] for line, row in zip(lines, rows, strict=True)]
    labels = [row[column] for row in rows]
    if "" in labels:
        raise InvalidInputError(f"{path}: line {lines[labels.index('')]} has no target. Fill it in or drop the line.")
    numbers = [_number(label) for label in labels]
    return np.array(X), np.array(labels if None in numbers else numbers)


def _csv_rows(path: Path) -> tuple[list[int], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
            pairs = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except (csv.Error, UnicodeError) as error:
        raise InvalidInputError(f"{path}: {other_than(path, 'csv file')} in UTF-8 ({error}).") from error
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror or error}.") from error
    if not pairs:
        raise InvalidInputError(f"{path}: the file is empty. Write one example a line, its target last.")
    return [line for line, _ in pairs], [row for _, row in pairs]


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    return len(rows) > 1 and any(
        a and _number(a) is None and _number(b) is not None for a, b in zip(rows[0], rows[1], strict=True)
    )


def _target_column(path: Path, header: Sequence[str] | None, width: int, target: str | int | None) -> int:
    if target is None:
        return width - 1
    if header is not None and str(target) in header:
        return list(header).index(str(target))
    try:
        return range(width)[int(target)]
    except (ValueError, IndexError) as error:
        known = ", ".join(header) if header else f"0 to {width - 1} (there is no header)"
        raise InvalidInputError(f"{path}: there is no column {target!r}. The columns are {known}.") from error


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _input(path: Path, line: int, name: str, cell: str) -> float:
    number = _number(cell)
    if number is None or not math.isfinite(number):
        raise InvalidInputError(
            f"{path}: line {line}, column {name}: {cell!r} is not a finite number. Inputs are numbers: "
            "encode, impute or drop the column or the line."
        )
    return number


def read_npz(path: Path, target: str | int | None = None) -> Examples:
    """Read inputs ``X`` (b, p) or (b, ...) and targets ``y`` (b,) or (b, k) of an npz file."""
    if target is not None:
        raise ValueError("'target' names a column of a csv file; the targets of an npz file are its array 'y'.")
    check_kind(path)
    try:
        with zipfile.ZipFile(path) as archive:
            X, y = (read_member(path, archive, name) for name in ("X", "y"))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InvalidInputError(
            f"{path}: {other_than(path, 'npz file')} ({error}). Write it with numpy.savez."
        ) from error
    if X.ndim < 2 or X.dtype.kind not in "fiub" or y.ndim not in (1, 2) or len(X) != len(y) or not X.size:
        raise InvalidInputError(
            f"{path}: 'X' is an array of numbers of shape (b, p) or (b, ...) and 'y' has b rows, got {X.dtype} "
            f"{X.shape} and {y.dtype} {y.shape}."
        )
    return X.astype(np.float64), y


def read_member(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array of an npz file, unless it would unpack to far too much or holds Python objects."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        names = ", ".join(sorted(n.removesuffix(".npy") for n in archive.namelist())[:5])
        raise InvalidInputError(f"{path}: there is no array {name!r}, only {names or 'nothing'}.") from error
    if info.file_size > MAXIMUM_BYTES or info.file_size > MAXIMUM_RATIO * max(info.compress_size, 1):
        raise InvalidInputError(
            f"{path}: the array {name!r} would unpack from {info.compress_size} to {info.file_size} bytes. "
            f"At most {MAXIMUM_BYTES} bytes and a factor of {MAXIMUM_RATIO} are read: write it with numpy.savez."
        )
    try:
        with archive.open(info) as file:
            _check_header(file, info.file_size)
        with archive.open(info) as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except ValueError as error:
        raise InvalidInputError(f"{path}: the array {name!r} cannot be read: {error}") from error


def _check_header(file: IO[bytes], size: int) -> None:
    formats: Any = np.lib.format
    first = formats.read_magic(file) == (1, 0)
    try:
        shape, _, dtype = (formats.read_array_header_1_0 if first else formats.read_array_header_2_0)(file)
    except (TokenError, SyntaxError, TypeError, LookupError, RecursionError) as error:
        # what NumPy's parser lets through, beside its own ValueErrors
        raise ValueError(f"its header is damaged ({error}).") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled. Save arrays of numbers or strings.")
    # the shape decides how much memory is taken, so a shape that lies is refused first
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"its shape {shape} does not go with its size of {size} bytes.")


def check_array_file(path: Path) -> None:
    """Refuse a .npy file of Python objects, or whose shape does not go with its size."""
    with path.open("rb") as file:
        _check_header(file, path.stat().st_size)


def check_file(path: Path) -> None:
    """Refuse a path that is no file, or a file that is too large."""
    check_path(path)
    size = path.stat().st_size
    if size > MAXIMUM_BYTES:
        raise InvalidInputError(f"{path}: the file has {size} bytes, and at most {MAXIMUM_BYTES} are read.")


def check_kind(path: Path) -> None:
    """Refuse what `check_file` refuses, and a file that is something else by its first bytes."""
    check_file(path)
    if (kind := foreign_kind(head_of(path))) is not None:
        raise InvalidInputError(f"{path}: this is {kind[0]}. {kind[1]}")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_idx(path: Path, n_axes: int) -> np.ndarray:
    """Read the bytes of an idx file with 3 axes (images) or 1 (labels), unpacking no more than its header announces."""
    check_file(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _shape(path, file, n_axes)
            size = math.prod(shape)
            packed = path.stat().st_size
            # an axis without entries makes nothing of the others, which NumPy multiplies all the same
            announced = math.prod(max(length, 1) for length in shape)
            if announced > min(MAXIMUM_BYTES, MAXIMUM_RATIO * packed):
                raise InvalidInputError(
                    f"{path}: the header announces {announced} bytes in a file of {packed}. At most "
                    f"{MAXIMUM_BYTES} bytes and a factor of {MAXIMUM_RATIO} are read."
                )
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


READERS: dict[str, Callable[[Path, str | int | None], Examples]] = {".csv": read_csv, ".npz": read_npz}
