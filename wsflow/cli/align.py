"""wsflow align: permute the neurons of networks so that they lie close together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command, check_room, write_figure
from wsflow.cli.inputs import Input, InputFile
from wsflow.cli.networks import check_runnable, load_with_task
from wsflow.cli.rendering import Reporter, echo_table
from wsflow.cli.wording import did_you_mean

if TYPE_CHECKING:
    from wsflow import WeightArray

LARGE = 1e6  # numbers from here on are written with an exponent
# as in wsflow.symmetry.matching.methods, which is too heavy for the list of commands; a test holds them together
METHODS = ("auto", "weight", "activation", "sinkhorn", "straight-through", "chain")


class Reference(Input):
    """A rule, the number of a network, or a file."""

    name = "text"

    def files(self, value: str) -> Iterator[Path]:
        """Yield the file."""
        from wsflow.estimators.aligner import REFERENCES

        if value not in REFERENCES and not value.isdecimal():
            yield Path(value)


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@options.networks_out
@click.option(
    "--method",
    default="auto",
    type=options.Choice(METHODS),
    help="How networks are compared; auto is chain where the task is known, else weight, which is fastest.",
)
@click.option(
    "--reference",
    default="auto",
    type=Reference(),
    help="mean, medoid, first, universe, the number of a network, or a file whose first network it is; auto is medoid "
    "where the task is known, else mean.",
)
@click.option(
    "--form",
    default="auto",
    type=options.Choice(["auto", "unit", "balanced", "raw"]),
    help="In which representatives networks are compared: with unit incoming norms, with the smallest sum of squares, "
    "or as they are; auto is unit for weight and balanced for the others.",
)
@click.option("--by", default="run", type=options.Choice(["run", "network"]), help="Whether runs move as one.")
@click.option(
    "--procrustes",
    is_flag=True,
    help="Align channels between two linear maps, such as queries with keys, by invertible matrices as well.",
)
@options.runs_networks
@options.jobs
@options.common
def align(
    file: Path,
    out: Path,
    method: str,
    reference: str,
    form: str,
    task_name: str | None,
    by: str,
    procrustes: bool,
    module: str | None,
    plot: Path | None,
    seed: int,
    reporter: Reporter,
) -> None:
    """Permute the neurons of the networks of FILE (and flip signs, where activations are odd) towards a reference.

    Every network stays the same function. Where the task is known, the loss half-way to the reference is measured
    before and after; the figure shows both, or else the distance to the reference.

    \b
    Example:
      wsflow align zoo.safetensors -o aligned.safetensors
      wsflow align zoo.safetensors -o first.safetensors --method auto --reference first --plot barriers.png
    """
    import wsflow

    population, task = load_with_task(file, module, task_name)
    check_room(out, population.weights.nbytes)
    if method != "weight" and (task is not None or method != "auto"):
        check_runnable(population, file, ", or align by weights alone with --method weight")
    chosen = _reference(reference)
    with reporter.stage("Aligning networks") as progress:
        aligner = wsflow.PermutationAligner(
            method=method, task=task, reference=chosen, form=form, by=by, random_state=seed, progress=progress
        )
        aligned = aligner.fit_transform(population.weights)
    changes = [aligner.output_change_]
    wires: tuple[str, ...] = ()
    if procrustes:
        step = wsflow.ProcrustesAligner()
        aligned = step.fit_transform(aligned)
        changes, wires = [*changes, step.output_change_], step.wires_
    change = max(changes)
    result = {
        **_numbers(population.weights, aligned, aligner.report_),
        "held": list(aligner.fixed_groups_),
        "wires": list(wires),
        "output_change": change if math.isfinite(change) else None,
    }
    made = {"method": method, "reference": reference, "seed": seed, **({"procrustes": True} if procrustes else {})}
    provenance = {**population.provenance, "aligned": made}
    wsflow.save_population(wsflow.Population(aligned, population.task, provenance), out)
    try:
        if plot is not None:
            distances = [aligner.distances_to_reference(rows) for rows in (population.weights, aligned)]
            write_figure(_figure(aligner.report_, *distances), plot)
    finally:
        data = {"path": str(out), "method": method, "reference": reference, **result, "seconds": reporter.total}
        title = f"{out}: {len(aligned)} networks {aligned.architecture}, aligned in {reporter.total:.1f} s"
        reporter.show(data, lambda: _echo(title, result))


def _reference(text: str) -> Any:
    """Return the rule or the number that the option names, or the first network of its file."""
    import wsflow
    from wsflow.estimators.aligner import REFERENCES

    if text in REFERENCES:
        return text
    if text.isdecimal():
        return int(text)
    if not Path(text).exists():
        raise ValueError(
            f"--reference {text!r} is no file. Choose one of {', '.join(REFERENCES)}, the number of a network, or a "
            f"file of networks.{did_you_mean(text, list(REFERENCES))}"
        )
    return wsflow.load_population(text).weights[:1]


def _numbers(before: WeightArray, after: WeightArray, report: dict[str, Any]) -> dict[str, Any]:
    """Return means over networks of what an aligner reports."""
    import numpy as np

    known = bool(np.isfinite(report["barrier_before"]).all())
    # the reference itself, where it is one of the networks, has no barrier
    others = (report["barrier_before"] != 0) | (report["barrier_after"] != 0)
    others |= not others.any()
    names = ("barrier_before", "barrier_after")
    means = {name: float(report[name][others].mean()) if known else None for name in names}
    return {
        "networks": len(after),
        "architecture": str(after.architecture),
        "moved": int((np.asarray(before) != np.asarray(after)).any(axis=1).sum()),
        "objective": float(report["objective"].mean()),
        "passes": float(report["n_passes"].mean()),
        **means,
    }


def _figure(report: dict[str, Any], before: Any, after: Any) -> Any:
    """Draw barriers half-way to the reference where the aligner knew a task, or else these distances to it."""
    import numpy as np

    from wsflow.plotting.alignment import AlignmentDisplay

    ends, label = report["barrier_before"], "excess of the loss half-way to the reference"
    if np.isfinite(ends).all():
        return AlignmentDisplay(ends, report["barrier_after"], label).plot().figure_
    return AlignmentDisplay(before, after, "distance to the reference").plot().figure_


def _echo(title: str, result: dict[str, Any]) -> None:
    rows = [
        ["share that moved", _number(result["moved"] / result["networks"])],
        ["inner product with the reference", _number(result["objective"])],
    ]
    if result["barrier_before"] is not None:
        rows += [[f"barrier half-way, {name}", _number(result[f"barrier_{name}"])] for name in ("before", "after")]
    if result["output_change"] is not None:
        rows.append(["largest change of an output", f"{result['output_change']:.1g}"])
    held = [f"Held fixed, being equal in all networks: {', '.join(result['held'])}."] if result["held"] else []
    if result["wires"]:
        held.append(f"Aligned by invertible matrices: {', '.join(result['wires'])}.")
    echo_table(title, ["", "mean over networks"], rows, held)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < LARGE else f"{value:.3g}"
