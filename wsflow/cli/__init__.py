"""The command line: click commands and rich rendering; nothing else imports it."""

from wsflow.cli.main import main

__all__ = ["main"]
