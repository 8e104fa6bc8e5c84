"""The benchmark of autoencoders: it runs, goes on where it stopped, and what it wrote has a table and its controls."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "docs" / "results").glob("autoencoder_*.json"))


@pytest.fixture
def module(monkeypatch):
    """A module of the benchmarks, or of the extensions of the documentation, by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return importlib.import_module


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_it_runs_and_goes_on(module, monkeypatch, tmp_path):
    out = tmp_path / "rows.json"
    monkeypatch.setattr("sys.argv", ["autoencoder", "--quick", "--folder", str(tmp_path), "--out", str(out)])
    module("autoencoder").main()
    written = out.read_bytes()
    rows = json.loads(written)["rows"]
    assert set(rows) == {"fit", "reconstruction", "runs", "noise", "latents"}
    # a copy of a network, moved in its orbit, is found again by signs and permutations
    exact = rows["noise"]["0.0"]
    assert exact["aligned"] == pytest.approx(exact["networks"][0], rel=1e-4)
    assert exact["latent"] == pytest.approx(exact["reconstructions"][0], rel=1e-4)
    assert max(rows["reconstruction"]["orbit"].values()) < 1e-5
    module("autoencoder").main()
    assert out.read_bytes() == written


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_measured_rows_have_a_table(module, path):
    pytest.importorskip("sphinx")
    from docutils.core import publish_string

    found = json.loads(path.read_text())
    text = "\n".join(module("made_from_results").autoencoder_lines(found))
    assert "principal components" in text and "aligned mean" in text and f"the {found['rows']['latents']['winner']} has"
    publish_string(text, writer="html5", settings_overrides={"report_level": 2, "halt_level": 2})


def test_what_was_measured():
    rows = {path.stem.partition("_")[2]: json.loads(path.read_text())["rows"] for path in FILES}
    for row in rows.values():
        assert row["reconstruction"]["orbit"]["latents"] < 1e-5
        assert row["runs"]["latent"] < 0.5 * row["runs"]["aligned"] and row["runs"]["barrier"] < 1e-3
    probe = rows["probe"]
    kept = probe["reconstruction"]
    assert kept["mse"] < 0.003 and kept["judge"] > kept["judge_of_networks"] - 0.02
    assert probe["runs"]["latent"] < 0.2 * probe["runs"]["aligned"]
    for level, share in (("0.01", 1 / 2), ("0.02", 1 / 3)):
        assert probe["noise"][level]["latent"] < share * probe["noise"][level]["aligned"]
