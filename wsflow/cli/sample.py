"""wsflow sample: draw new networks from a fitted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command, check_size
from wsflow.cli.inputs import InputFile, TaskName
from wsflow.cli.networks import load_flow
from wsflow.cli.rendering import Reporter

FLOW_STEPS = 16  # of a guided descent, at most


@click.command(cls=Command)
@click.argument("model", type=InputFile())
@options.count(100, "Number of networks.")
@options.networks_out
@click.option(
    "--temperature",
    default=1.0,
    type=click.FloatRange(0),
    help="Spread of the source: below 1, better and less diverse.",
)
@click.option("--noise", default=0.0, type=click.FloatRange(0), help="Strength of stochastic sampling.")
@click.option("--guide", type=TaskName(), metavar="TASK", help="Descend the loss on a task, by name or file.")
@click.option("--strength", default=1.0, type=click.FloatRange(0), help="Strength of the guidance.")
@click.option(
    "--gradients",
    type=click.IntRange(1),
    help="Gradients of the guidance in all: a descent that carries momentum, along the flow and on at its end.",
)
@click.option(
    "--hidden",
    callback=options.optional_integers,
    metavar="WIDTHS",
    help="Other widths or channels, one for each neuron group.",
)
@click.option(
    "--task",
    "task_name",
    type=TaskName(),
    metavar="TASK",
    help="On whose inputs the statistics of batch norms are computed (default: that of --guide, or else the model's).",
)
@click.option("--log-prob", is_flag=True, help="Print the log-density of each network, taken along its path.")
@options.jobs
@options.common
def sample(
    model: Path,
    number: int,
    out: Path,
    temperature: float,
    noise: float,
    guide: str | None,
    strength: float,
    gradients: int | None,
    hidden: tuple[int, ...] | None,
    task_name: str | None,
    log_prob: bool,
    seed: int,
    reporter: Reporter,
) -> None:
    """Draw networks from MODEL and write them to a file, as a population that other commands read.

    \b
    Example:
      wsflow sample model.st -n 100 -o new.safetensors
      wsflow sample model.st -n 100 -o guided.safetensors --guide breast_cancer --gradients 64
      wsflow sample model.st -n 100 -o wide.safetensors --hidden 32,32
      wsflow sample model.st -n 100 -o scored.safetensors --log-prob --json
    """
    import wsflow
    from wsflow.exceptions import InvalidInputError
    from wsflow.models.widths import of_hidden
    from wsflow.running.compatibility import check_task
    from wsflow.task import Task

    if gradients is not None and guide is None:
        raise click.UsageError("--gradients belong to a guidance: say by which task with --guide.")
    loaded, flow = load_flow(model)
    # the points of a flow over latents are none, but what they are decoded to
    known = getattr(loaded[0], "architecture_", None) if hasattr(loaded, "steps") else flow.architecture_
    if known is None or (flow.architecture_ is None and (hidden or guide)):
        raise InvalidInputError(f"{model}: the points of this flow are no networks. Fit one with wsflow fit.")
    architecture = known if hidden is None else of_hidden(known, hidden)
    check_size(number, max(architecture.n_weights, flow.n_features_in_), out)
    guidance = None
    if guide:
        # no more steps along the flow than gradients
        descent = wsflow.Descent(gradients, flow_steps=min(gradients, FLOW_STEPS)) if gradients else None
        guidance = wsflow.Guidance(wsflow.load_task(guide), strength, descent=descent)
    if guidance is not None and isinstance(guidance.task, Task):
        check_task(known, guidance.task)
    arguments: dict[str, Any] = {"guidance": guidance, "temperature": temperature, "noise": noise}
    if hidden is not None:
        arguments["architecture"] = architecture
    if task_name is not None:
        arguments["task"] = wsflow.load_task(task_name)
        check_task(known, arguments["task"])
    with reporter.stage("Sampling networks"):
        drawn = wsflow.sample(loaded, number, seed, return_log_prob=log_prob, **arguments)
    weights, *densities = drawn if log_prob else (drawn,)
    provenance = {"model": str(model), "seed": seed, "temperature": temperature, "noise": noise}
    provenance |= {"guide": guide, "gradients": gradients}
    wsflow.save_population(wsflow.Population(weights, flow.task, provenance), out)
    result = {"path": str(out), "networks": number, "architecture": str(architecture), "seconds": reporter.total}
    said = f"{out}: {number} new networks {architecture}, sampled in {reporter.total:.1f} s."
    for values in densities:
        result["log_density"] = values.tolist()
        said += (
            f"\nLog-densities between {values.min():.1f} and {values.max():.1f} nats, {values.mean():.1f} on average."
        )
    reporter.show(result, said)
