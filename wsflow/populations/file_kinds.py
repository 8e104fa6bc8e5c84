"""What a file is by its first bytes, for errors about files that are something else than they should be."""

from __future__ import annotations

import re
from pathlib import Path

from wsflow.exceptions import InvalidInputError

HEAD = 512  # bytes that are looked at
URL = re.compile(r"^(https?|ftp|s3|gs|hf|file):/{1,2}", re.IGNORECASE)
PASS, UNPACK, IMPORT = (
    "Pass the file of the weights.",
    "Unpack it first.",
    "Make a population of it with load_networks.",
)
DATA = "Load the data with load_task, and train networks on them or pass the file of the weights."
CODE = "Pass the file of the weights; networks that this code makes are saved by torch.save(module.state_dict(), path)."
EMPTY = "an empty file", "Restore it from a copy."
JSON = "a JSON document"
OWN, SAFETENSORS = "a file of wsflow", "a safetensors file"

Rows = tuple[tuple[re.Pattern[bytes], str, str], ...]


def _rows(*rows: tuple[bytes, str, str]) -> Rows:
    return tuple((re.compile(pattern, re.DOTALL | re.IGNORECASE), what, remedy) for pattern, what, remedy in rows)


# the first bytes of a file that nothing here reads, what it is then, and what to do
FOREIGN = _rows(
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file itself", "Fetch it with: git lfs pull"),
    (rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<html)", "an HTML page", "Download the file itself."),
    (rb"\s*<\?xml|\s*<svg", "an XML document", PASS),
    (rb"\x89PNG\r\n", "a PNG image", PASS),
    (rb"\xff\xd8\xff", "a JPEG image", PASS),
    (rb"GIF8[79]a", "a GIF image", PASS),
    (rb"RIFF....WEBP", "a WebP image", PASS),
    (rb"II\*\x00|MM\x00\*", "a TIFF image", PASS),
    (rb"RIFF....(WAVE|AVI )|ID3[\x02-\x04]|OggS\x00|fLaC\x00|.{4}ftyp", "a sound or a film", PASS),
    (rb"%PDF-", "a PDF document", PASS),
    (rb"PK\x03\x04.{26}(\[Content_Types\]|_rels/|mimetype)", "an office document", PASS),
    (rb"\x1f\x8b\x08", "packed by gzip", UNPACK),
    (rb"\x28\xb5\x2f\xfd", "packed by zstd", UNPACK),
    (rb"BZh[1-9]1AY&SY", "packed by bzip2", UNPACK),
    (rb"\xfd7zXZ\x00", "packed by xz", UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (rb"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (rb".{257}ustar", "a tar archive", UNPACK),
    (rb"GGUF", "a GGUF file, whose weights are quantized", "Pass the weights from which it was made."),
    (rb"PAR1|ARROW1", "a table of Parquet or Arrow", "Write it as .csv or .npz."),
    (rb"MATLAB 5\.0 MAT-file", "a MATLAB file", "Write its arrays with numpy.savez."),
    (rb"\x7fELF|MZ\x90\x00|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe", "a program", PASS),
    (rb"SQLite format 3\x00", "an SQLite database", PASS),
)
# that of a file which some function here reads, or which is text
READ = _rows(
    (rb".{5}\x00{3}\{\"__metadata__\":\{\"wsflow\":", OWN, "Load it with load_population or load_model."),
    (rb".{5}\x00{3}\s*\{", SAFETENSORS, IMPORT),
    (rb"PK\x03\x04.{26}[^\x00/]+/(data\.pkl|version|byteorder|\.)", "a file of torch", IMPORT),
    (rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", "a file of torch", IMPORT),
    (rb"PK\x03\x04.{26}[^\x00]+?\.npy", "an npz file", IMPORT),
    (rb"PK\x03\x04.{26}(metadata|config)\.json", "an archive of Keras", IMPORT),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive", UNPACK),
    (rb"\x80[\x02-\x05]", "a pickle", IMPORT),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", IMPORT),
    (rb"\x93NUMPY", "an array of NumPy, without names", "Write numpy.savez(path, **state)."),
    (rb"\x08[\x03-\x0f]\x12", "an ONNX file", IMPORT),
)
TEXTS = _rows(
    (
        rb"#![^\n]*python|(.*\n)?(import\s+[\w., ]+\n|from\s+\S+\s+import\b|((async )?def|class)\s+\w+\s*[(:])",
        "Python source code",
        CODE,
    ),
    (rb"\s*[\[{]", JSON, PASS),
    (rb"[^\n,;\t]*([,;\t])(?! )[^\n]*\n[^\n]*\1", "a csv file", DATA),
    (rb"", "a text file", PASS),
)
# of texts that may begin in any way
SUFFIXES = {
    ".py": ("Python source code", CODE),
    ".csv": ("a csv file", DATA),
    ".nnet": ("an nnet file", IMPORT),
}


def foreign_kind(head: bytes) -> tuple[str, str] | None:
    """Return what a file is that begins with these bytes, and what to do, where nothing here reads such a file."""
    return _first(FOREIGN, head)


def kind_of(head: bytes, suffix: str = "") -> tuple[str, str] | None:
    """Return what a file of this suffix is that begins with these bytes, and what to do; None if that is not known."""
    if not head:
        return EMPTY
    found = foreign_kind(head) or _first(READ, head)
    if found or not _is_text(head[:HEAD]):
        return found
    return SUFFIXES.get(suffix.lower()) or _first(TEXTS, head)


def other_than(path: Path, expected: str, quality: str = "") -> str:
    """Say that a file is not what was expected, and what it is instead, as far as that is known."""
    kind = kind_of(head_of(path), path.suffix)
    if kind is None or expected in kind[0]:
        return f"this is no {quality}{expected}"
    return f"this is {kind[0]}, and no {quality}{expected}"


def head_of(path: Path) -> bytes:
    """Read the first bytes of a file."""
    check_path(path)
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise InvalidInputError(f"{path}: it cannot be read ({error.strerror or error}). Check the path.") from error


def check_path(path: Path) -> None:
    """Refuse a path that is no file."""
    if is_url(path):
        raise InvalidInputError(f"{path}: this is a URL, and only local files are read. Download it first.")
    try:
        is_folder, exists, is_file = path.is_dir(), path.exists(), path.is_file()
    except OSError as error:  # its name is too long, or a folder may not be entered
        raise InvalidInputError(f"{path}: it cannot be read ({error.strerror or error}). Check the path.") from error
    if is_folder:
        raise InvalidInputError(f"{path}: this is a folder, expected a file. Name a file in it.")
    if not exists:
        raise InvalidInputError(f"{path}: there is no such file. Check the path.")
    # asked before it is opened, because opening a pipe waits for its other end
    if not is_file:
        raise InvalidInputError(f"{path}: this is a device or a pipe, not a file. Write a file.")


def is_url(path: Path | str) -> bool:
    """Return whether a path is the address of something on a server (``Path`` drops one of its slashes)."""
    return bool(URL.match(str(path)))


def _first(rows: Rows, head: bytes) -> tuple[str, str] | None:
    return next(((what, remedy) for pattern, what, remedy in rows if pattern.match(head[:HEAD])), None)


def _is_text(head: bytes) -> bool:
    # a character may end beyond the head
    text = head.decode("utf-8", errors="ignore")
    intact = len(text.encode()) > len(head) - 4
    return intact and not any(c < " " and c not in "\t\n\r\f" for c in text)
