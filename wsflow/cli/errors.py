"""How a command ends when it cannot do its work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

INTERRUPTED = 130
UNFORESEEN = 1
USAGE = 2


class CommandError(click.ClickException):
    """One line on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message, if there still is something to print it on."""
        with without_terminal():
            super().show(file)


@contextmanager
def without_terminal() -> Iterator[None]:
    """Go on silently where the standard error is gone, as with a terminal that was closed."""
    try:
        yield
    except OSError:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stderr.fileno())
