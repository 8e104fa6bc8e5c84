"""Options that several commands share, and their parsing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from wsflow.cli.files import FIGURES, NETWORKS, RESULTS, OutputFile
from wsflow.cli.inputs import OwnCode, TaskName
from wsflow.cli.rendering import Reporter
from wsflow.cli.wording import did_you_mean

Command = Callable[..., Any]
# as in tables that are too heavy for the help of a command; a test holds them together
GEOMETRIES = ("auto", "euclidean", "normalized", "geometric")
INITIALISATIONS = ("he", "kaiming", "normal", "siren", "siren_small", "torch", "uniform")
METANETWORKS = (
    "auto", "neuron", "relational", "neural_graph", "scale_equivariant", "deep_sets", "statistics", "convolutional",
    "mlp", "probe",
)  # fmt: skip
MERGES = ("mean", "latent")
REFERENCES = ("auto", "first", "mean", "medoid", "universe")
STATISTICS = ("recompute", "average", "keep")


class Choice(click.Choice):
    """One of some words; an error names those that are near."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Say which words there are, and which was probably meant."""
        words = [str(choice) for choice in self.choices]
        return f"{value!r} is not one of {', '.join(words)}.{did_you_mean(str(value), words)}"


def common(command: Command) -> Command:
    """Add ``--seed``, ``--json`` and ``-q``, which every command takes, the latter two as a `Reporter`."""

    @functools.wraps(command)
    def run(*arguments: Any, as_json: bool, quiet: bool, **options: Any) -> Any:
        # of a dry run and of log-densities nothing is in the file
        out = None if options.get("dry_run") or options.get("log_prob") else options.get("out")
        return command(*arguments, reporter=Reporter(as_json, quiet, out), **options)

    added: list[Any] = [
        click.option("--seed", default=0, type=click.IntRange(0), help="Seed of all randomness."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, and no summary of a file that is written."),
    ]
    return _with(added, run)


def runs_networks(command: Command) -> Command:
    """Add ``--task``, ``--module`` and ``--plot``, for commands that run networks and draw a figure of the result."""
    return task_and_module(plot("File for a figure (.png, .pdf, .svg).")(command))


def task_and_module(command: Command) -> Command:
    """Add ``--task`` and ``--module``, for commands that run networks."""
    module = "What makes the torch module that runs the networks; it is run."
    added: list[Any] = [
        click.option(
            "--task",
            "task_name",
            type=TaskName(),
            metavar="TASK",
            help="Another task than the networks' own, by name or file.",
        ),
        click.option("--module", type=OwnCode(), metavar="FILE.py:NAME", help=module),
    ]
    return _with(added, command)


def _with(added: list[Any], command: Command) -> Command:
    # the help lists options in the order of decorators, of which the last is applied first
    for option in reversed(added):
        command = option(command)
    return command


def _out(text: str, what: str, suffixes: Any) -> Callable[[Command], Command]:
    return click.option("-o", "--out", type=OutputFile(what, suffixes), required=True, help=text)


# ``-o FILE``: for any result, for networks, and for a figure
out = _out("File to write.", "a file of networks or a model", RESULTS)
networks_out = _out(
    "File to write, or the index of shards, whose name ends in .index.json.", "a file of networks", NETWORKS
)
figure_out = _out("File to write (.png, .pdf, .svg).", "a figure", FIGURES)


def plot(help_text: str) -> Callable[[Command], Command]:
    """Return the option ``--plot FILE``."""
    return click.option("--plot", type=OutputFile("a figure", FIGURES), help=help_text)


def count(default: int, help_text: str) -> Callable[[Command], Command]:
    """Return the option ``-n COUNT``."""
    return click.option("-n", "--number", default=default, type=click.IntRange(1), help=help_text)


def jobs(command: Command) -> Command:
    """Add ``--jobs COUNT``: joblib's processes while the command runs."""

    @functools.wraps(command)
    def run(*arguments: Any, jobs: int | None, **options: Any) -> Any:
        from wsflow import parallel

        with parallel.jobs(jobs):
            return command(*arguments, **options)

    text = "Processes that work side by side; -1 for one on each core."
    return click.option("--jobs", type=int, help=text)(run)


def frozen(command: Command) -> Command:
    """Add ``--frozen LAYER``, which may be given several times."""
    text = "A layer on which no symmetry shall act."
    return click.option("--frozen", multiple=True, metavar="LAYER", help=text)(command)


def integers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Parse comma-separated positive integers, none where nothing is given."""
    try:
        numbers = tuple(int(part) for part in (value or "").split(",") if part.strip())
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 16,16.") from error
    if any(number < 1 for number in numbers):
        raise click.BadParameter("widths are at least 1.")
    return numbers


def optional_integers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parse comma-separated positive integers, at least one of them, or nothing."""
    numbers = None if value is None else integers(ctx, param, value)
    if numbers == ():
        raise click.BadParameter("name at least one width, such as 32.")
    return numbers
