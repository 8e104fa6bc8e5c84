"""wsflow fit: learn the distribution of a population."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.dry_run import measure_fit
from wsflow.cli.errors import INTERRUPTED, CommandError
from wsflow.cli.files import Command, OutputFolder, check_checkpoint, check_room
from wsflow.cli.inputs import InputFile
from wsflow.cli.parameters import Parameters, flow_of, parameter_option
from wsflow.cli.rendering import Reporter
from wsflow.exceptions import NumericalError

MIB = 2**20


@click.command(cls=Command)
@click.argument("population", type=InputFile())
@options.out
@click.option("--geometry", default="auto", type=options.Choice(options.GEOMETRIES))
@click.option("--iterations", default=600, type=click.IntRange(1), help="Training steps of the flow.")
@click.option("--reference", default="mean", type=options.Choice(options.REFERENCES), help="What to align to.")
@click.option(
    "--form",
    default="unit",
    type=options.Choice(["unit", "balanced", "raw"]),
    help="Scales of neurons: unit incoming norms, which spheres need; the smallest sum of squares; or as they are.",
)
@click.option("--checkpoint", type=OutputFolder(), help="Folder for the state of the fit, every 100 steps.")
@click.option("--resume", is_flag=True, help="Go on with the checkpoint, if there is one.")
@click.option("--dry-run", is_flag=True, help="Say what time and memory the fit would take, and write nothing.")
@parameter_option("Any further parameter of WeightFlow, such as -p velocity.width=128.")
@options.jobs
@options.common
def fit(
    population: Path,
    out: Path,
    geometry: str,
    iterations: int,
    reference: str,
    form: str,
    checkpoint: Path | None,
    resume: bool,
    dry_run: bool,
    parameters: Parameters,
    seed: int,
    reporter: Reporter,
) -> None:
    """Align and canonicalize the networks of POPULATION, and fit a flow to them.

    \b
    Example:
      wsflow fit zoo.safetensors -o model.st
      wsflow fit zoo.safetensors -o flat.st --geometry euclidean --form raw -p max_iter=3000
      wsflow fit zoo.safetensors -o large.st --checkpoint half_done --resume
      wsflow fit zoo.safetensors -o huge.st --dry-run
      torchrun --nproc-per-node=4 -m wsflow fit zoo.safetensors -o model.st
    """
    from sklearn.pipeline import make_pipeline

    import wsflow
    from wsflow.models.memory import bytes_in_file, check_flow
    from wsflow.models.options import DEFAULTS
    from wsflow.models.settings import settings_of
    from wsflow.running.without_statistics import without_statistics
    from wsflow.training.distributed import data_parallel

    processes = click.get_current_context().with_resource(data_parallel())
    if not processes.is_first:
        # the first process says all of it
        warnings.simplefilter("ignore")
    loaded = wsflow.load_population(population)
    flow = flow_of(geometry, iterations, loaded.task, seed, parameters)
    architecture = without_statistics(loaded.architecture)
    processes.on_first(lambda: check_checkpoint(checkpoint, resume))
    flow.set_params(checkpoint=checkpoint)
    settings = settings_of(architecture, **{name: getattr(flow, name) for name in DEFAULTS})
    check_flow(settings, architecture, architecture.n_weights)
    size = bytes_in_file(settings, len(loaded), architecture.n_weights)
    check_room(out, size)
    model = make_pipeline(
        wsflow.PermutationAligner(reference=reference, form=form),
        *([wsflow.ScaleCanonicalizer(form, getattr(flow.geometry, "bias", "inside"))] if form != "raw" else []),
        flow,
    )
    if dry_run:
        if processes.size > 1:
            raise click.UsageError("A fit of several processes is not estimated: use --dry-run without torchrun.")
        found = measure_fit(model, loaded.weights, size)
        reporter.show(found, _estimate(found))
        return
    reporter.quiet = reporter.quiet or not processes.is_first
    try:
        with reporter.stage("Fitting the flow", "steps") as progress:
            flow.set_params(progress=progress)
            model.fit(loaded.weights)
    except KeyboardInterrupt:
        flow.set_params(progress=None)
        if not getattr(flow, "n_iter_", 0) or not processes.is_first:
            raise
        wsflow.save_model(model, out)
        raise CommandError(
            f"interrupted; {out} has the best model so far, of step {flow.history_.best_step}.", INTERRUPTED
        ) from None
    flow.set_params(progress=None)
    if not processes.is_first:
        return
    wsflow.save_model(model, out)
    history = flow.history_
    if history.stopped_at is not None:
        raise CommandError(
            f"the loss was not finite at step {history.stopped_at}; {out} has the model of step {history.best_step}, "
            "the last good one. Use a smaller -p training.learning_rate.",
            NumericalError.exit_code,
        )
    result = {"path": str(out), "networks": len(loaded), "runs": loaded.n_runs, "iterations": flow.n_iter_}
    result |= {"best_iteration": history.best_step, "loss": float(min(history.validation or history.train))}
    result["seconds"] = reporter.total
    reporter.show(
        result,
        f"{out}: {flow.geometry_.name} flow fitted to {loaded} in {reporter.total:.1f} s, {flow.n_iter_} steps; "
        f"{'validation' if history.validation else 'training'} loss {result['loss']:.4f}.",
    )


def _estimate(found: dict[str, Any]) -> str:
    seconds = found["seconds"]
    return (
        f"Nothing was written. A fit to {found['networks']} networks of {found['weights']} weights takes about "
        f"{seconds['total']:.0f} s: {seconds['before']:.1f} s before the first of {found['steps']} steps, and "
        f"{seconds['step']:.3f} s for each. Memory so far: {found['peak_memory'] / MIB:,.0f} MiB; the file will take "
        f"about {found['file'] / MIB:,.1f} MiB."
    )
