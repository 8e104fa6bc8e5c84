"""wsflow plot: figures of files, their numbers, and refusals in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import PermutationAligner, Population, ScaleCanonicalizer, WeightFlow
from wsflow.cli import main
from wsflow.cli.figures import DRAW
from wsflow.cli.plot import KINDS, SPACES
from wsflow.evaluation import barrier_matrix, loss_path, network_map, predict, projection, reliability
from wsflow.models.options import NeuronTransformer
from wsflow.plotting import TrajectoryDisplay

TASK = wsflow.load_task("iris")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A population with its task, samples, networks of held-out runs, and the model."""
    folder = tmp_path_factory.mktemp("plot")
    settings = {"hidden": (4,), "epochs": 10, "learning_rate": 0.02}
    population = wsflow.train_population(TASK, n_runs=16, **settings)
    wsflow.save_population(population, folder / "zoo.safetensors")
    held_out = wsflow.train_population(TASK, n_runs=4, first_run=16, **settings)
    wsflow.save_population(held_out, folder / "held_out.safetensors")
    flow = WeightFlow(task=TASK, max_iter=60, random_state=0, velocity=NeuronTransformer(8, 1, 2))
    model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(population.weights)
    wsflow.save_model(model, folder / "model.st")
    wsflow.save_population(Population(wsflow.sample(model, 8, random_state=0), TASK), folder / "new.safetensors")
    return folder


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """The folder of the files, with a path for a figure in another one."""
    monkeypatch.chdir(folder)
    return tmp_path / "figure.png"


def run(*words, code=0):
    result = CliRunner().invoke(main, ["plot", *(str(word) for word in words)])
    assert result.exit_code == code, result.output
    return result


def numbers(here, kind, *words):
    found = json.loads(run(kind, *words, "-o", here, "--json", "-q").stdout)
    assert here.read_bytes().startswith(b"\x89PNG") and found["path"] == str(here) and found["kind"] == kind
    return found


def weights(name):
    return wsflow.load_population(f"{name}.safetensors").weights


def test_every_kind_is_drawn_and_in_the_help():
    assert list(KINDS) == list(DRAW) and SPACES == projection.SPACES
    text = run("--help").stdout
    for kind, known in KINDS.items():
        assert f"{kind} " in text and known.files in text and f"wsflow plot {kind} " in text


@pytest.mark.parametrize("space", SPACES)
def test_a_map_has_the_points_of_the_library(here, space):
    found = numbers(here, "map", "zoo.safetensors", "new.safetensors", "--space", space)
    expected = network_map(weights("zoo"), {"new": weights("new")}, TASK, space=space)
    assert found["networks"] == {"training networks": 16, "new": 8} and found["space"] == space
    for name, points in expected.points.items():
        np.testing.assert_allclose(found["points"][name], points, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "ends"), [([], (0, 1)), (["--pair", "3,2"], (3, 2)), (["new.safetensors", "--pair", "1,5"], (1, 5))]
)
def test_a_path_goes_between_two_networks(here, words, ends):
    found = numbers(here, "path", "zoo.safetensors", *words, "--n-points", 3)
    other = weights("new" if "new.safetensors" in words else "zoo")
    expected = loss_path(weights("zoo")[ends[0] : ends[0] + 1], other[ends[1] : ends[1] + 1], TASK, 3)
    before, after = found["paths"].values()
    np.testing.assert_allclose(before["loss"], expected.losses[0])
    np.testing.assert_allclose(before["accuracy"], expected.scores[0])
    assert before["barrier"] == pytest.approx(expected.barrier[0]) and found["t"] == [0, 0.25, 0.5, 0.75, 1]
    assert [after["loss"][i] for i in (0, -1)] == pytest.approx([before["loss"][i] for i in (0, -1)])
    names = ["1 of zoo", "5 of new"] if "new.safetensors" in words else list(map(str, ends))
    assert found["ends"] == names


def test_barriers_are_those_of_the_matrix(here):
    found = numbers(here, "barriers", "zoo.safetensors", "new.safetensors", "-k", 3, "--n-points", 1)
    expected = barrier_matrix(weights("zoo")[:3], TASK, 1, others=weights("new")[:3])
    np.testing.assert_allclose(found["barriers"], expected.losses)
    text = run("barriers", "zoo.safetensors", "-k", 2, "--n-points", 1, "-o", here, "--force").stdout
    assert text.startswith(f"{here}: mean loss barrier of 1 pairs ") and text.count("\n") == 1


def test_the_training_is_the_history(here):
    history = wsflow.load_model("model.st")[-1].history_
    found = numbers(here, "training", "model.st")
    assert (found["step"], found["train"], found["validation"]) == (history.step, history.train, history.validation)
    assert found["best_step"] == history.best_step


def test_trajectories_are_those_of_the_display(here):
    found = numbers(here, "trajectories", "model.st", "zoo.safetensors", "-n", 3, "--seed", 2)
    expected = TrajectoryDisplay.from_estimator(wsflow.load_model("model.st"), weights("zoo"), 3, 2)
    np.testing.assert_allclose(found["paths"], expected.paths.swapaxes(0, 1), atol=1e-6)
    np.testing.assert_allclose(found["training"], expected.training, atol=1e-6)
    assert numbers(here, "trajectories", "model.st", "-n", 3, "--force")["training"] is None


def test_quality_is_that_of_the_report(here):
    found = numbers(here, "quality", "zoo.safetensors", "new.safetensors", "held_out.safetensors", "--seed", 1)
    report = wsflow.evaluate(weights("new"), weights("zoo"), weights("held_out"), TASK, random_state=1)
    assert found["samples"] == pytest.approx({key: report.samples[key] for key in ("novelty", "accuracy")})
    assert found["held_out"]["novelty"] == pytest.approx(1) and found["verdict"] == report.verdict
    for name, curve in report.frontiers.items():
        assert [row["accuracy"] for row in found["nulls"][name]] == pytest.approx([r["accuracy"] for r in curve.rows])


def test_calibration_is_that_of_the_averages(here):
    found = numbers(here, "calibration", "new.safetensors", "zoo.safetensors")
    expected = reliability(predict(weights("new"), TASK.held_out).average, TASK.held_out.targets)
    assert found["curves"]["new"]["error"] == pytest.approx(expected.error)
    np.testing.assert_allclose(found["curves"]["new"]["share"], expected.share)
    # a bin without examples has no accuracy
    assert [value is None for value in found["curves"]["new"]["accuracy"]] == (expected.share == 0).tolist()


def test_files_of_one_name_are_told_apart_by_their_folders(here, tmp_path):
    wsflow.save_population(wsflow.load_population("new.safetensors"), tmp_path / "new.st")
    found = numbers(here, "map", "zoo.safetensors", "new.safetensors", tmp_path / "new.st")
    assert list(found["networks"]) == ["training networks", "new.safetensors", str(tmp_path / "new.st")]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["training", "model.st", "model.st"], 2, "training takes the files MODEL; got 2."),
        (["quality", "zoo.safetensors"], 2, "quality takes the files TRAINING SAMPLES [HELD_OUT]; got 1."),
        (["map", *["zoo.safetensors"] * 7], 2, "map takes the files TRAINING [OTHERS]..., 6 at most; got 7."),
        (["training", "model.st", "--space", "weights"], 2, "--space goes with map, not with training"),
        (["map", "zoo.safetensors", "--n-points", 5], 2, "--n-points goes with path or barriers, not with map"),
        (["path", "zoo.safetensors", "--pair", "1"], 2, "'1' are not two numbers of networks such as 0,3"),
        (["path", "zoo.safetensors", "--pair", "0,16"], 3, "there is no network 16: it has 16, numbered from 0 on"),
        (["path", "model.st"], 3, "this is a model, not a population"),
        (["trajectories", "zoo.safetensors"], 3, "this is a population, not a model"),
        (["calibration", "zoo.safetensors", "--task", "wine"], 3, "the task has 13 inputs"),
        (["calibration", "zoo.safetensors", "--task", "diabetes"], 3, "this task has none"),
    ],
)
def test_refusals_are_sentences(here, words, code, message):
    result = run(*words, "-o", here, "-q", code=code)
    assert message in result.stderr and result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert not here.exists() and not result.stdout
