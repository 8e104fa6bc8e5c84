"""How a command ends when it cannot do its work."""

from __future__ import annotations

import click

INTERRUPTED = 130
UNFORESEEN = 1
USAGE = 2


class CommandError(click.ClickException):
    """One line on stderr and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code  # type: ignore[misc]
