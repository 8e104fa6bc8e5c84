"""wsflow demo: the main job, end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from wsflow.cli import options
from wsflow.cli.files import check_size
from wsflow.cli.parameters import Parameters, flow_of, parameter_option
from wsflow.cli.rendering import Bars, Progress, echo_json, echo_report


@click.command()
@click.option(
    "--out",
    default=Path("wsflow-demo"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for the results.",
)
@click.option("--runs", default=2000, show_default=True, type=click.IntRange(10), help="Networks to learn from.")
@click.option("--held-out", default=300, show_default=True, type=click.IntRange(2), help="Networks of other runs.")
@click.option("--snapshots", default=1, show_default=True, type=click.IntRange(1), help="Networks to keep of each run.")
@click.option("--samples", default=200, show_default=True, type=click.IntRange(2), help="Networks to sample.")
@click.option("--geometry", default="geometric", show_default=True, help="euclidean, normalized or geometric.")
@click.option(
    "--iterations", default=600, show_default=True, type=click.IntRange(1), help="Training steps of the flow."
)
@parameter_option("Any further parameter of WeightFlow, such as -p prior=isotropic.")
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
    as_json: bool,
    quiet: bool,
) -> None:
    """From trained networks to new ones: train, align, canonicalize, fit, sample, evaluate.

    Trains MLPs 30-16-16-2 on the Wisconsin breast-cancer data, learns their distribution, samples new
    networks, and compares them on held-out data and held-out runs with the training networks and with
    trivial generators. With --runs 100 --snapshots 20 it is the protocol of the thesis, where few runs
    make copies likely and nulls hard to beat; without names of neurons (-p identity=none) less so.

    \b
    Example:
      wsflow demo --out wsflow-demo
      wsflow demo --runs 100 --held-out 100 --snapshots 20 -p identity=none --json
    """
    from sklearn.pipeline import make_pipeline

    import wsflow
    from wsflow.persistence import check_target
    from wsflow.plotting import EvaluationDisplay

    task = wsflow.load_task("breast_cancer")
    flow = flow_of(geometry, iterations, task, seed, parameters)
    out.mkdir(parents=True, exist_ok=True)
    files = {name: check_target(out / name) for name in ("population.safetensors", "held_out.safetensors", "model.st")}
    files |= {name: check_target(out / name) for name in ("samples.safetensors", "report.png", "report.json")}
    check_size((runs + held_out) * snapshots, 802)
    clock = Clock(Bars(quiet))

    with clock.stage("populate", "Training networks", "network epochs") as progress:
        everything = wsflow.train_population(
            task, n_runs=runs + held_out, snapshots=snapshots, random_state=seed, progress=progress
        )
    known = everything.weights.runs < runs
    population = wsflow.Population(everything.weights[known], task, everything.provenance)
    unseen = wsflow.Population(everything.weights[~known], task, everything.provenance)
    transformers = make_pipeline(wsflow.PermutationAligner(), wsflow.ScaleCanonicalizer())
    with clock.stage("align", "Aligning and canonicalizing"):
        canonical = transformers.fit_transform(population.weights)
    with clock.stage("fit", "Fitting the flow", "steps") as progress:
        flow.set_params(progress=progress).fit(canonical)
        flow.set_params(progress=None)
    model = make_pipeline(*(step for _, step in transformers.steps), flow)
    with clock.stage("sample", "Sampling networks"):
        new = wsflow.sample(model, samples, random_state=seed)
    with clock.stage("evaluate", "Evaluating networks", "steps") as progress:
        report = wsflow.evaluate(new, population.weights, unseen.weights, task, random_state=seed, progress=progress)
    with clock.stage("write", "Writing files"):
        wsflow.save_population(population, files["population.safetensors"])
        wsflow.save_population(unseen, files["held_out.safetensors"])
        wsflow.save_model(model, files["model.st"])
        wsflow.save_population(
            wsflow.Population(new, task, {"model": "model.st", "seed": seed}), files["samples.safetensors"]
        )
        curve = {"step": flow.history_.step, "train": flow.history_.train, "validation": flow.history_.validation}
        EvaluationDisplay.from_report(report, curve=curve).figure_.savefig(files["report.png"], dpi=150)
    result: dict[str, Any] = {"seed": seed, "geometry": flow.geometry, "seconds": clock.seconds, **report.to_dict()}
    files["report.json"].write_text(_dump(result))
    if as_json:
        echo_json(result)
        return
    echo_report(report, f"{samples} new networks {population.architecture}, on held-out data and beside held-out runs")
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in clock.seconds.items())
    click.echo(f"Time: {spent}.\nSee {files['report.png']}; the files beside it are the population, model and samples.")


class Clock:
    """The seconds that each stage took, and a progress bar for each."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.seconds: dict[str, float] = {"total": 0.0}

    @contextmanager
    def stage(self, name: str, text: str, unit: str = "") -> Iterator[Progress]:
        """Time one stage, and yield its progress as `Bars.stage` does."""
        start = time.perf_counter()
        with self.bars.stage(text, unit) as progress:
            yield progress
        spent = time.perf_counter() - start
        self.seconds[name] = round(spent, 2)
        self.seconds["total"] = round(self.seconds["total"] + spent, 2)


def _dump(result: dict[str, Any]) -> str:
    import json

    return json.dumps(result, indent=2) + "\n"
