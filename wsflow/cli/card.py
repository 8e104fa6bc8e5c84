"""wsflow card: what is known of a model or a population, for those who get it."""

from __future__ import annotations

from pathlib import Path

import click

from wsflow.cli import options
from wsflow.cli.files import Command, OutputFile
from wsflow.cli.inputs import InputFile
from wsflow.cli.rendering import Reporter


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@click.option("--report", type=InputFile(), help="The report of its samples, by wsflow evaluate -o report.json.")
@click.option("--license", metavar="NAME", help="Its license, such as mit.")
@click.option("-o", "--out", type=OutputFile("a card", (".md",)), help="File to write (.md) instead of printing it.")
@options.common
def card(file: Path, report: Path | None, license: str | None, out: Path | None, seed: int, reporter: Reporter) -> None:
    """Describe FILE, a model or networks, as Markdown: data, settings, evidence and caveats.

    Named model.md beside model.st, the card goes with it to the Hugging Face Hub, which reads its head. Nothing here is
    random and nothing takes long: --seed and -q are taken as by every command, and change nothing.

    \b
    Example:
      wsflow card model.st
      wsflow card model.st --report report.json --license mit -o model.md
    """
    import wsflow
    from wsflow.writing import write_bytes

    text = wsflow.model_card(file, None if report is None else wsflow.load_report(report), license)
    if out is not None:
        write_bytes(out, text.encode())
    words = text.rstrip() if out is None else f"{out}: the card of {file}."
    reporter.show({"path": None if out is None else str(out), "card": text}, words)
