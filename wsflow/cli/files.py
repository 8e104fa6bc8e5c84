"""Checks of what a command is to write, before anything long is done."""

from __future__ import annotations

import os
from pathlib import Path

FIGURES = (".png", ".pdf", ".svg")
MEMORY_SHARE = 0.5  # of the machine's memory that a result may take


def check_output(out: Path, *inputs: Path | None) -> None:
    """Refuse a path that cannot be written, or that is one of the files to be read."""
    from wsflow.exceptions import OutputError
    from wsflow.persistence import check_target

    check_target(out)
    if out.exists() and any(path is not None and path.exists() and out.samefile(path) for path in inputs):
        raise OutputError(f"{out}: this file is read, and would be lost. Give another path to write to.")


def check_figure(plot: Path | None, *others: Path | None) -> None:
    """Refuse a figure that cannot be written, or whose path is that of another file to be read or written."""
    from wsflow.exceptions import OutputError

    if plot is None:
        return
    check_output(plot, *others)
    if plot.suffix.lower() not in FIGURES:
        raise OutputError(f"{plot}: a figure ends in {', '.join(FIGURES)}. Give it such a name.")
    if any(path is not None and path.absolute() == plot.absolute() for path in others):
        raise OutputError(f"{plot}: this file is for the networks. Give the figure another path.")


def check_size(n: int, n_weights: int) -> None:
    """Refuse a number of networks that does not fit into memory, before anything is allocated."""
    needed = 8 * n * n_weights
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > MEMORY_SHARE * memory:
        raise ValueError(
            f"{n} networks of {n_weights} weights take {needed / 2**30:,.1f} GiB, and this machine has "
            f"{memory / 2**30:,.1f} GiB. Ask for fewer with -n, several times with different --seed."
        )
