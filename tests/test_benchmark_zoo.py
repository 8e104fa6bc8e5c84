"""The benchmark of zoos: every job runs, goes on where it stopped, and has a table."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
JOBS = ("mlp", "cnn")


@pytest.fixture
def module(monkeypatch):
    """A module of the benchmarks, or of the extensions of the documentation, by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


@pytest.fixture
def zoo(module):
    """The benchmark, by its path: the tests have a module of this name."""
    spec = importlib.util.spec_from_file_location("benchmarks_zoo", ROOT / "benchmarks" / "zoo.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("job", ["mlp", pytest.param("cnn", marks=pytest.mark.slow), "inr"])
def test_jobs_run(zoo, monkeypatch, tmp_path, job):
    out, cache = tmp_path / "rows.json", tmp_path / "cache"
    names = ["default", "statistics", "statistics, raw", "trees on statistics, unit", "ridge, raw", "hyperparameters"]
    arguments = ["zoo", "--job", job, "--quick", "--predictors", *names, "--cache", str(cache), "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    zoo.main()
    written = out.read_bytes()
    rows = json.loads(written)["rows"]
    others = names if job != "inr" else names[:-1]
    assert set(rows) == {f"0/{name}" for name in others}
    for name in ("default", "statistics", "trees on statistics, unit"):
        row = rows[f"0/{name}"]
        assert row["clean"] == pytest.approx(row["moved"], abs=1e-4)
    zoo.main()
    assert out.read_bytes() == written


def test_a_cached_zoo_is_read_and_not_trained_again(module, tmp_path, monkeypatch):
    networks = module("zoo_networks")
    small = networks.Zoo("mlp", "digits", "relu", (2, 5), 0)
    first = small.read(12, tmp_path)
    monkeypatch.setattr(networks.Zoo, "block", lambda *arguments: pytest.fail("trained again"))
    second = small.read(12, tmp_path)
    assert first["X"].tobytes() == second["X"].tobytes() and first["y"].tolist() == second["y"].tolist()
    assert first["hyperparameters"].keys() == second["hyperparameters"].keys() == {*networks.RANGES, "steps"}


def test_scores_are_those_of_the_functions(zoo):
    """The R2 and tau of a model that knows the answer are 1, and intervals that hold all numbers cover all."""
    X = np.arange(40.0)[:, None]

    class Known:
        calibration_scores_ = np.zeros(20)

        def predict(self, X):
            return X[:, 0]

        def score(self, X, y):
            return 1 - np.sum((y - X[:, 0]) ** 2) / np.sum((y - y.mean()) ** 2)

        def predict_interval(self, X, coverage):
            return np.stack([X[:, 0] - 1, X[:, 0] + np.where(X[:, 0] < 30, 1, -0.5)], 1)

    found = zoo.scores(Known(), X, X[:, 0])
    assert found == {"score": 1.0, "tau": 1.0, "covered": 0.75, "width": pytest.approx(1.625)}


def measured(job):
    return json.loads((ROOT / "docs" / "results" / f"zoo_{job}.json").read_text())


@pytest.mark.parametrize("job", JOBS)
def test_measured_rows_have_a_table_and_their_controls_in_a_sentence(module, job):
    pytest.importorskip("sphinx")
    from docutils.core import publish_string

    found = measured(job)
    row, default = found["rows"]["0/statistics"], found["rows"]["0/default"]
    text = "\n".join(module("made_from_results").metanetworks_lines(found))
    raw = found["rows"]["0/statistics, raw"]
    assert f"- statistics\n     - {row['clean']:.3f}\n     - {row['moved']:.3f}\n" in text
    sentence = next(line for line in text.splitlines() if line.startswith("The default has"))
    assert f"{default['clean']:.3f}, {default['moved']:.3f} after random symmetries" in sentence
    assert f"statistics of raw weights have {raw['clean']:.3f} and {raw['moved']:.3f} when moved" in sentence
    assert f"hyperparameters alone have {found['rows']['0/hyperparameters']['clean']:.3f}" in sentence
    publish_string(text, writer="html5", settings_overrides={"report_level": 2, "halt_level": 2})


@pytest.mark.parametrize("job", JOBS)
def test_measured_predictors_stay_where_they_respect_symmetries_and_fail_where_not(job):
    rows = {name.removeprefix("0/"): row for name, row in measured(job)["rows"].items()}
    raw = {name for name in rows if name.endswith("raw")}
    stay = {name for name in rows if name not in raw and "moved" in rows[name] and not name.startswith("mlp")}
    assert {"default", "statistics", "statistics, unit", "deep_sets", "deep_sets, unit"} <= stay
    assert {"statistics, raw", "mlp, raw", "ridge, raw"} <= raw
    for name in stay:
        assert abs(rows[name]["clean"] - rows[name]["moved"]) < 2e-3
    for name in stay - {"trees on statistics, unit"}:
        assert 0.87 <= rows[name]["covered"] <= 0.94
        assert abs(rows[name]["covered"] - rows[name]["covered_moved"]) < 2e-3
    for name in raw:
        assert rows[name]["clean"] - rows[name]["moved"] > 0.15
    assert rows["statistics"]["clean"] > rows["statistics, unit"]["clean"] + 0.01
    assert rows["default"]["clean"] > max(rows[name]["clean"] for name in rows if name.endswith(("raw", "unit")))
