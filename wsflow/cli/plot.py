"""wsflow plot: figures of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from wsflow.cli import options
from wsflow.cli.files import Command, write_figure
from wsflow.cli.inputs import InputFile
from wsflow.cli.rendering import Reporter

SPACES = ("weights", "function")
MANY = 6  # files whose networks are told apart


@dataclass(frozen=True)
class Kind:
    """A kind of figure: what its files are, the least and the largest number of them, and the options that it takes."""

    files: str
    least: int
    most: int
    options: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "map": Kind("TRAINING [OTHERS]...", 1, MANY, ("space", "task_name", "module")),
    "path": Kind("FILE [OTHER]", 1, 2, ("pair", "n_points", "task_name", "module")),
    "barriers": Kind("FILE [OTHER]", 1, 2, ("networks", "n_points", "task_name", "module")),
    "training": Kind("MODEL", 1, 1),
    "trajectories": Kind("MODEL [TRAINING]", 1, 2, ("number",)),
    "quality": Kind("TRAINING SAMPLES [HELD_OUT]", 2, 3, ("task_name",)),
    "calibration": Kind("FILE [OTHERS]...", 1, MANY, ("task_name", "module")),
}


def _pair(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse two numbers of networks."""
    if value is None:
        return None
    numbers = value.split(",")
    if len(numbers) != 2 or not all(number.strip().isdecimal() for number in numbers):
        raise click.BadParameter(f"{value!r} are not two numbers of networks such as 0,3.")
    return int(numbers[0]), int(numbers[1])


@click.command(cls=Command)
@click.argument("kind", type=options.Choice(list(KINDS)), metavar="KIND")
@click.argument("files", type=InputFile(), nargs=-1, required=True)
@options.figure_out
@click.option("--space", default="weights", type=options.Choice(SPACES), help="Of a map: where networks lie.")
@click.option("--pair", callback=_pair, metavar="I,J", help="Of a path: its ends, by the numbers of the networks.")
@click.option("--n-points", default=25, type=click.IntRange(1), help="Points between networks; 1 is half-way.")
@click.option("-k", "--networks", default=10, type=click.IntRange(1), help="Networks of each file.")
@options.count(30, "Number of trajectories.")
@options.task_and_module
@options.common
@click.pass_context
def plot(
    ctx: click.Context, kind: str, files: tuple[Path, ...], out: Path, reporter: Reporter, **settings: Any
) -> None:
    """Draw a figure of FILES.

    \b
    KIND is one of
      map           TRAINING [OTHERS]...         networks in the plane, others on top of training networks
      path          FILE [OTHER]                 loss and score between two networks, before and after alignment
      barriers      FILE [OTHER]                 loss barriers between all pairs of networks
      training      MODEL                        the loss of a flow over the steps of its training
      trajectories  MODEL [TRAINING]             samples on their way from the source of a flow
      quality       TRAINING SAMPLES [HELD_OUT]  score against novelty, beside nulls
      calibration   FILE [OTHERS]...             how often model averages are right, by how sure they are

    A path goes between the first two networks of FILE, or the first ones of FILE and OTHER. With --json, the numbers
    that are drawn are printed.

    \b
    Example:
      wsflow plot map zoo.safetensors new.safetensors -o map.png
      wsflow plot map zoo.safetensors new.safetensors --space function -o functions.pdf
      wsflow plot path zoo.safetensors --pair 0,3 -o path.svg
      wsflow plot barriers zoo.safetensors -k 6 --n-points 1 -o barriers.png
      wsflow plot training model.st -o training.png
      wsflow plot trajectories model.st zoo.safetensors -n 40 -o trajectories.png
      wsflow plot quality zoo.safetensors new.safetensors held_out.safetensors -o quality.png --json
      wsflow plot calibration new.safetensors zoo.safetensors -o calibration.png
    """
    _check(ctx, kind, len(files))
    from wsflow.cli.figures import DRAW, Request

    drawn = DRAW[kind](Request(files, reporter, **settings))
    write_figure(drawn.figure, out)
    reporter.show({"path": str(out), "kind": kind, **drawn.numbers}, f"{out}: {drawn.sentence}")


def _check(ctx: click.Context, kind: str, n_files: int) -> None:
    """Refuse a number of files, and options, that do not go with a kind of figure."""
    known = KINDS[kind]
    if not known.least <= n_files <= known.most:
        most = f", {MANY} at most" if known.most == MANY else ""
        raise click.UsageError(f"{kind} takes the files {known.files}{most}; got {n_files}.")
    own = {name for row in KINDS.values() for name in row.options} - set(known.options)
    for param in ctx.command.params:
        if param.name in own and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            others = " or ".join(other for other, row in KINDS.items() if param.name in row.options)
            raise click.UsageError(f"{max(param.opts, key=len)} goes with {others}, not with {kind}.")
