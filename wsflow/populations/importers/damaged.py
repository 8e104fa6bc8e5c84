"""The one place where what goes wrong in reading a file becomes an error that names the file."""

from __future__ import annotations

import contextlib
import csv
import lzma
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from wsflow.exceptions import InvalidInputError
from wsflow.populations.file_kinds import other_than
from wsflow.populations.importers.unpickling import HarmfulError

SAVE = "Save a state_dict instead: torch.save(module.state_dict(), path)."
ARRAY = "an array alone, without names of layers. If its rows are networks, use WeightArray(rows, architecture)."
# of readers, which raise a ValueError themselves, and of zipfile, numpy, h5py and msgpack on damaged bytes
DAMAGE = (
    ValueError,  # UnicodeDecodeError, msgpack's exceptions and many more are ValueErrors
    OSError,
    EOFError,
    AssertionError,  # pyfive
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # NotImplementedError and RecursionError are RuntimeErrors
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    tarfile.TarError,
    csv.Error,
    lzma.LZMAError,
    zlib.error,
    struct.error,
)


@contextlib.contextmanager
def intact(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Turn what goes wrong in reading a file that should be this into an InvalidInputError with a remedy."""
    try:
        yield
    except InvalidInputError:
        raise
    except HarmfulError as error:
        raise InvalidInputError(
            f"{path}: it holds Python objects ({error}) that would run commands or take all memory where a pickle is "
            f"loaded. Nothing of it was run, and nothing is taken from it. {SAVE}"
        ) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise InvalidInputError(f"{path}: {other_than(path, what, 'intact ')}: {reason}. {remedy}") from error
