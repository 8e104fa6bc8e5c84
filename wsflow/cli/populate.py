"""wsflow populate: train a population of networks on a task."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import click

from wsflow.activations import ACTIVATIONS
from wsflow.cli import options
from wsflow.cli.rendering import Bars, echo_json

MAXIMUM_RUN = 2**53  # runs are int64 in the file, with room for -n more


@click.command()
@click.argument("task")
@options.count(100, "Number of training runs.")
@options.out()
@click.option("--hidden", default="16,16", show_default=True, callback=options.integers, help="Hidden widths.")
@click.option("--activation", default="relu", show_default=True, type=click.Choice(sorted(ACTIVATIONS)))
@click.option("--optimizer", default="adam", show_default=True, help="adam or sgd.")
@click.option("--learning-rate", default=1e-3, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--epochs", default=50, show_default=True, type=click.IntRange(1))
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
@click.option("--snapshots", default=1, show_default=True, type=click.IntRange(1), help="Networks to keep of each run.")
@click.option(
    "--first-run", default=0, show_default=True, type=click.IntRange(0, MAXIMUM_RUN), help="Number of the first run."
)
@options.seed
@options.as_json
@options.quiet
def populate(
    task: str,
    number: int,
    out: Path,
    hidden: tuple[int, ...],
    activation: str,
    optimizer: str,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    snapshots: int,
    first_run: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train many networks on TASK at once, and write them to a file.

    TASK is one of scikit-learn's bundled data sets (breast_cancer, diabetes, digits, iris, linnerud, wine), or a
    .csv or .npz file of your own. Run r of a seed is the same network however many are trained with it.

    \b
    Example:
      wsflow populate breast_cancer -n 500 -o zoo.safetensors
      wsflow populate breast_cancer -n 50 --first-run 500 -o held_out.safetensors
    """
    import wsflow
    from wsflow.evaluation.predictive import predict
    from wsflow.persistence import check_target

    check_target(out)
    loaded = wsflow.load_task(task)
    widths = (loaded.n_inputs, *hidden, loaded.n_outputs)
    options.check_size(number * snapshots, sum((a + 1) * b for a, b in pairwise(widths)))
    start = time.perf_counter()
    with Bars(quiet).stage("Training networks", "network epochs") as progress:
        population = wsflow.train_population(
            loaded,
            hidden,
            number,
            activation=activation,
            optimizer=optimizer,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            snapshots=snapshots,
            random_state=seed,
            first_run=first_run,
            progress=progress,
        )
    seconds = time.perf_counter() - start
    wsflow.save_population(population, out)
    said = predict(population.weights, loaded.held_out)
    score = "accuracy" if loaded.is_classification else "r2"
    result = {
        "path": str(out),
        "networks": len(population),
        "runs": population.n_runs,
        "architecture": str(population.architecture),
        score: float(said.scores.mean()),
        "loss": float(said.losses.mean()),
        "seconds": seconds,
    }
    if as_json:
        echo_json(result)
    else:
        click.echo(
            f"{out}: {population}, trained in {seconds:.1f} s; on held-out data {score} {result[score]:.3f}, "
            f"loss {result['loss']:.3f}."
        )
