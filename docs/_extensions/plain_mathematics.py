"""Lets docstrings say |x| and (n, *shape): these are norms and shapes, not markup of reStructuredText."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.*?``|`.*?`)")
BAR = re.compile(r"(?<!\\)\|")
LONE_STAR = re.compile(r"(?<![\w*\\])\*(?=\w)(?![^*]*\*)")


def escaped(line: str) -> str:
    """A line of text whose bars and lone stars stand for themselves, outside of literals."""
    parts = LITERAL.split(line)
    return "".join(part if i % 2 else LONE_STAR.sub(r"\\*", BAR.sub(r"\\|", part)) for i, part in enumerate(parts))


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape all lines that are not part of an example."""
    example = False
    for i, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            lines[i] = escaped(line)


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the methods by which scikit-learn routes metadata: their docstrings refer to its own glossary."""
    return True if re.fullmatch(r"set_\w+_request|get_metadata_routing", name) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Process docstrings after numpydoc has."""
    app.connect("autodoc-process-docstring", process, priority=900)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
