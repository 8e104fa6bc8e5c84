"""Cards say what is known of a model or of a population: no more, and in Markdown whatever a file holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from saved import assert_refused, make_population
from sklearn.pipeline import make_pipeline
from torch import nn

import wsflow
from wsflow.cli import main
from wsflow.exceptions import InvalidInputError, OutputError
from wsflow.flow.divergence import TraceEstimator
from wsflow.models.options import MLP
from wsflow.persistence import describe
from wsflow.persistence.card import card_beside, caveats_of, checksum_in

LAST = Path(__file__).parent / "data" / "0.1"
MODEL, REPORT = LAST / "pipeline.st", LAST / "report.json"
SMALL = {"velocity": MLP(8, 1), "max_iter": 1, "random_state": 0}


@pytest.fixture(scope="module")
def model() -> Any:
    return wsflow.load_model(MODEL)


@pytest.fixture(scope="module")
def report() -> Any:
    return wsflow.load_report(REPORT)


def row(card: str, name: str) -> str:
    return re.search(rf"^\| {name} \| (.*) \|$", card, re.MULTILINE).group(1)


def test_a_card_says_what_is_in_the_file(model):
    card, data = wsflow.model_card(MODEL), describe(MODEL)
    assert card.startswith("---\nlibrary_name: wsflow\ntags:\n- wsflow\n")
    assert f"# A model of {model[-1].architecture_}" in card and "wsflow.sample(model, 100)" in card
    assert (
        row(card, "task") == "iris, loss cross_entropy" and row(card, "task data") == wsflow.load_task("iris").checksum
    )
    assert row(card, "fitted to") == "12 networks of 12 runs"
    assert row(card, "steps") == "PermutationAligner, then ScaleCanonicalizer, then WeightFlow"
    assert "source.shrinkage=0.2" in row(card, "not default")
    history = model[-1].history_
    assert f"{history.step[-1]} steps" in row(card, "trained")
    assert f"validation loss {history.validation[-1]:.4f}" in row(card, "trained")
    assert row(card, "written by").endswith(", wsflow 0.1.0") and checksum_in(card) == data["checksum"]
    assert "was not measured" in card.partition("## Evidence")[2]


def test_a_card_of_an_object_is_that_of_its_file(model, tmp_path):
    wsflow.save_model(model, tmp_path / "model.safetensors")
    assert wsflow.model_card(model) == wsflow.model_card(tmp_path / "model.safetensors")
    population = make_population(5)
    wsflow.save_population(population, tmp_path / "population.safetensors")
    assert wsflow.model_card(population) == wsflow.model_card(tmp_path / "population.safetensors")


def test_a_card_has_the_verdict_and_the_table_of_a_report(report):
    card = wsflow.model_card(MODEL, report)
    evidence = card.partition("## Evidence")[2].partition("## Caveats")[0]
    assert report.verdict and all(f"- {sentence}" in evidence for sentence in report.verdict)
    assert all(f"| {' | '.join(cells)} |" in evidence for cells in report.table())
    assert "4 samples beside 8 training networks of 8 runs, 4 networks of 4 held-out runs" in evidence


def test_a_report_is_read_from_what_0_1_wrote(report):
    data = json.loads(REPORT.read_text(encoding="utf-8"))
    again = report.to_dict()
    assert {name: again[name] for name in again if name != "frontiers"} == {
        name: data[name] for name in data if name != "frontiers"
    }
    assert str(report).endswith(report.verdict[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "good"}, "'verdict' should be"),
        ({"samples": {"accuracy": "high"}}, "'samples.accuracy' should be"),
        ({"score": "beauty"}, "'score' should be one of"),
        ({"counts": {"samples": 4}}, "'counts.training' is missing"),
    ],
)
def test_reports_that_are_none(tmp_path, change, message):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**json.loads(REPORT.read_text(encoding="utf-8")), **change}))
    assert_refused(path, rf"no report: .*{message}", wsflow.load_report)
    path.write_text("{")
    assert_refused(path, "no report: .*not JSON", wsflow.load_report)


def said(thing: Any) -> str:
    return "\n".join(caveats_of(thing))


def test_few_runs_are_said_by_their_number(model):
    assert "Few runs: it was fitted to 12 of networks with 35 weights. With fewer than about 24" in said(model)
    many = wsflow.load_model(MODEL)
    many[-1].n_runs_ = 24
    assert "Few runs" not in said(many)


def test_likelihoods_that_are_estimated_or_do_not_exist_are_said():
    X = np.random.default_rng(0).normal(size=(20, 3))
    exact = wsflow.WeightFlow("euclidean", **SMALL).fit(X)
    assert "estimated" not in said(exact) and "same geometry" in said(exact)
    estimated = wsflow.WeightFlow("euclidean", density=TraceEstimator("hutchinson", 7), **SMALL).fit(X)
    assert "estimated, with 7 probes in 3 dimensions" in said(estimated)
    weights = make_population(12).weights
    none = make_pipeline(wsflow.ScaleCanonicalizer(), wsflow.WeightFlow("normalized", **SMALL)).fit(weights)
    assert f"Samples have no log-density. {none[-1].model_.no_density}" in said(none)
    assert "same geometry" not in said(none)


def test_statistics_that_are_not_modelled_are_said():
    torch.manual_seed(0)
    modules = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(10)]
    weights = wsflow.WeightArray.from_modules(modules, example_input=torch.zeros(2, 3))
    assert "not modelled" in said(wsflow.WeightFlow("euclidean", **SMALL).fit(weights))


def test_where_the_data_of_a_task_are_is_said(model):
    assert "not in the file" in said(model)
    own = wsflow.Task(np.eye(4), np.arange(4) % 3)
    population = make_population(4, own)
    assert "The data of the task are in the file, for everybody who has it." in said(population)
    assert "Networks of one run resemble each other" in said(population)
    assert said(population[::2]).count("\n") == 0


def test_what_a_file_says_stays_in_its_cell():
    population = replace(make_population(3), provenance={"note": "a | b\n\n# c\n<script>alert(1)</script> \\|"})
    card = wsflow.model_card(population)
    assert "<script" not in card and "\n# c" not in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in rows)


@pytest.mark.parametrize("license", ["mit\nextra: 1", "", "a b", 3])
def test_a_license_is_an_identifier(model, license):
    with pytest.raises(InvalidInputError, match="an identifier such as 'mit'"):
        wsflow.model_card(model, license=license)


def test_save_model_writes_the_card_beside_the_file(model, report, tmp_path):
    path, beside = tmp_path / "model.st", tmp_path / "model.md"
    wsflow.save_model(model, path)
    assert not beside.exists()
    wsflow.save_model(model, path, card=True)
    assert checksum_in(beside.read_text(encoding="utf-8")) == describe(path)["checksum"]
    assert 'wsflow.load_model("model.st")' in beside.read_text(encoding="utf-8")
    wsflow.save_model(model, path, report=report)
    assert report.verdict[0] in beside.read_text(encoding="utf-8")


def test_notes_of_another_kind_are_not_replaced_by_a_card(model, tmp_path):
    path, beside = tmp_path / "model.st", tmp_path / "model.md"
    beside.write_text("My notes.")
    with pytest.raises(OutputError, match=r"model\.md: this file is no card of wsflow"):
        wsflow.save_model(model, path, card=True)
    assert beside.read_text() == "My notes." and not path.exists()


@pytest.mark.parametrize(
    ("name", "card"),
    [("model.st", "model.md"), ("model", "model.md"), ("m.x.safetensors", "m.x.md"), ("m.md", "m.md.md"),
     ("zoo.safetensors.index.json", "zoo.md")],
)  # fmt: skip
def test_the_name_of_a_card(name, card):
    assert card_beside(Path(name)) == Path(card)


def test_the_command_prints_a_card_or_writes_it(tmp_path):
    result = CliRunner().invoke(main, ["card", str(MODEL), "--report", str(REPORT), "--license", "mit"])
    assert result.exit_code == 0 and result.output == wsflow.model_card(MODEL, wsflow.load_report(REPORT), "mit")
    out = tmp_path / "model.md"
    result = CliRunner().invoke(main, ["card", str(LAST / "shards.safetensors.index.json"), "-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"path": str(out), "card": out.read_text(encoding="utf-8")}
    assert "# 6 networks" in json.loads(result.output)["card"]
    result = CliRunner().invoke(main, ["card", str(MODEL), "--report", str(MODEL)])
    assert result.exit_code == InvalidInputError.exit_code and "no report" in result.output
