"""Pictures that the code of a page writes: it is run before pages are read, and again when it has changed."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGES = ("tutorial",)
BLOCK = re.compile(r"^\.\. code-block:: python\n\n((?:(?: {3}.*)?\n)+)", re.MULTILINE)
PROGRAM = "program.py"


def program_of(text: str) -> str:
    """The Python of a page, one block after the other."""
    return "\n".join(textwrap.dedent(block) for block in BLOCK.findall(text))


def draw(app: Sphinx) -> None:
    """Run the code of each page in the folder of its pictures, where the code that made them is kept."""
    for page in PAGES:
        program = program_of(Path(app.srcdir, f"{page}.rst").read_text(encoding="utf-8"))
        folder = Path(app.srcdir, "generated", page)
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / PROGRAM
        if made.exists() and made.read_text(encoding="utf-8") == program:
            continue
        made.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
        made.write_text(program, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Draw when a build begins."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
