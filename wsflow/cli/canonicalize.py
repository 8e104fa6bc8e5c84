"""wsflow canonicalize: bring networks to one representative of their scalings and signs."""

from __future__ import annotations

from pathlib import Path

import click

from wsflow.cli import options
from wsflow.cli.files import Command, check_room
from wsflow.cli.inputs import InputFile
from wsflow.cli.rendering import Reporter

# as in wsflow.estimators.canonicalizer, which is too heavy for the list of commands; a test holds them together
FORMS = ("unit", "balanced")


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@options.networks_out
@click.option(
    "--form",
    default="unit",
    type=options.Choice(FORMS),
    help="Unit norm of each neuron's incoming weights, or the smallest sum of squares of all weights.",
)
@options.common
def canonicalize(file: Path, out: Path, form: str, seed: int, reporter: Reporter) -> None:
    """Rescale the neurons of the networks of FILE to a canonical form; every network stays the same function.

    Signs are chosen by a convention, unless the networks are aligned: then the reference has decided. Nothing here is
    random: --seed changes nothing.

    \b
    Example:
      wsflow canonicalize aligned.safetensors -o canonical.safetensors
    """
    import numpy as np

    import wsflow

    population = wsflow.load_population(file)
    check_room(out, population.weights.nbytes)
    step = wsflow.ScaleCanonicalizer(form=form)
    with reporter.stage("Rescaling networks"):
        canonical = step.fit_transform(population.weights)
    provenance = {**population.provenance, "canonical": {"form": form}}
    wsflow.save_population(wsflow.Population(canonical, population.task, provenance), out)
    change = step.output_change_ if np.isfinite(step.output_change_) else None
    result = {"path": str(out), "form": form, "networks": len(canonical), "output_change": change}
    rounding = "" if change is None else f" The largest change of an output is {change:.1g}: rounding."
    reporter.show(
        {**result, "architecture": str(canonical.architecture)},
        f"{out}: {len(canonical)} networks {canonical.architecture} in {form} form.{rounding}",
    )
