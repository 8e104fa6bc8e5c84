"""The benchmarks of the results page: what they compute themselves, that they go on where they stopped, and that they
run. Their tables are read by docutils, where Sphinx is installed."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest
import torch

from wsflow import Architecture
from wsflow.evaluation import Frontier
from wsflow.models.options import MLP, AdamW
from wsflow.running import forward

ROOT = Path(__file__).parent.parent
ROW = {"accuracy": 0.9, "loss": 0.2, "novelty": 1.0, "dispersion": 1.0, "averaged_50": 0.95}
SCRIPTS = {
    "quality": ["--job", "wdbc", "--seeds", "0", "1"],
    "width": ["--seeds", "0", "--geometries", "geometric", "euclidean"],
    "runs": ["--seeds", "0", "1"],
    "transfer": ["--seeds", "0"],
    "posterior": ["--seeds", "0"],
    "variational": ["--seeds", "0", "1", "--ranks", "4", "0"],
    "ablation": ["--seeds", "0", "--variants", "defaults", "hints=None", "temperature=0.7"],
}


@pytest.fixture
def benchmark(monkeypatch):
    """A module of the benchmarks, or of the extensions of the documentation, by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


@pytest.mark.parametrize(
    ("narrow", "wide"), [([5, 3, 2], [5, 8, 2]), ([4, 3, 2, 3], [4, 7, 5, 3]), ([4, 3, 2], [4, 3, 2])]
)
def test_padding_keeps_the_function(benchmark, generator, narrow, wide):
    small, large = Architecture.mlp(narrow), Architecture.mlp(wide)
    rows = torch.randn(6, small.n_weights, generator=generator, dtype=torch.float64)
    inputs = torch.randn(20, narrow[0], generator=generator, dtype=torch.float64)
    made = benchmark("width").padded(rows, small, large)
    assert made.shape == (6, large.n_weights)
    torch.testing.assert_close(forward(made, large, inputs), forward(rows, small, inputs), rtol=1e-12, atol=1e-12)


def test_a_padding_that_changes_the_function_is_refused(benchmark, monkeypatch, rng):
    from wsflow import WeightArray

    width, architecture = benchmark("width"), Architecture.mlp([5, 3, 2])
    networks = WeightArray(rng.normal(size=(4, architecture.n_weights)), architecture)
    assert width.split(networks, Architecture.mlp([5, 7, 2]), rng.normal(size=(9, 5))).shape == (4, 58)
    monkeypatch.setattr(width, "padded", lambda rows, narrow, wide: torch.ones(len(rows), wide.n_weights).double())
    with pytest.raises(SystemExit, match="Padding changed"):
        width.split(networks, Architecture.mlp([5, 7, 2]), rng.normal(size=(9, 5)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("accuracy", 0.899), ("loss", 0.201), ("novelty", 0.9), ("dispersion", 0.9), ("averaged_50", 0.9)],
)
def test_a_condition_is_broken_by_each_number(benchmark, key, value):
    bound = benchmark("quality").Condition(0.9, 0.2, novelty=0.95, dispersion=0.95, averaged=0.94)
    assert bound.holds(ROW, {})
    assert not bound.holds(ROW | {key: value}, {})


def test_a_relative_condition_follows_the_training_networks(benchmark):
    bound = benchmark("quality").Condition(-0.005, 0.01, relative=True)
    assert bound.holds(ROW, {"accuracy": 0.904, "loss": 0.191})
    assert not bound.holds(ROW, {"accuracy": 0.906, "loss": 0.191})
    assert not bound.holds(ROW, {"accuracy": 0.904, "loss": 0.189})


def test_a_margin_is_for_averages(benchmark):
    bound = benchmark("quality").Condition(-0.1, 1.0, relative=True, margin=0.0)
    assert bound.holds(ROW, {"accuracy": 0.949, "loss": 0.2}) and not bound.holds(ROW, {"accuracy": 0.951, "loss": 0.2})


def test_decibels_are_of_the_loss_alone(benchmark):
    bound, row = benchmark("quality").Condition(novelty=0.9, decibels=-6.0), ROW | {"accuracy": -1.0}
    assert bound.holds(row, {"loss": 0.051}) and not bound.holds(row, {"loss": 0.05})
    assert not bound.holds(row | {"novelty": 0.89}, {"loss": 0.051})


def test_the_rival_is_the_best_null_that_is_as_new_and_as_different(benchmark):
    class Report:
        score = "accuracy"
        headline = ("accuracy", "loss", "novelty", "dispersion")
        frontiers = {
            "samples": Frontier("samples", ("temperature 1",), (ROW,)),
            "mean": Frontier("mean", ("mean",), (ROW | {"accuracy": 0.99, "dispersion": 0.0},)),
            "worse": Frontier("worse", ("worse",), (ROW | {"accuracy": 0.7},)),
            "second": Frontier("second", ("second",), (ROW | {"accuracy": 0.8},)),
        }

    rival = benchmark("results_file").rival
    found = rival(Report, ROW)
    assert (found["ahead"], found["null"], found["null_accuracy"]) == (True, "second", 0.8)
    assert rival(Report, ROW | {"accuracy": 0.8})["ahead"] is False
    assert rival(Report, ROW | {"novelty": 1.2}) == {"ahead": True, "null": None}


def test_a_file_of_results_goes_on_where_it_stopped(benchmark, tmp_path):
    module, out = benchmark("results_file"), tmp_path / "rows.json"
    first = module.ResultsFile(out, {"runs": 5})
    first.measure("0", lambda: {"loss": 1 / 3, "iou": math.nan})
    second = module.ResultsFile(out, {"runs": 5})
    assert second.measure("0", lambda: pytest.fail("it was measured"))["loss"] == 0.333333
    second.measure("1", lambda: {"loss": 2.0})
    kept = json.loads(out.read_text())["rows"]
    assert {key: row["loss"] for key, row in kept.items()} == {"0": 0.333333, "1": 2.0}
    assert kept["0"]["iou"] is None
    assert kept["0"]["hardware"]["versions"]["torch"] == torch.__version__


def test_a_file_of_results_measures_again_only_what_is_asked_for(benchmark, tmp_path):
    module, out = benchmark("results_file"), tmp_path / "rows.json"
    for key in ("0", "1"):
        module.ResultsFile(out, {"runs": 5}).measure(key, lambda: {"loss": 1.0})
    again = module.ResultsFile(out, {"runs": 5}, again=True)
    for value in (2.0, 3.0):
        again.measure("0", lambda v=value: {"loss": v})
    assert {key: row["loss"] for key, row in json.loads(out.read_text())["rows"].items()} == {"0": 2.0, "1": 1.0}


def test_a_file_of_results_does_not_mix_settings(benchmark, tmp_path, monkeypatch):
    module, out = benchmark("results_file"), tmp_path / "rows.json"
    module.ResultsFile(out, {"runs": 5}).measure("0", lambda: {"loss": 1.0})
    with pytest.raises(SystemExit, match="other settings"):
        module.ResultsFile(out, {"runs": 6})
    assert module.ResultsFile(out, {"runs": 6}, again=True).rows == {}
    monkeypatch.setitem(module.wsflow.WeightFlow.__init__.__kwdefaults__, "max_iter", 8)
    with pytest.raises(SystemExit, match="other settings"):
        module.ResultsFile(out, {"runs": 5})


def test_variants_of_the_ablation_are_parameters_and_no_defaults(benchmark):
    ablation = benchmark("ablation")
    defaults = ablation.DEFAULTS | {"temperature": 1.0} | ablation.PIPELINE
    assert "defaults" in ablation.VARIANTS and len(ablation.VARIANTS) > 15
    for name, changes in ablation.VARIANTS.items():
        assert set(changes) <= set(defaults), name
        assert name == "defaults" or any(defaults[key] != value for key, value in changes.items()), name


@pytest.mark.slow
@pytest.mark.parametrize("job", ["wdbc-short", "mnist-short"])
def test_short_jobs_of_the_ablation_run(benchmark, monkeypatch, tmp_path, job):
    arguments = ["--job", job, "--seeds", "0", "--variants", "defaults", "another random_state", "--quick"]
    monkeypatch.setattr("sys.argv", ["ablation", *arguments, "--results", str(tmp_path)])
    benchmark("ablation").main()
    found = json.loads((tmp_path / f"ablation_{job}.json").read_text())
    assert set(found["rows"]) == {"0/defaults", "0/another random_state"}


def test_jobs_of_the_ablation_go_on_with_their_files(benchmark):
    ablation = benchmark("ablation")
    for name, job in ablation.JOBS.items():
        path = ROOT / "docs/results" / ("ablation.json" if name == "wdbc" else f"ablation_{name}.json")
        assert ablation.ResultsFile(path, job).rows, name


def test_the_table_of_the_ablation_has_means_over_seeds(benchmark):
    ablation = benchmark("ablation")
    numbers = {**ROW, "copies": 0.0, "hardware": {"threads": 1, "cpu": "a processor"}, "seconds": 60.0}
    beside = {name: ROW | {"copies": 0.0} for name in (ablation.HELD_OUT, ablation.NULL)}
    rows = {
        "0/defaults": numbers | {"beside": beside},
        "1/defaults": numbers | {"accuracy": 0.8, "beside": beside},
        "0/hints=None": numbers | {"accuracy": 0.5, "beside": {}},
    }
    text = ablation.page(rows, 2000)
    assert "- 0.850 ± 0.071\n" in text and "- 0.500\n" in text
    assert text.index("held-out networks") < text.index("defaults\n") < text.index("hints=None")


def test_differences_are_taken_seed_by_seed(benchmark):
    pytest.importorskip("sphinx")
    made = benchmark("made_from_results")
    machine = {"threads": 1, "cpu": "a processor", "cores": 2, "versions": {"torch": "2"}}
    numbers = {**ROW, "copies": 0.0, "seconds": 60.0, "hardware": machine}
    rows = {"0/defaults": numbers, "1/defaults": numbers | {"accuracy": 0.8}}
    rows |= {
        f"{seed}/clip=1": row | {"accuracy": row["accuracy"] - 0.1, "seconds": 90.0}
        for seed, row in zip("01", rows.values(), strict=True)
    }
    text = "\n".join(made.differences_lines({"settings": {"runs": 5, "flow": {}, "samples": 3}, "rows": rows}))
    assert "- -0.100 ± 0.000\n" in text and "- x 1.50 ± 0.00\n" in text
    parse(text.splitlines())


@pytest.mark.parametrize("job", ["wdbc", "mnist"])
def test_measured_differences_have_a_table(benchmark, job):
    pytest.importorskip("sphinx")
    found = json.loads((ROOT / f"docs/results/ablation_{job}-short.json").read_text())
    parse(benchmark("made_from_results").differences_lines(found))


def test_numbers_over_seeds(benchmark):
    pytest.importorskip("sphinx")
    over_seeds = benchmark("made_from_results").over_seeds
    assert over_seeds([{"loss": 1.0}, {"loss": 3.0}], "loss", 1) == "2.0 ± 1.4"
    assert over_seeds([{"loss": 1.0}, {"loss": None}], "loss", 1) == "1.0"
    assert over_seeds([{}], "loss") == ""


def test_published_numbers_have_a_table_for_each_job(benchmark):
    pytest.importorskip("sphinx")
    made, published = benchmark("made_from_results"), json.loads((ROOT / "docs/results/published.json").read_text())
    page = (ROOT / "docs/results.rst").read_text(encoding="utf-8")
    for job in set(published) - {"comment"}:
        parse(made.compared_lines(job, published, None))
        assert f"compared-table:: results/published.json {job} " in page


def test_all_pairs_of_neurons_hold_the_same_weights(benchmark):
    x = torch.randn(3, Architecture.mlp([4, 3, 2]).n_weights)
    network = benchmark("dense_relational").DenseRelational([4, 3, 2], 8, 1)
    y = network(x, torch.rand(3))
    assert y.shape == x.shape
    # attention among all nodes: each number depends on each other one
    for column in (0, 14, 22):
        (gradient,) = torch.autograd.grad(y[:, column].sum(), network.read_pair.weight, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_costs_are_measured_and_shown(benchmark, monkeypatch, tmp_path):
    scale = benchmark("scale")
    for name, value in {"HIDDEN": (3, 6), "BATCHES": (4, 8), "STEPS": 4, "WARM": 1, "SQUARE": 64}.items():
        monkeypatch.setattr(scale, name, value)
    monkeypatch.setattr(
        "sys.argv", ["scale", "--out", str(tmp_path / "scale.json"), "--rows", "by batch", "by weights"]
    )
    scale.main()
    found = json.loads((tmp_path / "scale.json").read_text())
    sizes = [Architecture.mlp([2 * w, w, w, 10]).n_weights for w in (3, 6)]
    assert sorted(found["rows"]["by weights"]["networks"], key=int) == [str(size) for size in sizes]
    times = [1e-3, 2e-3, 4e-3]
    assert scale.slope([1.0, 2.0, 4.0], times) == pytest.approx(1)
    assert scale.slope([1.0, 2.0, 4.0], [t**2 for t in times]) == pytest.approx(2)
    pytest.importorskip("sphinx")
    made = benchmark("made_from_costs")
    parse(made.costs_lines(found))
    made.draw_growth(found["rows"]["by weights"], tmp_path / "costs.png")
    assert (tmp_path / "costs.png").stat().st_size > 1000


def test_the_products_of_a_step_are_those_of_its_minibatch(benchmark):
    scale, architecture = benchmark("scale"), Architecture.mlp([4, 3, 2])
    n, width = architecture.n_weights, 16
    X = scale.networks(architecture, 128)

    def flops(size):
        flow = scale.WeightFlow("euclidean", velocity=MLP(width, 1), training=AdamW(batch_size=size), random_state=0)
        return scale.step_flops(flow, X)

    assert flops(16) == pytest.approx(2 * flops(8), rel=0.02)
    # weights are read and written, and each product has two more of its size in the backward pass, but for the input
    assert flops(8) > 8 * (2 + 3) * (2 * n * width)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run(benchmark, monkeypatch, tmp_path, name):
    flag, out = ("--results", tmp_path) if name == "ablation" else ("--out", tmp_path / f"{name}.json")
    arguments = [name, *SCRIPTS[name], "--quick", flag, str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    benchmark(name).main()
    file = tmp_path / f"{name}.json"
    written = file.read_bytes()
    benchmark(name).main()
    assert file.read_bytes() == written
    pytest.importorskip("sphinx")
    found, made = json.loads(written), benchmark("made_from_results")
    table = {**made.TABLES, "runs-table": made.runs_lines}.get(f"{name}-table")
    parse((tmp_path / "ablation.inc").read_text().splitlines() if table is None else table(found))
    if name == "runs":
        made.draw_runs(found, tmp_path / "runs.png")
        assert (tmp_path / "runs.png").stat().st_size > 1000


def parse(lines):
    """Let docutils read some text; a warning is an error."""
    from docutils.core import publish_string

    publish_string("\n".join(lines), writer="html5", settings_overrides={"report_level": 2, "halt_level": 2})
