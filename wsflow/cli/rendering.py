"""What a command says: progress bars on stderr, its result on stdout."""

from __future__ import annotations

import json
import math
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click

from wsflow.cli.errors import without_terminal
from wsflow.exceptions import OutputError
from wsflow.progress import Progress

if TYPE_CHECKING:
    from wsflow.evaluation.report import Report

LEGEND_WIDTH = 100


class _Stderr:
    """The standard error for progress bars, which are no reason to stop when it is gone."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with without_terminal():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with without_terminal():
            self._stream.flush()


class Reporter:
    """Progress bars on stderr, one for each stage, the seconds that each stage took, and the result on stdout.

    If quiet there are no bars, and where the result is in a file, `out`, nothing is said of it but as JSON.
    """

    def __init__(self, as_json: bool, quiet: bool, out: Path | None) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.seconds: dict[str, float] = {}
        self._is_written = out is not None
        if sys.stdout is None and (as_json or not self._is_written):
            raise OutputError(
                "The standard output is closed, and the result would be lost. Send it to a file: > result.txt."
            )

    def show(self, data: dict[str, Any], words: str | Callable[[], None]) -> None:
        """Print a result: as JSON, or as a sentence, or by calling what prints it."""
        if self.as_json:
            click.echo(json.dumps(_plain(data), indent=2, allow_nan=False))
        elif sys.stdout is None or (self.quiet and self._is_written):
            return
        elif isinstance(words, str):
            click.echo(words)
        else:
            words()

    @contextmanager
    def stage(self, text: str, unit: str = "", name: str = "", after: float = 0.0) -> Iterator[Progress]:
        """Time one stage, and yield what to call with the number of steps done and that of all.

        The bar is shown `after` so many seconds, if the stage still runs then.
        """
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
        start = time.perf_counter()
        bars = RichProgress(*columns, console=Console(file=cast(IO[str], _Stderr())), disable=self.quiet)
        with _shown(bars, after):
            bar = bars.add_task(text, total=None)
            try:
                yield lambda done, total: bars.update(bar, completed=done, total=total)
            except Exception:
                # what failed before a step was made has nothing to show
                bars.update(bar, visible=bars.tasks[0].total is not None)
                raise
            total = bars.tasks[0].total
            bars.update(bar, completed=total or 1, total=total or 1)
        self.seconds[name or text] = time.perf_counter() - start

    @property
    def total(self) -> float:
        """The seconds of all stages."""
        return sum(self.seconds.values())


@contextmanager
def _shown(bars: Any, after: float) -> Iterator[None]:
    timer = threading.Timer(after, bars.start)
    timer.daemon = True
    if after:
        timer.start()
    else:
        bars.start()
    try:
        yield
    finally:
        timer.cancel()
        if after:
            timer.join()
        if bars.live.is_started:
            bars.stop()


def _plain(data: Any) -> Any:
    """Return JSON data in which numbers that are not finite are null, as JSON has none."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


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
    from wsflow.evaluation.measures import MEASURES

    columns = {key: row for key, row in MEASURES.items() if row.column and key in report.samples}
    named = {"training": report.training, "held-out runs": report.held_out, "samples": report.samples}
    rows = [[name, *_numbers(row, columns)] for name, row in named.items()]
    rows += [["nulls:"] + [""] * len(columns)]
    rows += [[f"  {name}", *_numbers(row, columns)] for name, row in report.nulls.items()]
    legend = "; ".join(f"{row.column}: {row.reading}" for row in columns.values() if row.reading)
    barrier = report.barrier
    sentences = [
        *textwrap.wrap(f"{legend}.", LEGEND_WIDTH),
        "",
        f"Mean midpoint loss barrier: {barrier['before']:.3f} before alignment, {barrier['after']:.3f} after it.",
        *_details(report),
        "",
        *report.verdict,
    ]
    echo_table(title, ["", *(row.column for row in columns.values())], rows, sentences)


def _details(report: Report) -> list[str]:
    """Return sentences on samples as a set of points beside held-out runs, and on their mistakes."""
    from wsflow.evaluation.measures import DISTRIBUTION, MEASURES

    columns = {key: row for key, row in DISTRIBUTION.items() if row.column}
    found = [
        f"Beside held-out runs, in {space}: "
        + ", ".join(f"{row.column} {_number(values[key])}" for key, row in columns.items())
        + "."
        for space, values in report.distribution.get("samples", {}).items()
    ]
    if report.score == "accuracy":
        own, others = _number(report.samples["iou"]), _number(report.held_out["iou"])
        label = MEASURES["iou"].label.capitalize()
        found.append(f"{label} with a training network: {own} (held-out runs {others}).")
    return found


def _numbers(row: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [_number(row.get(key)) for key in keys]


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
