"""The uses of a flow, as a user meets them: names, options of the command line, examples and the benchmark."""

from __future__ import annotations

import dataclasses
import importlib
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import wsflow
from wsflow import Architecture, WeightFlow
from wsflow.cli import main
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import NeuronTransformer
from wsflow.models.widths import of_hidden

ROOT = Path(__file__).parent.parent
EXAMPLES = ("posterior", "transfer", "widths", "detection")


@pytest.mark.parametrize("hidden", [[7], [5, 3]])
def test_other_widths_are_those_of_an_mlp(hidden):
    other = Architecture.mlp([4, *(9 for _ in hidden), 2], "tanh")
    assert of_hidden(other, hidden) == Architecture.mlp([4, *hidden, 2], "tanh")


@pytest.mark.parametrize("architecture", [Architecture.mlp([4, 3, 2]), Architecture.mlp([4, 2])])
def test_widths_of_another_number_of_layers_are_refused(architecture):
    with pytest.raises(ValueError, match="hidden layers"):
        of_hidden(architecture, [3, 3])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file with a small flow of iris networks."""
    population = wsflow.train_population(wsflow.load_task("iris"), hidden=(4,), n_runs=12, epochs=3)
    flow = WeightFlow(
        "euclidean",
        task=population.task,
        max_iter=3,
        random_state=0,
        velocity=NeuronTransformer(width=8, depth=1),
        solver=RungeKutta(n_steps=2),
    )
    path = tmp_path_factory.mktemp("uses") / "model.st"
    wsflow.save_model(flow.fit(population.weights), path)
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_samples_other_widths(model, tmp_path):
    out = tmp_path / "wide.safetensors"
    result = run("sample", model, "-n", 3, "--hidden", 10, "-o", out, "-q", "--json")
    assert result.exit_code == 0, result.output
    networks = wsflow.load_population(out).weights
    wide = Architecture.mlp([4, 10, 3])
    assert networks.architecture == wide and json.loads(result.stdout)["architecture"] == str(wide)
    expected = wsflow.load_model(model).sample(3, 0, architecture=wide)
    assert np.array_equal(networks, expected)


@pytest.mark.parametrize("gradients", [4, 20])
def test_the_command_spends_gradients(model, tmp_path, gradients):
    out = tmp_path / "guided.safetensors"
    result = run("sample", model, "-n", 3, "--guide", "iris", "--gradients", gradients, "-o", out, "-q")
    assert result.exit_code == 0, result.output
    descent = wsflow.Descent(gradients, flow_steps=min(gradients, 16))
    guidance = wsflow.Guidance(wsflow.load_task("iris"), descent=descent)
    expected = wsflow.load_model(model).sample(3, 0, guidance=guidance)
    assert np.array_equal(wsflow.load_population(out).weights, expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gradients", 4], "--guide"),
        (["--hidden", ","], "at least one width"),
        (["--hidden", "8,8"], "hidden layers"),
        (["--hidden", "2"], "wider networks"),
    ],
)
def test_what_cannot_be_sampled_is_refused(model, tmp_path, options, said):
    result = run("sample", model, "-n", 2, "-o", tmp_path / "new.safetensors", "-q", *options)
    assert result.exit_code == 2 and said in result.output
    assert not (tmp_path / "new.safetensors").exists()


@pytest.fixture
def benchmark(monkeypatch):
    """A module of the benchmarks, by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.mark.slow
@pytest.mark.parametrize("job", ["wdbc", "mnist"])
def test_the_benchmark_runs(benchmark, monkeypatch, tmp_path, rng, job):
    module, out = benchmark("posterior"), tmp_path / "posterior.json"
    monkeypatch.setattr(module, "foreign", lambda task, seed: rng.permuted(task.X, axis=0))
    monkeypatch.setattr("sys.argv", ["posterior", "--job", job, "--quick", "--seeds", "0", "--out", str(out)])
    module.main()
    (row,) = json.loads(out.read_text())["rows"].values()
    assert {"flow", "deep ensemble", "sgld", "sghmc", "Laplace, last layer", "variational, rank 4"} <= set(
        row["sources"]
    )
    for found in row["sources"].values():
        assert all(len(values) == len(found["sizes"]) for values in found["mean"].values())
        assert np.isfinite(list(found["mean"].values())).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(monkeypatch, name):
    """With short training: the documentation runs them in full."""
    import matplotlib

    matplotlib.use("Agg")
    fit = WeightFlow.fit

    def short(flow):
        velocity = NeuronTransformer() if flow.velocity == "auto" else flow.velocity
        velocity = dataclasses.replace(velocity, width=8, depth=1)
        return flow.set_params(max_iter=3, velocity=velocity, solver=RungeKutta(n_steps=2))

    monkeypatch.setattr(WeightFlow, "fit", lambda self, *data: fit(short(self), *data))
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    runpy.run_path(str(ROOT / "examples" / f"plot_{name}.py"))
    matplotlib.pyplot.close("all")
