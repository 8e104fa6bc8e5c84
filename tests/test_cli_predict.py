"""wsflow predict: fitting a predictor of measured, drawn and given targets, and predicting with it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import wsflow
from wsflow.cli import main, options
from wsflow.evaluation import predict
from wsflow.models.metanetworks import METANETWORKS

FAST = ["--metanetwork", "statistics", "-p", "max_iter=3", "-p", "metanetwork.width=8", "-q"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A population whose runs have rates of their own, and a table of values."""
    folder = tmp_path_factory.mktemp("predict")
    population = wsflow.train_population(
        wsflow.load_task("iris"), hidden=(4,), n_runs=30, steps=(2, 30), learning_rate=(1e-3, 1e-1)
    )
    wsflow.save_population(population, folder / "zoo.st")
    rows = "\n".join(f"{i / 10},{'even' if i % 2 == 0 else 'odd'}" for i in range(30))
    (folder / "values.csv").write_text(f"size,parity\n{rows}\n")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def fitted(folder, out, *arguments):
    result = run(folder / "zoo.st", "-o", out, *FAST, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("target", ["score", "loss", "learning_rate", "values.csv:size"])
def test_numbers_are_fitted_scored_and_predicted(folder, tmp_path, target):
    out, name = tmp_path / "model.st", str(folder / target) if ".csv" in target else target
    found = fitted(folder, out, "--target", name)
    assert found["networks"] == 24 and found["score"] == pytest.approx(found["score_when_moved"], abs=1e-5)
    assert {"tau", "tau_ceiling"} <= found.keys()
    model, zoo = wsflow.load_model(out), wsflow.load_population(folder / "zoo.st")
    result = json.loads(run(folder / "zoo.st", "--model", out, "--json").stdout)
    assert result["predicted"] == model.predict(zoo.weights).tolist() and len(result["standard_error"]) == 30
    shown = run(folder / "zoo.st", "--model", out)
    assert shown.exit_code == 0 and "predictions for 30 networks" in shown.output


def test_what_is_fitted_is_what_python_fits(folder, tmp_path):
    zoo = wsflow.load_population(folder / "zoo.st")
    y = np.asarray(predict(zoo.weights, zoo.task.held_out).scores, dtype=float)
    fitted(folder, tmp_path / "model.st", "--target", "score", "--held-out", 0)
    model = wsflow.MetaRegressor(wsflow.load_model(tmp_path / "model.st").metanetwork, max_iter=3, random_state=0)
    expected = model.fit(zoo.weights, y).predict(zoo.weights)
    assert np.array_equal(wsflow.load_model(tmp_path / "model.st").predict(zoo.weights), expected)


def test_classes(folder, tmp_path):
    out = tmp_path / "model.st"
    found = fitted(folder, out, "--classes", "--target", f"{folder / 'values.csv'}:parity")
    assert 0 <= found["score"] <= 1 and "tau" not in found
    result = json.loads(run(folder / "zoo.st", "--model", out, "--json").stdout)
    assert set(result["predicted"]) <= {"even", "odd"} and min(result["probability"]) >= 0.5
    assert "classes of 30 networks" in run(folder / "zoo.st", "--model", out).output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Pass --model FILE to predict, or --target NAME and -o FILE"),
        (["--target", "score"], 2, "Pass --model FILE"),
        (["--target", "learning_rat", "-o", "m.st"], 2, "Did you mean 'learning_rate'"),
        (["--target", "score", "-o", "m.st", "-p", "metanetwork.heads=2"], 2, "no parameter 'heads'"),
        (["--target", "score", "-o", "m.st", "--metanetwork", "neurons"], 2, "'neurons' is not one of"),
        (["--target", "values.csv:size", "-o", "m.st"], 3, "no CSV file that can be read"),
        (["--target", "{folder}/values.csv:sizes", "-o", "m.st"], 3, "no column 'sizes', but size, parity"),
        (["--target", "{folder}/values.csv:parity", "-o", "m.st"], 3, "not all values are numbers. Pass --classes"),
    ],
)
def test_refusals_are_lines(folder, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    given = [argument.format(folder=folder) for argument in arguments]
    fast = [] if "--metanetwork" in given or not given else FAST
    result = run(folder / "zoo.st", *given, *fast)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.output.split())


def test_a_table_of_other_networks_is_refused(folder, tmp_path):
    (tmp_path / "short.csv").write_text("size\n1\n2\n")
    result = run(folder / "zoo.st", "--target", f"{tmp_path / 'short.csv'}:size", "-o", tmp_path / "m.st", *FAST)
    assert result.exit_code == 3 and "2 rows, but 30 networks" in " ".join(result.output.split())


def test_a_flow_predicts_nothing(folder, tmp_path):
    zoo = wsflow.load_population(folder / "zoo.st")
    wsflow.save_model(wsflow.ScaleCanonicalizer().fit(zoo.weights), tmp_path / "form.st")
    result = run(folder / "zoo.st", "--model", tmp_path / "form.st")
    assert result.exit_code == 3 and "predicts nothing of networks" in " ".join(result.output.split())


def test_the_words_are_those_of_the_table():
    assert ("auto", *METANETWORKS) == options.METANETWORKS
