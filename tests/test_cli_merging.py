"""wsflow barrier and wsflow merge: results, figures, and refusals in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import wsflow
from wsflow import Population, WeightArray
from wsflow.cli import main
from wsflow.evaluation.barrier import barrier_matrix

OWN = """
from torch import nn

def network():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))

def other():
    return nn.Linear(4, 3)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Populations of networks on iris: one with its task, one without, and one with batch norms."""
    folder = tmp_path_factory.mktemp("merging")
    population = wsflow.train_population(wsflow.load_task("iris"), (4,), 4, epochs=10, learning_rate=0.02)
    wsflow.save_population(population, folder / "zoo.safetensors")
    wsflow.save_population(Population(population.weights[:2]), folder / "bare.safetensors")
    wsflow.save_population(Population(normed(), population.task), folder / "normed.safetensors")
    (folder / "own.py").write_text(OWN)
    return folder


def normed() -> WeightArray:
    from wsflow.architecture import Architecture
    from wsflow.architecture.parameters import fixed_parameter

    shapes = {"0.weight": (5, 4), "0.bias": (5,), "1.weight": (5,), "1.bias": (5,)}
    statistics = {"1.running_mean": (5,), "1.running_var": (5,)}
    rows = [fixed_parameter(name, shape) for name, shape in shapes.items()]
    rows += [fixed_parameter(name, shape, "statistic") for name, shape in statistics.items()]
    rows += [fixed_parameter("3.weight", (3, 5)), fixed_parameter("3.bias", (3,))]
    architecture = Architecture(rows, outputs=("3.weight", "3.bias"))
    values = np.random.default_rng(0).standard_normal((3, architecture.n_weights))
    return WeightArray(np.abs(values), architecture)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def refused(code, message, *arguments):
    result = run(*arguments, code=code)
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ") and message in line and result.stdout == ""


class TestBarrier:
    def test_json_has_the_matrix(self, files):
        result = json.loads(run("barrier", files / "zoo.safetensors", "--n-points", 3, "--json", "-q").stdout)
        population = wsflow.load_population(files / "zoo.safetensors")
        matrix = barrier_matrix(population.weights, population.task, 3)
        np.testing.assert_allclose(result["barriers"], matrix.losses, atol=1e-9)
        np.testing.assert_allclose(result["score_barriers"], matrix.scores, atol=1e-9)
        assert result["pairs"] == 6 and result["mean"] == pytest.approx(matrix.losses[np.triu_indices(4, 1)].mean())

    def test_the_table_says_the_mean_and_long_ones_are_left_out(self, files, monkeypatch):
        shown = run("barrier", files / "zoo.safetensors", "--n-points", 1, "-q").stdout
        assert "Mean of 6 pairs" in shown and len(shown.splitlines()) >= 7
        monkeypatch.setattr("wsflow.cli.barrier.SHOWN", 2)
        assert len(run("barrier", files / "zoo.safetensors", "--n-points", 1, "-q").stdout.splitlines()) == 1

    def test_two_files_and_one_pair_are_drawn_as_a_path(self, files, tmp_path):
        plot = tmp_path / "path.png"
        arguments = ["--task", "iris", "-k", 1, "--n-points", 3, "--plot", plot, "--json"]
        result = run("barrier", files / "zoo.safetensors", files / "bare.safetensors", *arguments)
        assert json.loads(result.stdout)["barriers"] == [[0.0]]
        assert "Measuring" in result.stderr and plot.read_bytes().startswith(b"\x89PNG")

    def test_a_matrix_is_drawn(self, files, tmp_path):
        plot = tmp_path / "matrix.svg"
        run("barrier", files / "zoo.safetensors", "--n-points", 1, "-k", 3, "--plot", plot, "-q")
        assert b"<svg" in plot.read_bytes()

    def test_networks_of_a_module_are_run_by_it(self, files):
        module = f"{files / 'own.py'}:network"
        arguments = ["barrier", files / "normed.safetensors", "--n-points", 1, "--json", "-q"]
        assert np.isfinite(json.loads(run(*arguments, "--module", module).stdout)["mean"])
        refused(3, "--module FILE.py:NAME", *arguments)
        refused(3, "'0.weight'", *arguments, "--module", f"{files / 'own.py'}:other")

    def test_refusals(self, files, tmp_path):
        refused(3, "Say it with --task", "barrier", files / "bare.safetensors", "-q")
        refused(3, "at least two", "barrier", files / "zoo.safetensors", "-k", 1, "-q")
        refused(3, "inputs", "barrier", files / "zoo.safetensors", "--task", "wine", "-q")
        refused(5, "ends in .png", "barrier", files / "zoo.safetensors", "--plot", tmp_path / "x.doc", "-q")
        refused(2, "'--n-points'", "barrier", files / "zoo.safetensors", "--n-points", 0, "-q")


class TestMerge:
    def test_it_is_what_merge_makes_of_aligned_networks(self, files, tmp_path):
        out = tmp_path / "merged.safetensors"
        arguments = ["merge", files / "zoo.safetensors", "-o", out, "--align", "--repair"]
        result = json.loads(run(*arguments, "--json", "-q").stdout)
        merged = wsflow.load_population(out)
        population = wsflow.load_population(files / "zoo.safetensors")
        aligner = wsflow.PermutationAligner(task=population.task, reference="first", random_state=0)
        aligned = aligner.fit_transform(population.weights)
        np.testing.assert_array_equal(merged.weights, wsflow.merge(aligned, population.task, repair=True))
        assert result["networks"] == 4 and 0 <= result["accuracy"] <= 1
        assert merged.provenance["align"] and merged.task.checksum == population.task.checksum
        assert "merged from 4; on held-out data accuracy" in run(*arguments, "--force").stdout

    def test_it_draws_the_loss_between_the_networks(self, files, tmp_path):
        plot = tmp_path / "merged.png"
        run("merge", files / "zoo.safetensors", "-o", tmp_path / "m.st", "--align", "--plot", plot, "-q")
        assert plot.read_bytes().startswith(b"\x89PNG")

    def test_a_mean_needs_no_task(self, files, tmp_path):
        out = tmp_path / "merged.safetensors"
        assert "merged from 2." in run("merge", files / "bare.safetensors", "-o", out).stdout
        expected = np.asarray(wsflow.load_population(files / "bare.safetensors").weights).mean(0, keepdims=True)
        np.testing.assert_allclose(wsflow.load_population(out).weights, expected, rtol=1e-6)

    def test_batch_norms_take_a_module_or_another_choice(self, files, tmp_path):
        out = tmp_path / "merged.safetensors"
        arguments = ["merge", files / "normed.safetensors", "-o", out, "-q"]
        refused(3, "--module FILE.py:NAME, or leave statistics", *arguments)
        assert not out.exists()
        run(*arguments, "--statistics", "average")
        columns = normed().architecture.statistic_columns
        average = wsflow.load_population(out).weights[:, columns]
        result = json.loads(run(*arguments, "--module", f"{files / 'own.py'}:network", "--json", "--force").stdout)
        assert "accuracy" in result
        assert np.abs(wsflow.load_population(out).weights[:, columns] - average).max() > 0.1

    def test_refusals_overwrite_nothing(self, files, tmp_path):
        out = tmp_path / "out.safetensors"
        out.write_bytes(b"precious")
        zoo, bare = files / "zoo.safetensors", files / "bare.safetensors"
        before = zoo.read_bytes()
        refused(2, "'reset' is not one of", "merge", zoo, "-o", out, "--statistics", "reset", "-q", "--force")
        refused(3, "--task TASK", "merge", bare, "-o", out, "--repair", "-q", "--force")
        refused(3, "Say it with --task", "merge", bare, "-o", out, "--plot", tmp_path / "x.png", "-q", "--force")
        refused(5, "would be lost", "merge", zoo, "-o", zoo, "-q")
        both = tmp_path / "m.png"
        refused(5, "another path", "merge", zoo, "-o", both, "--plot", both, "-q")
        assert out.read_bytes() == b"precious" and zoo.read_bytes() == before
