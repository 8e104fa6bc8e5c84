"""Progress bars on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from wsflow.evaluation.report import Report

Progress = Callable[[int, int], None]


class Bars:
    """Progress bars on stderr, one for each stage; silent if quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    @contextmanager
    def stage(self, text: str, unit: str = "") -> Iterator[Progress]:
        """Show a bar for one stage, and yield what to call with the number of steps done and that of all."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description:<30}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=Console(stderr=True), disable=self.quiet) as bars:
            bar = bars.add_task(text, total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
            total = bars.tasks[0].total
            bars.update(bar, completed=total or 1, total=total or 1)


def echo_json(data: Any) -> None:
    """Print JSON on stdout."""
    click.echo(json.dumps(data, indent=2, allow_nan=False))


def echo_table(title: str, columns: list[str], rows: list[list[str]], footer: list[str] | None = None) -> None:
    """Print a table on stdout, its first column to the left and the others to the right, and sentences below it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120, soft_wrap=True)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for sentence in footer or []:
        console.print(sentence, markup=False, highlight=False)


def echo_report(report: Report, title: str) -> None:
    """Print an evaluation: a row for training, held-out and sampled networks and for each null, then the verdict."""
    named = {"training": report.training, "held-out runs": report.held_out, "samples": report.samples}
    rows = [[name, *_numbers(row, report.score)] for name, row in named.items()]
    rows += [["nulls:"] + [""] * 7]
    rows += [[f"  {name}", *_numbers(row, report.score)] for name, row in report.nulls.items()]
    barrier = report.barrier
    sentences = [
        "novelty: 0 is a copy, 1 as new as a training run; 5%: its quantile; copies: share of likely ones;",
        f"dispersion: 0 is collapse, 1 as different as training runs; averaged: {report.score} of the model average.",
        "",
        f"Mean midpoint loss barrier: {barrier['before']:.3f} before alignment, {barrier['after']:.3f} after it.",
        *_details(report),
        "",
        *report.verdict,
    ]
    columns = ["", report.score, "loss", "novelty", "5%", "copies", "dispersion", "averaged"]
    echo_table(title, columns, rows, sentences)


def _details(report: Report) -> list[str]:
    """Describe what has no column: samples as a set of points beside held-out runs, and their mistakes."""
    keys = ("precision", "recall", "density", "coverage", "p_value")
    names = ("precision", "recall", "density", "coverage", "p")
    sentences = [
        f"Beside held-out runs, in {space}: "
        + ", ".join(f"{name} {_number(row[key])}" for name, key in zip(names, keys, strict=True))
        + "."
        for space, row in report.distribution.get("samples", {}).items()
    ]
    if report.score == "accuracy":
        own, others = _number(report.samples["iou"]), _number(report.held_out["iou"])
        sentences.append(f"Largest overlap of mistakes with a training network: {own} (held-out runs {others}).")
    return sentences


def _numbers(row: dict[str, Any], score: str) -> list[str]:
    keys = (score, "loss", "novelty", "novelty_q05", "copies", "dispersion", f"averaged_{score}")
    return [_number(row.get(key)) for key in keys]


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
