"""Names of parameters, groups, wires and layers: what a state dict, a file and a line of text can hold."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# control characters, halves of surrogate pairs, ends of lines and of paragraphs
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def check_names(what: str, names: Iterable[str]) -> None:
    """Refuse a name that is empty, has characters that cannot be printed, or is there twice."""
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"The name of a {what} is a string that is not empty, got {name!r}.")
        if any(unicodedata.category(character) in UNPRINTABLE for character in name):
            raise ValueError(
                f"The name of a {what} has no control characters and no ends of lines, got {name!r}. Rename it."
            )
        if name in seen:
            raise ValueError(f"The name {name!r} of a {what} is repeated: each {what} has a name of its own.")
        seen.add(name)
