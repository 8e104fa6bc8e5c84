"""What it costs to import wsflow and to ask it for help, beside an interpreter that does nothing.

The files of all of them are in the page cache after the first call, which does not count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from measure import report, seconds

PROGRAMS = {
    "python, nothing": "pass",
    "import wsflow": "import wsflow",
    "wsflow --help": "from wsflow.cli import main; main(['--help'])",
    "import torch": "import torch",
}


def program(code: str) -> Callable[[], object]:
    """A fresh interpreter that runs some code."""
    return lambda: subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    times = {name: seconds(program(code), options.repeats) for name, code in PROGRAMS.items()}
    report("start-up", times, "a process", options.out, repeats=options.repeats)


if __name__ == "__main__":
    main()
