"""What a file is by its first bytes, for errors about files that are something else than they should be."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = 512  # bytes that are looked at
URL = re.compile(r"^(https?|ftp|s3|gs|hf|file):/{1,2}", re.IGNORECASE)

# the first bytes of a file, what it is then, and what to do
KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what, remedy)
    for pattern, what, remedy in (
        (
            rb"version https://git-lfs",
            "a pointer of Git LFS, not the file itself",
            "Fetch it with: git lfs pull",
        ),
        (rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<html)", "an HTML page", "Download the file itself."),
        (rb"\s*<\?xml|\s*<svg", "an XML document", "Pass the file of the weights."),
        (rb"\x89PNG\r\n", "a PNG image", "Pass the file of the weights."),
        (rb"\xff\xd8\xff", "a JPEG image", "Pass the file of the weights."),
        (rb"GIF8[79]a", "a GIF image", "Pass the file of the weights."),
        (rb"RIFF....WEBP", "a WebP image", "Pass the file of the weights."),
        (rb"%PDF-", "a PDF document", "Pass the file of the weights."),
        (rb"\x1f\x8b\x08", "packed by gzip", "Unpack it first."),
        (rb"\x28\xb5\x2f\xfd", "packed by zstd", "Unpack it first."),
        (rb"BZh[1-9]1AY&SY", "packed by bzip2", "Unpack it first."),
        (rb"\xfd7zXZ\x00", "packed by xz", "Unpack it first."),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first."),
        (rb"Rar!\x1a\x07", "a RAR archive", "Unpack it first."),
        (rb".{257}ustar", "a tar archive", "Unpack it first."),
        (rb"GGUF", "a GGUF file, whose weights are quantized", "Pass the weights from which it was made."),
        (rb"\x7fELF", "a program", "Pass the file of the weights."),
        (rb"SQLite format 3\x00", "an SQLite database", "Pass the file of the weights."),
    )
)


def foreign_kind(head: bytes) -> tuple[str, str] | None:
    """Return what a file is that begins with these bytes, and what to do, or None if that is not known."""
    return next(((what, remedy) for pattern, what, remedy in KINDS if pattern.match(head[:HEAD])), None)


def is_url(path: Path | str) -> bool:
    """Return whether a path is the address of something on a server (``Path`` drops one of its slashes)."""
    return bool(URL.match(str(path)))
