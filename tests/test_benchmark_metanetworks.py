"""The benchmark of metanetworks: every job runs, goes on where it stopped, and has a table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def module(monkeypatch):
    """A module of the benchmarks, or of the extensions of the documentation, by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


@pytest.mark.parametrize("job", ["mlp", pytest.param("cnn", marks=pytest.mark.slow), "inr"])
def test_jobs_run(module, monkeypatch, tmp_path, job):
    out = tmp_path / "rows.json"
    names = ["statistics", "probe"]
    monkeypatch.setattr(
        "sys.argv", ["metanetworks", "--job", job, "--quick", "--metanetworks", *names, "--out", str(out)]
    )
    module("metanetworks").main()
    written = out.read_bytes()
    rows = json.loads(written)["rows"]
    trees = ["trees on statistics", "trees on canonical statistics"]
    others = [] if job == "inr" else ["hyperparameters"]
    assert set(rows) == {f"0/{name}" for name in (*names, *trees, *others)}
    for name in names:
        row = rows[f"0/{name}"]
        assert row["clean"] == pytest.approx(row["moved"], abs=1e-4)
    module("metanetworks").main()
    assert out.read_bytes() == written


def test_measured_rows_have_a_table(module):
    pytest.importorskip("sphinx")
    from docutils.core import publish_string

    found = json.loads((ROOT / "docs" / "results" / "metanetworks_digits.json").read_text())
    text = "\n".join(module("made_from_results").metanetworks_lines(found))
    assert "- trees on statistics\n     - 0.645\n     - -0.058\n" in text
    publish_string(text, writer="html5", settings_overrides={"report_level": 2, "halt_level": 2})


def test_measured_rows_are_of_all_predictors_and_moved_ones_stay():
    rows = json.loads((ROOT / "docs" / "results" / "metanetworks_digits.json").read_text())["rows"]
    for name in ("statistics", "deep_sets", "neuron", "probe"):
        assert abs(rows[f"0/{name}"]["clean"] - rows[f"0/{name}"]["moved"]) < 1e-4
    assert rows["0/trees on statistics"]["clean"] - rows["0/trees on statistics"]["moved"] > 0.5
