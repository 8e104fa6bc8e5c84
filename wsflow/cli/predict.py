"""wsflow predict: what networks are like, from their weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsflow.cli import options
from wsflow.cli.files import RESULTS, Command, OutputFile
from wsflow.cli.inputs import InputFile
from wsflow.cli.networks import check_runnable, check_task_known
from wsflow.cli.parameters import Parameters, parameter_option, set_parameter
from wsflow.cli.rendering import Reporter, echo_table
from wsflow.cli.wording import did_you_mean
from wsflow.exceptions import InvalidInputError

if TYPE_CHECKING:
    import numpy as np

    from wsflow.populations.population import Population

# networks that are named at either end
NAMED = 5
MEASURED = ("score", "loss")


@click.command(cls=Command)
@click.argument("population", type=InputFile())
@click.option("--model", type=InputFile(), help="A model that was fitted before, to predict with.")
@click.option(
    "--target",
    metavar="NAME",
    help="What to fit a model of: score or loss on held-out data, a hyperparameter or the label of the runs, or "
    "FILE.csv:COLUMN.",
)
@click.option("-o", "--out", type=OutputFile("a model", RESULTS), help="File to write the fitted model to.")
@click.option("--metanetwork", default="auto", type=options.Choice(options.METANETWORKS))
@click.option("--classes", is_flag=True, help="The target is a class and not a number.")
@click.option(
    "--held-out",
    default=0.2,
    type=click.FloatRange(0, 0.9),
    help="Share of the runs on which the fitted model is scored.",
)
@parameter_option("Any further parameter of MetaRegressor or MetaClassifier, such as -p n_estimators=5.")
@options.common
def predict(
    population: Path,
    model: Path | None,
    target: str | None,
    out: Path | None,
    metanetwork: str,
    classes: bool,
    held_out: float,
    parameters: Parameters,
    seed: int,
    reporter: Reporter,
) -> None:
    """What the networks of POPULATION are like, predicted from their weights by a model, or a model that does so.

    A model is fitted to a share of the runs, and scored on the others: as they are, and after symmetries of their
    architecture have moved them.

    \b
    Example:
      wsflow predict zoo.safetensors --target score -o accuracy.st
      wsflow predict new.safetensors --model accuracy.st
    """
    import wsflow

    loaded = wsflow.load_population(population)
    if (model is None) == (target is None) or (target is None) != (out is None):
        raise click.UsageError("Pass --model FILE to predict, or --target NAME and -o FILE to fit a model.")
    if model is not None:
        _apply(model, population, loaded, reporter)
        return
    estimator: Any = (wsflow.MetaClassifier if classes else wsflow.MetaRegressor)(metanetwork, random_state=seed)
    set_metanetwork_parameters(estimator, parameters)
    result = _fit(estimator, loaded, _values(target, population, loaded, classes), held_out, seed, reporter)
    wsflow.save_model(estimator, out)  # type: ignore[arg-type]
    found = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result.items() if name != "networks")
    fitted = f"{type(estimator).__name__} fitted to {result['networks']} networks"
    reporter.show({"path": str(out), **result}, f"{out}: {fitted}; {found or 'not scored'}.")


def set_metanetwork_parameters(estimator: Any, parameters: Parameters) -> None:
    """Set parameters of an estimator and of the objects that its strings stand for."""
    from wsflow.models.metanetworks import metanetwork_of
    from wsflow.models.options import MLP, resolved

    name = type(estimator).__name__

    def resolve(path: tuple[str, ...], text: str) -> Any:
        if path[0] == "decoder":
            return MLP() if text == "mlp" else text
        # commands are about networks, whose architecture is known
        return metanetwork_of(text, name, True) if path[0] == "metanetwork" else resolved(path[0], text, name)

    for path, value in parameters.items():
        set_parameter(estimator, path, value, resolve)


def _fit(
    estimator: Any, loaded: Population, y: np.ndarray, share: float, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Fit to some runs, and return scores on the others."""
    import numpy as np

    from wsflow.evaluation import kendall_tau, orbit_score, tau_ceiling

    weights = loaded.weights
    runs = np.unique(weights.runs)
    chosen = np.random.default_rng(seed).permutation(runs)[: round(share * len(runs))]
    test = np.isin(weights.runs, chosen)
    with reporter.stage("Fitting the predictor", "steps") as progress:
        estimator.set_params(progress=progress)
        estimator.fit(weights[~test], y[~test])
    estimator.set_params(progress=None)
    result: dict[str, Any] = {"networks": int((~test).sum())}
    if test.sum() < 2:
        return result
    found = orbit_score(estimator, weights[test], y[test], random_state=seed)
    result |= {"score": found.clean, "score_when_moved": found.moved}
    if y.dtype.kind == "f":
        result |= {"tau": kendall_tau(y[test], estimator.predict(weights[test])), "tau_ceiling": tau_ceiling(y[test])}
    return result


def _values(target: str | None, path: Path, loaded: Population, classes: bool) -> np.ndarray:
    """Return the target of each network: measured, drawn, or read from a file."""
    import numpy as np

    name = str(target)
    file, colon, column = name.rpartition(":")
    labels = loaded.labels
    known = loaded.hyperparameters | loaded.properties | ({} if labels is None else {"label": labels})
    if colon:
        texts = _column(Path(file), column, len(loaded))
        return np.array(texts) if classes else _as_numbers(texts, name)
    if name in MEASURED:
        from wsflow.evaluation import predict as measured

        check_runnable(loaded, path)
        found = measured(loaded.weights, check_task_known(loaded.task, path).held_out)
        return np.asarray(found.scores if name == "score" else found.losses, dtype=float)
    if name not in known:
        expected = [*MEASURED, *known]
        raise click.UsageError(
            f"The target {name!r} is none of {', '.join(expected)}, nor a FILE.csv:COLUMN."
            f"{did_you_mean(name, expected)}"
        )
    return known[name] if classes else _as_numbers(known[name], name)


def _column(path: Path, column: str, n: int) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path}: this is no CSV file that can be read: {error}") from error
    names = list(rows[0]) if rows else []
    if column not in names:
        raise InvalidInputError(f"{path}: there is no column {column!r}, but {', '.join(map(str, names)) or 'no row'}.")
    if len(rows) != n:
        raise InvalidInputError(f"{path}: there are {len(rows)} rows, but {n} networks. Give one row for each network.")
    return [row[column] for row in rows]


def _as_numbers(texts: Any, name: str) -> np.ndarray:
    import numpy as np

    try:
        return np.array(texts, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name}: not all values are numbers. Pass --classes if they are classes.") from error


def _apply(model: Path, path: Path, loaded: Population, reporter: Reporter) -> None:
    """Predict with a model, and print what it says."""
    import numpy as np

    import wsflow
    from wsflow.estimators.meta_estimator import MetaEstimator

    estimator = wsflow.load_model(model)
    if not isinstance(estimator, MetaEstimator):
        raise InvalidInputError(
            f"{model}: this model predicts nothing of networks. Fit one with --target NAME -o FILE."
        )
    if isinstance(estimator, wsflow.MetaClassifier):
        predicted, certain = estimator.predict(loaded.weights), estimator.predict_proba(loaded.weights).max(1)
        data = {"predicted": predicted.tolist(), "probability": certain.tolist()}
        title, columns = f"classes of {len(predicted)} networks", ["class", "networks", "mean probability"]
        rows = [
            [str(label), str(int(np.sum(predicted == label))), f"{certain[predicted == label].mean():.2f}"]
            for label in np.unique(predicted)
        ]
        footer = []
    else:
        numbers, errors = estimator.predict(loaded.weights, return_std=True)
        data = {"predicted": numbers.tolist(), "standard_error": errors.tolist()}
        title, columns = f"predictions for {len(numbers)} networks", ["", "predicted", "standard error"]
        order = np.argsort(numbers, kind="stable")
        ranked = [order[round(level * (len(order) - 1))] for level in (0, 0.25, 0.5, 0.75, 1)]
        names = ["lowest", "25%", "median", "75%", "highest"]
        rows = [[name, f"{numbers[i]:.4g}", f"{errors[i]:.2g}"] for name, i in zip(names, ranked, strict=True)]
        footer = [f"Highest: networks {', '.join(map(str, order[::-1][:NAMED]))}. All of them: --json."]
    reporter.show({"path": str(path), **data}, lambda: echo_table(f"{path}: {title}", columns, rows, footer))
