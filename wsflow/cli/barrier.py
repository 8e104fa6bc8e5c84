"""wsflow barrier: how far the loss rises between networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsflow.cli import options
from wsflow.cli.files import Command, write_figure
from wsflow.cli.inputs import InputFile
from wsflow.cli.networks import check_runnable, check_task_known, load_runnable, load_with_task
from wsflow.cli.rendering import Reporter, echo_table

if TYPE_CHECKING:
    from wsflow.evaluation.barrier import BarrierMatrix

# larger matrices are for --json and --plot
SHOWN = 12


@click.command(cls=Command)
@click.argument("file", type=InputFile())
@click.argument("other", type=InputFile(), required=False)
@options.runs_networks
@click.option("--n-points", default=25, type=click.IntRange(1), help="Points strictly between two networks.")
@click.option("-k", "--networks", default=10, type=click.IntRange(1), help="How many networks of each file.")
@click.option("--identify", is_flag=True, help="Also say how many neurons resemble most those of their place.")
@options.common
def barrier(
    file: Path,
    other: Path | None,
    task_name: str | None,
    n_points: int,
    networks: int,
    identify: bool,
    module: str | None,
    plot: Path | None,
    seed: int,
    reporter: Reporter,
) -> None:
    """Loss barriers between the first networks of FILE, or between those of FILE and those of OTHER.

    The barrier of two networks is the largest excess of the loss, on the task's training data, over the straight line
    between their own losses, along the straight line between their weights. The figure is the matrix of barriers, or
    the loss along the line where there are two networks only. With --identify, it says which share of neurons have
    their best match in the other network, by correlations of activations, in the neuron of the same place: near one
    over the width where nothing tells neurons apart. Nothing here is random: --seed changes nothing.

    \b
    Example:
      wsflow barrier zoo.safetensors
      wsflow barrier one.safetensors two.safetensors --task digits -k 1 --plot path.png
    """
    from wsflow.evaluation.barrier import barrier_matrix

    population, known = load_with_task(file, module, task_name)
    task = check_task_known(known, file)
    check_runnable(population, file)
    rows = population.weights[:networks]
    columns = None if other is None else load_runnable(other, module).weights[:networks]
    with reporter.stage("Measuring barriers", "networks") as progress:
        matrix = barrier_matrix(rows, task, n_points, others=columns, progress=progress)
    try:
        if plot is not None:
            write_figure(_figure(matrix, rows, columns, task, n_points), plot)
    finally:
        result = numbers_of(matrix, n_points)
        if identify:
            result["identifiability"] = _identifiability(matrix, rows, columns, task)
        data = {"path": str(file), **({"other": str(other)} if other else {}), **result}
        title = f"{file}: loss barriers" + (f" to {other}" if other else "")
        reporter.show(data, lambda: _echo(matrix, result, title))


def _figure(matrix: BarrierMatrix, rows: Any, columns: Any, task: Any, n_points: int) -> Any:
    from wsflow.plotting import BarrierMatrixDisplay, plot_path

    left, right = matrix.pairs
    if len(left) > 1:
        return BarrierMatrixDisplay.from_matrix(matrix).figure_
    names = str(left[0]), str(right[0])
    a, b = rows[left], (rows if columns is None else columns)[right]
    return plot_path(a, b, task, n_points, names=names).figure_


def _identifiability(matrix: BarrierMatrix, rows: Any, columns: Any, task: Any) -> float:
    """Return the mean share of neurons that resemble most those of their place, over the pairs of networks."""
    import numpy as np

    from wsflow.evaluation.identifiability import neuron_identifiability

    pairs = np.stack(matrix.pairs, axis=1)
    return float(neuron_identifiability(rows, rows if columns is None else columns, task, pairs).mean())


def numbers_of(matrix: BarrierMatrix, n_points: int) -> dict[str, Any]:
    """Return the barriers of a matrix, and their summary, as JSON data."""
    import numpy as np

    losses, scores = matrix.losses[matrix.pairs], matrix.scores[matrix.pairs]
    known = matrix.scores.astype(object)
    known[~np.isfinite(matrix.scores)] = None
    return {
        "n_points": n_points,
        "pairs": len(losses),
        "mean": float(losses.mean()),
        "largest": float(losses.max()),
        "score": matrix.score,
        "score_mean": float(scores.mean()) if np.isfinite(scores).all() else None,
        "barriers": matrix.losses.tolist(),
        "score_barriers": known.tolist(),
    }


def _echo(matrix: BarrierMatrix, result: dict[str, Any], title: str) -> None:
    score = "" if result["score_mean"] is None else f"; mean fall of {result['score']} {result['score_mean']:.3f}"
    footer = [f"Mean of {result['pairs']} pairs: {result['mean']:.4f}, largest {result['largest']:.4f}{score}."]
    if "identifiability" in result:
        share = result["identifiability"]
        footer.append(f"{share:.1%} of neurons have their best match in the neuron of the same place.")
    rows, columns = matrix.losses.shape
    if max(rows, columns) > SHOWN:
        click.echo(f"{title}. {' '.join(footer)} All of them: --json or --plot.")
        return
    table = [[str(i), *(f"{value:.3f}" for value in row)] for i, row in enumerate(matrix.losses)]
    echo_table(title, ["", *map(str, range(columns))], table, footer)
