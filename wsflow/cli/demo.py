"""wsflow demo: the main job, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command, OutputFolder, check_size, write_figure
from wsflow.cli.parameters import Parameters, flow_of, parameter_option
from wsflow.cli.rendering import Reporter, echo_report

POPULATIONS = ("population.safetensors", "held_out.safetensors", "samples.safetensors")


@click.command(cls=Command)
@click.option(
    "--out",
    default=Path("wsflow-demo"),
    type=OutputFolder(*POPULATIONS, "model.st", "report.png", "report.html", "report.json"),
    help="Folder for the results.",
)
@click.option("--runs", default=2000, type=click.IntRange(10), help="Networks to learn from.")
@click.option("--held-out", default=300, type=click.IntRange(2), help="Networks of other runs.")
@click.option("--snapshots", default=1, type=click.IntRange(1), help="Networks to keep of each run.")
@click.option("--samples", default=200, type=click.IntRange(2), help="Networks to sample.")
@click.option("--geometry", default="geometric", type=options.Choice(options.GEOMETRIES))
@click.option("--iterations", default=600, type=click.IntRange(1), help="Training steps of the flow.")
@parameter_option("Any further parameter of WeightFlow, such as -p velocity.width=128.")
@options.common
def demo(
    out: Path,
    runs: int,
    held_out: int,
    snapshots: int,
    samples: int,
    geometry: str,
    iterations: int,
    parameters: Parameters,
    seed: int,
    reporter: Reporter,
) -> None:
    """From trained networks to new ones: train, align, canonicalize, fit, sample, evaluate.

    Trains MLPs 30-16-16-2 on the Wisconsin breast-cancer data, learns their distribution, samples new
    networks, and compares them on held-out data and held-out runs with the training networks and with
    trivial generators. With --runs 100 --snapshots 20 it is the protocol of the thesis, where few runs
    make copies likely and nulls hard to beat; without names of neurons (-p velocity.identity=none) less so.

    \b
    Example:
      wsflow demo --out wsflow-demo
      wsflow demo --runs 100 --held-out 100 --snapshots 20 -p velocity.identity=none --json
    """
    from sklearn.pipeline import make_pipeline

    import wsflow
    from wsflow.plotting import EvaluationDisplay
    from wsflow.writing import write_bytes

    task = wsflow.load_task("breast_cancer")
    flow = flow_of(geometry, iterations, task, seed, parameters)
    check_size((runs + held_out) * snapshots, 802, out)
    out.mkdir(parents=True, exist_ok=True)
    with reporter.stage("Training networks", "network epochs", "populate") as progress:
        everything = wsflow.train_population(
            task, n_runs=runs + held_out, snapshots=snapshots, random_state=seed, progress=progress
        )
    known = everything.weights.runs < runs
    population = wsflow.Population(everything.weights[known], task, everything.provenance)
    unseen = wsflow.Population(everything.weights[~known], task, everything.provenance)
    transformers = make_pipeline(wsflow.PermutationAligner(), wsflow.ScaleCanonicalizer())
    with reporter.stage("Aligning and canonicalizing", name="align"):
        canonical = transformers.fit_transform(population.weights)
    with reporter.stage("Fitting the flow", "steps", "fit") as progress:
        flow.set_params(progress=progress).fit(canonical)
        flow.set_params(progress=None)
    model = make_pipeline(*(step for _, step in transformers.steps), flow)
    with reporter.stage("Sampling networks", name="sample"):
        new = wsflow.sample(model, samples, random_state=seed)
    with reporter.stage("Evaluating networks", "steps", "evaluate") as progress:
        report = wsflow.evaluate(new, population.weights, unseen.weights, task, random_state=seed, progress=progress)
    with reporter.stage("Writing files", name="write"):
        samples_of_model = wsflow.Population(new, task, {"model": "model.st", "seed": seed})
        for name, networks in zip(POPULATIONS, (population, unseen, samples_of_model), strict=True):
            wsflow.save_population(networks, out / name)
        wsflow.save_model(model, out / "model.st")
        curve = vars(flow.history_)
        write_figure(EvaluationDisplay.from_report(report, curve=curve).figure_, out / "report.png")
        about = {"model": f"{flow.geometry_.name} flow of {flow.n_iter_} steps"}
        write_bytes(out / "report.html", report.to_html(about, curve).encode())
    seconds = {name: round(value, 2) for name, value in {"total": reporter.total, **reporter.seconds}.items()}
    result: dict[str, Any] = {"seed": seed, "geometry": flow.geometry, "seconds": seconds, **report.to_dict()}
    write_bytes(out / "report.json", f"{json.dumps(result, indent=2)}\n".encode())
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    figures = f"{out / 'report.html'} and {out / 'report.png'}"

    def echo() -> None:
        networks = f"{samples} new networks {population.architecture}"
        echo_report(report, f"{networks}, on held-out data and beside held-out runs")
        click.echo(f"Time: {spent}.\nSee {figures}; the files beside them are the population, model and samples.")

    reporter.show(result, echo)
