"""wsflow evaluate: compare networks with training networks and nulls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import click

from wsflow.cli import options
from wsflow.cli.files import Command, OutputFile, write_figure
from wsflow.cli.inputs import InputFile, TaskName
from wsflow.cli.networks import check_task_known
from wsflow.cli.rendering import Reporter, echo_report

REPORTS = (".html", ".json")


@click.command(cls=Command)
@click.argument("population", type=InputFile())
@click.option("--train", type=InputFile(), required=True, help="The networks that the model was fitted to.")
@click.option("--held-out", type=InputFile(), help="Networks of other runs.")
@click.option("--task", "task_name", type=TaskName(), metavar="TASK", help="Another task than the training networks'.")
@click.option(
    "-o", "--out", type=OutputFile("a report", REPORTS), help="File for the report, as a page (.html) or data (.json)."
)
@options.plot("File for the report on one page (.png, .pdf, .svg).")
@options.jobs
@options.common
def evaluate(
    population: Path,
    train: Path,
    held_out: Path | None,
    task_name: str | None,
    out: Path | None,
    plot: Path | None,
    seed: int,
    reporter: Reporter,
) -> None:
    """How good, how new and how different the networks of POPULATION are, beside nulls.

    Without --held-out, a fifth of the training runs is held out: if the model has seen them, novelty
    is underestimated, and the report says so.

    \b
    Example:
      wsflow evaluate new.safetensors --train zoo.safetensors --held-out held_out.safetensors
      wsflow evaluate new.safetensors --train zoo.safetensors -o report.html
    """
    import wsflow

    samples, training = wsflow.load_population(population), wsflow.load_population(train)
    others = wsflow.load_population(held_out).weights if held_out else None
    task = check_task_known(wsflow.load_task(task_name) if task_name else training.task, train)
    with reporter.stage("Evaluating networks", "steps") as progress:
        report = wsflow.evaluate(samples.weights, training.weights, others, task, random_state=seed, progress=progress)
    try:
        if out is not None:
            from wsflow.writing import write_bytes

            files = {"file of samples": population, "file of training": train, "file of held-out runs": held_out}
            is_data = out.suffix.lower() == ".json"
            text = f"{json.dumps(report.to_dict(), indent=2)}\n" if is_data else report.to_html(_checksums(files))
            write_bytes(out, text.encode())
        if plot is not None:
            write_figure(report.plot().figure_, plot)
    finally:
        title = f"{population}: {len(samples)} networks on held-out data"
        reporter.show(report.to_dict(), lambda: echo_report(report, title))


def _checksums(files: Mapping[str, Path | None]) -> dict[str, str]:
    """Describe the files that were given by their names and checksums."""
    found = {}
    for name, path in files.items():
        if path is not None:
            with path.open("rb") as file:
                found[name] = f"{path}, SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return found
