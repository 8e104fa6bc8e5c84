"""wsflow merge: one network from several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsflow.cli import options
from wsflow.cli.encode import load_autoencoder
from wsflow.cli.files import Command, write_figure
from wsflow.cli.inputs import InputFile
from wsflow.cli.networks import check_runnable, check_task_known, load_with_task, quality, save_measured
from wsflow.cli.rendering import Reporter

if TYPE_CHECKING:
    from wsflow.task import Task
    from wsflow.weights import WeightArray

# pairs of these networks are drawn
DRAWN = 5


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@options.out
@click.option(
    "--method",
    type=options.Choice(options.MERGES),
    help="The mean of weights, or the network of the mean latent (default: latent with --autoencoder).",
)
@click.option("--autoencoder", type=InputFile(), help="For the mean latent: what wsflow encode fitted.")
@click.option("--align", is_flag=True, help="Align the networks with the first one before.")
@click.option(
    "--statistics",
    default="recompute",
    type=options.Choice(options.STATISTICS),
    help="Of batch norms: recompute, average, or keep those of the first network.",
)
@click.option("--repair", is_flag=True, help="Give each channel the mean and deviation that it has in the networks.")
@options.runs_networks
@options.common
def merge(
    file: Path,
    out: Path,
    method: str | None,
    autoencoder: Path | None,
    align: bool,
    statistics: str,
    repair: bool,
    task_name: str | None,
    module: str | None,
    plot: Path | None,
    seed: int,
    reporter: Reporter,
) -> None:
    """Merge all networks of FILE into one, and write it to a file.

    The merged network is the mean of the networks' weights, which is of use where their neurons correspond: say --align
    unless they are aligned. Batch-norm statistics are gathered anew on the task's training data. The figure shows loss
    and score between the networks, before and after alignment, and those of the merged one. With --method latent an
    autoencoder makes the network of the mean of their latents, which needs no alignment.

    \b
    Example:
      wsflow merge zoo.safetensors --align --repair -o merged.safetensors --plot merged.png
    """
    import wsflow

    method = method or ("mean" if autoencoder is None else "latent")
    latent = method == "latent"
    if latent != (autoencoder is not None) or (latent and (align or repair)):
        raise click.UsageError("--method latent and --autoencoder FILE go together, without --align and --repair.")
    population, task = load_with_task(file, module, task_name)
    if plot is not None:
        check_task_known(task, file)
    weights = population.weights
    recomputed = not latent and statistics == "recompute" and len(weights.architecture.statistic_columns) > 0
    if repair or recomputed or (align and task is not None):
        check_runnable(population, file, ", or leave statistics as they are with --statistics average")
    if align:
        with reporter.stage("Aligning networks") as progress:
            # a mean is no network yet: there is no loss half-way to it that would tell a good alignment
            aligner = wsflow.PermutationAligner(task=task, reference="first", random_state=seed, progress=progress)
            weights = aligner.fit_transform(weights)
    with reporter.stage("Merging networks"):
        model = None if autoencoder is None else load_autoencoder(autoencoder)
        merged = wsflow.merge(weights, task, method=method, autoencoder=model, statistics=statistics, repair=repair)
    provenance = {"merged": str(file), "method": method, "align": align, "statistics": statistics, "repair": repair}
    measured = save_measured(wsflow.Population(merged, task, provenance), task, out)
    result = {"path": str(out), "networks": len(weights), **measured}
    result |= {f"{name}_of_networks": value for name, value in quality(population.weights, task).items()}
    try:
        if plot is not None and task is not None:
            write_figure(_figure(population.weights, weights if align else None, merged, task), plot)
    finally:
        reporter.show(result, _sentence(result))


def _figure(given: WeightArray, aligned: WeightArray | None, merged: WeightArray, task: Task) -> Any:
    import numpy as np

    from wsflow.evaluation.connectivity import loss_path
    from wsflow.evaluation.predictive import predict
    from wsflow.plotting import ConnectivityDisplay
    from wsflow.plotting.style import GREEN

    count = min(DRAWN, len(given))
    # a single network has a line to itself
    pairs = np.stack(np.triu_indices(count, min(1, count - 1)), axis=1)
    sets = {"as given": given} | ({} if aligned is None else {"aligned": aligned})
    paths = {name: loss_path(weights, weights, task, pairs=pairs) for name, weights in sets.items()}
    display = ConnectivityDisplay(paths, ("0", "1") if len(pairs) == 1 else ("i", "j")).plot()
    found = predict(merged, task)
    for ax, level in zip(display.axes_, (found.losses[0], found.scores[0]), strict=False):
        ax.axhline(level, color=GREEN, ls=":", lw=2, label="merged network")
        ax.legend(frameon=False)
    return display.figure_


def _sentence(result: dict[str, Any]) -> str:
    start = f"{result['path']}: one network merged from {result['networks']}"
    score = next((key for key in ("accuracy", "r2") if key in result), None)
    if score is None:
        return f"{start}."
    return (
        f"{start}; on held-out data {score} {result[score]:.3f}, loss {result['loss']:.3f} "
        f"(networks: {result[f'{score}_of_networks']:.3f}, {result['loss_of_networks']:.3f})."
    )
