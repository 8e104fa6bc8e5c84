"""wsflow populate: train a population of networks on a task."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsflow.activations import ACTIVATIONS
from wsflow.cli import options
from wsflow.cli.files import Command, OutputFolder, check_checkpoint, check_size
from wsflow.cli.inputs import OwnCode, TaskName
from wsflow.cli.networks import save_measured
from wsflow.cli.own_code import load_callable
from wsflow.cli.rendering import Reporter
from wsflow.losses import LOSSES
from wsflow.populations.named_architectures import EXAMPLES
from wsflow.populations.optimizers import OPTIMIZERS
from wsflow.populations.schedules import SCHEDULES

if TYPE_CHECKING:
    from wsflow.task import Task

MIB = 2**20
MAXIMUM_RUN = 2**53  # runs are int64 in the file, with room for -n more


class NumberOrRange(click.ParamType):
    """A number, or LOW:HIGH, from which each run draws its own."""

    name = "number or low:high"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | tuple[float, float]:
        """Parse the number, or the two numbers."""
        from wsflow.populations.hyperparameters import check_range

        try:
            numbers = [float(part) for part in str(value).split(":")]
            name = (param.name if param is not None else None) or ""
            return check_range(name, numbers[0] if len(numbers) == 1 else numbers)
        except ValueError:
            self.fail(f"{value!r} is neither a number in its range, such as 0.01, nor two of them, such as 0.001:0.1.")


class ImageShape(click.ParamType):
    """Channels, height and width, such as 1x28x28."""

    name = "image shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse the three numbers."""
        parts = str(value).lower().split("x")
        if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"{value!r} is not of the form CHANNELSxHEIGHTxWIDTH, such as 1x28x28.")
        return tuple(int(part) for part in parts)


def _hyperparameter(
    option: str, default: float | None, help_text: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(option, default=default, type=NumberOrRange(), metavar="NUMBER|LOW:HIGH", help=help_text)


@click.command(cls=Command)
@click.argument("task", type=TaskName())
@options.count(100, "Number of training runs.")
@options.networks_out
@click.option("--loss", type=options.Choice(list(LOSSES)), help="Another loss than that of the data set or file.")
@click.option("--target", help="Column of a .csv file with the targets: its name or number; by default the last.")
@click.option("--class-weight", type=options.Choice(["balanced"]), help="Weight classes by how rare they are.")
@click.option("--hidden", callback=options.optional_integers, help="Hidden widths of perceptrons; 16,16 by default.")
@click.option("--architecture", metavar="NAME:SIZES", help=f"Other networks: {EXAMPLES}.")
@click.option("--module", type=OwnCode(), metavar="FILE.py:NAME", help="What builds other networks; it is run.")
@click.option("--image", type=ImageShape(), metavar="CxHxW", help="Which images rows of pixels are, such as 1x28x28.")
@click.option("--activation", type=options.Choice(sorted(ACTIVATIONS)), help="By default relu, of vit gelu.")
@click.option("--activation-argument", type=float, help="The activation's parameter, such as the sine's frequency.")
@click.option(
    "--initialisation",
    type=options.Choice((*options.INITIALISATIONS, "module")),
    help="By default normal, of other networks torch, siren or module.",
)
@_hyperparameter("--initialisation-scale", 1.0, "Times the first weights; or a range.")
@click.option("--optimizer", default="adam", type=options.Choice(sorted(OPTIMIZERS)))
@_hyperparameter("--learning-rate", 1e-3, "One for all runs, or a range from which each draws its own (log-uniform).")
@_hyperparameter("--momentum", 0.9, "Of sgd and sghmc; or a range.")
@_hyperparameter("--weight-decay", 0.0, "The prior of sgld and sghmc; or a range.")
@_hyperparameter("--temperature", 1.0, "Of sgld and sghmc; or a range.")
@_hyperparameter("--dropout", None, "The rate of layers of dropout, of perceptrons behind activations; or a range.")
@_hyperparameter("--data-fraction", 1.0, "The share of the examples that each run has, its own ones; or a range.")
@click.option("--schedule", default="constant", type=options.Choice(sorted(SCHEDULES)))
@click.option("--cycles", default=1, type=click.IntRange(1), help="Of the schedule cyclical.")
@click.option("--epochs", default=50, type=click.IntRange(1))
@_hyperparameter("--steps", None, "Steps of training instead of epochs; or a range.")
@click.option("--batch-size", default=64, type=click.IntRange(1))
@click.option("--snapshots", default=1, type=click.IntRange(1), help="Networks to keep of each run, or cycle.")
@click.option("--snapshot-every", default=4, type=click.IntRange(1), help="Iterations between them.")
@click.option(
    "--asymmetric",
    "asymmetry",
    type=options.Choice(["weights", "activations", "mask"]),
    help="Constants that all networks share and that tell neurons apart.",
)
@click.option("--kappa", type=float, help="Standard deviation of these constants.")
@click.option("--n-fixed", type=click.IntRange(1), help="Constants of each output.")
@click.option("--constants-seed", default=0, type=click.IntRange(0), help="Which constants.")
@click.option("--anchor", is_flag=True, help="Train the constants as well, as mere first values.")
@click.option("--shared-initialisation", is_flag=True, help="Let all runs begin with the same weights.")
@click.option("--keep-initial", is_flag=True, help="Keep first weights too, as step 0.")
@click.option("--first-run", default=0, type=click.IntRange(0, MAXIMUM_RUN), help="Number of the first run.")
@click.option("--device", default="cpu", help="Where to train.")
@click.option("--jobs", type=int, help="Processes that train side by side; -1 for one on each core.")
@click.option("--checkpoint", type=OutputFolder(), help="Folder for what is done.")
@click.option("--resume", is_flag=True, help="Go on with the checkpoint, if there is one.")
@click.option("--dry-run", is_flag=True, help="Say what time and memory the training would take, and write nothing.")
@options.common
def populate(
    task: str,
    number: int,
    out: Path,
    loss: str | None,
    target: str | None,
    class_weight: str | None,
    hidden: tuple[int, ...] | None,
    architecture: str | None,
    module: str | None,
    cycles: int,
    snapshots: int,
    asymmetry: str | None,
    kappa: float | None,
    n_fixed: int | None,
    constants_seed: int,
    jobs: int | None,
    dry_run: bool,
    seed: int,
    reporter: Reporter,
    **settings: Any,
) -> None:
    """Train many networks on TASK at once, and write them to a file.

    TASK is one of scikit-learn's bundled data sets (breast_cancer, diabetes, digits, iris, linnerud, wine), mnist or
    fashion_mnist, an image (china, flower, digit:17), or a .csv or .npz file of your own. Networks are perceptrons with
    --hidden, one of the named architectures, or what your own function without arguments builds: a module that takes
    the inputs of the task, which for mnist are rows of 784 pixels. Run r of a seed is the same network however many are
    trained with it.

    \b
    Example:
      wsflow populate breast_cancer -n 500 -o zoo.safetensors
      wsflow populate breast_cancer -n 50 --first-run 500 -o held_out.safetensors
      wsflow populate diabetes --loss gaussian_nll -n 100 -o spread.safetensors
      wsflow populate mnist -n 500 --hidden 10 --epochs 5 --checkpoint half_done --resume -o mnist.safetensors
      wsflow populate mnist -n 1000 --architecture cnn:16,16,16 --steps 300 --batch-size 32 --jobs 2 -o cnns.safetensors
      wsflow populate digits -n 100 --module networks.py:make_network --dropout 0:0.5 -o own.safetensors
      wsflow populate mnist -n 4 --module networks.py:make_network --asymmetric weights -o asymmetric.safetensors
      wsflow populate mnist -n 500 --hidden 10 --epochs 5 --jobs 2 -o larger.safetensors --dry-run
      wsflow populate digit:7 -n 50 --architecture siren:32,32 --learning-rate 1e-4 -o sirens.safetensors
    """
    import wsflow
    from wsflow.populations.settings import DEFAULT_HIDDEN

    check_name(task)
    loaded = wsflow.load_task(task, loss=loss, target=target, class_weight=class_weight)
    own = None if module is None else load_callable(module)
    if architecture is None and module is None:
        widths = (loaded.n_inputs, *(hidden or DEFAULT_HIDDEN), loaded.n_outputs)
        n_weights = sum((a + 1) * b for a, b in pairwise(widths))
        check_size(number * cycles * snapshots, n_weights, out, settings["checkpoint"])
    train = functools.partial(
        wsflow.train_population,
        loaded,
        hidden,
        number,
        architecture=architecture,
        module=own,
        cycles=cycles,
        snapshots=snapshots,
        asymmetry=_asymmetry(asymmetry, kappa, n_fixed, constants_seed),
        random_state=seed,
        **settings,
    )
    if dry_run:
        found = _estimate(train, loaded, jobs, out)
        reporter.show(found, _sentence(found))
        return
    with reporter.stage("Training networks", "network epochs") as progress:
        population = train(n_jobs=jobs, progress=progress)
    measured = save_measured(population, loaded, out)
    score = next(iter(measured))
    result = {
        "path": str(out),
        "task": task,
        "networks": len(population),
        "runs": population.n_runs,
        "architecture": str(population.architecture),
        **measured,
        "seconds": reporter.total,
    }
    reporter.show(
        result,
        f"{out}: {population}, trained on {described(task, loaded)} in {reporter.total:.1f} s; on "
        f"{'held-out' if loaded.held_out is not loaded else 'its own'} data {score} {result[score]:.3f}, "
        f"loss {result['loss']:.3f}.",
    )


def _estimate(train: functools.partial[Any], task: Task, jobs: int | None, out: Path) -> dict[str, Any]:
    """Measure what a training would take, after the checks that it would make itself."""
    from wsflow.cli.dry_run import measure_training
    from wsflow.populations.schedules import snapshot_steps

    given, number = train.keywords, train.args[2]
    if given["checkpoint"] is not None:
        check_checkpoint(given["checkpoint"], given["resume"])
        train = functools.partial(train, checkpoint=None, resume=False)
    cycles, snapshots, every = (given[name] for name in ("cycles", "snapshots", "snapshot_every"))
    steps = given["steps"] or given["epochs"] * -(-len(task.X) // given["batch_size"])
    # of a range, the longest
    most = max(steps) if isinstance(steps, tuple) else steps
    snapshot_steps(cycles, most, snapshots, every)
    least = cycles * ((snapshots - 1) * every + 1)
    networks = number * (cycles * snapshots + given["keep_initial"])
    n_weights = _n_weights(task, train.args[1], given)
    check_size(networks, n_weights, out)
    found = measure_training(train, number, most, least, jobs)
    about = {"networks": networks, "runs": number, "weights": n_weights}
    return {**about, **found, "longest": isinstance(steps, tuple), "file": 4 * networks * n_weights}


def _n_weights(task: Task, hidden: tuple[int, ...] | None, given: Mapping[str, Any]) -> int:
    """Return the number of weights of the networks that would be trained."""
    from wsflow.populations.architectures import networks_of
    from wsflow.populations.asymmetry import with_constants

    names = ("architecture", "module", "activation", "activation_argument", "image")
    networks = networks_of(task, hidden, *(given[name] for name in names))
    return with_constants(networks, task, given["asymmetry"], given["anchor"])[0].architecture.n_weights


def _sentence(found: dict[str, Any]) -> str:
    seconds, chunks = found["seconds"], found["chunks"]
    of = f"each of {chunks} chunks of runs" if chunks > 1 else "all runs together"
    beside = f", {found['processes']} of them side by side" if found["processes"] > 1 else ""
    return (
        f"Nothing was written. Training {found['runs']} runs of networks of {found['weights']} weights takes "
        f"{'at most' if found['longest'] else 'about'} {seconds['total']:.0f} s: {seconds['before']:.1f} s before the "
        f"first step, and {seconds['step']:.4f} s for each of {found['steps']} steps of {of}{beside}. Memory so far: "
        f"{found['peak_memory'] / MIB:,.0f} MiB; the file will take about {found['file'] / MIB:,.1f} MiB."
    )


def _asymmetry(name: str | None, kappa: float | None, n_fixed: int | None, seed: int) -> Any:
    """Return which constants the networks have."""
    from wsflow.populations.asymmetry import asymmetry_of

    given = {key: value for key, value in (("kappa", kappa), ("n_fixed", n_fixed)) if value is not None}
    if name is None:
        if given or seed:
            raise click.UsageError("--kappa, --n-fixed and --constants-seed go with --asymmetric.")
        return None
    return replace(asymmetry_of(name), seed=seed, **given)  # type: ignore[type-var]


def check_name(task: str) -> None:
    """Ask, or on no terminal say, whether a task is meant whose name is nearly that of another."""
    from wsflow.populations.datasets import easily_mistaken

    sentence = easily_mistaken(task)
    if sentence and is_terminal():
        click.confirm(f"{sentence} Go on with the image?", abort=True, err=True)
    elif sentence:
        click.echo(f"Warning: {sentence}", err=True)


def is_terminal() -> bool:
    """Return whether there is someone to ask."""
    return sys.stdin.isatty()


def described(name: str, task: Task) -> str:
    """Describe a task in a few words."""
    kind = f"a classification into {task.n_outputs} classes" if task.is_classification else "a regression"
    return f"{name} ({kind}, {len(task.X)} examples)"
