"""Short representations: objects in a line of text, and tables in HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import Any, TypeVar

import numpy as np

LINE = 120
VALUE = 60
Class = TypeVar("Class", bound=type)


def in_a_line(cls: Class) -> Class:
    """Give a dataclass a ``repr`` of at most a line, in which arrays are their shapes and mappings their keys."""

    def __repr__(self: Any) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)
        return _cut(f"{type(self).__name__}({', '.join(f'{name}={summary(value)}' for name, value in shown)})", LINE)

    cls.__repr__ = __repr__  # type: ignore[method-assign, assignment]
    return cls


def summary(value: Any) -> str:
    """Describe a value in a few words: the shape of an array, the keys of a mapping, the number of further items."""
    if type(value).__name__ in ("ndarray", "Tensor"):
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return f"<{', '.join(map(str, list(value)[:3]))}{', ...' if len(value) > 3 else ''}>"
    if isinstance(value, (list, tuple)) and len(repr(value)) > VALUE:
        return f"<{len(value)} items>"
    text = repr(value)
    return text if len(text) <= VALUE and "\n" not in text else f"<{type(value).__name__}>"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 4]}...)"


def html_table(caption: str, rows: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Return a table in HTML; the first cell of each row is its heading, and everything is escaped."""
    head = f"<thead><tr>{''.join(f'<th>{escape(str(h))}</th>' for h in header)}</tr></thead>" if header else ""
    body = "".join(
        f"<tr><th>{escape(str(first))}</th>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>"
        for first, *cells in rows
    )
    return f"<table><caption>{escape(caption)}</caption>{head}<tbody>{body}</tbody></table>"


def rows_about(weights: Any) -> list[tuple[str, str]]:
    """Return what there is to know of a `WeightArray` at a glance, as rows of a table."""
    steps = np.unique(weights.steps)
    return [
        ("networks", str(len(weights))),
        ("architecture", str(weights.architecture)),
        ("runs", str(len(np.unique(weights.runs)))),
        ("steps", f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else ", ".join(map(str, steps))),
        ("precision", str(weights.dtype)),
        ("aligned", "yes" if weights.aligned else "no"),
    ]


def text_table(rows: Iterable[Sequence[str]]) -> str:
    """Return lines of cells in columns, the first to the left and the others to the right."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )
