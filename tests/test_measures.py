"""The tables of measures: what reads them, and that a row is all that a new measure takes."""

from __future__ import annotations

import numpy as np
import pytest

from wsflow.architecture import Architecture
from wsflow.cli.rendering import echo_report
from wsflow.evaluation import MEASURES, evaluate, measures
from wsflow.evaluation.measures import DISTRIBUTION, FORECASTS, Measure, measure_average
from wsflow.losses import LOSSES
from wsflow.plotting.style import label_of
from wsflow.task import Task
from wsflow.weights import WeightArray

ARCHITECTURE = Architecture.mlp([4, 5, 3])
RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 4))
TASKS = {
    "classification": Task(X, RNG.integers(3, size=30)),
    "regression": Task(X, RNG.standard_normal((30, 3)), loss="mse"),
}
KINDS = {"", "custom", *(kind for loss in LOSSES.values() for kind in loss.kinds)}
TABLES = {name: table for name, table in vars(measures).items() if name.isupper()}


def report_on(task: Task):
    train, held_out, samples = (
        WeightArray(RNG.standard_normal((n, ARCHITECTURE.n_weights)), ARCHITECTURE, runs=np.arange(n) + first)
        for n, first in ((12, 0), (8, 12), (7, 20))
    )
    return evaluate(samples, train, held_out, task, nulls=False)


def test_there_are_four_tables():
    assert set(TABLES) == {"MEASURES", "DISTRIBUTION", "FORECASTS", "OOD"}


@pytest.mark.parametrize("row", [row for table in TABLES.values() for row in table.values()], ids=lambda row: row.label)
def test_every_row_says_what_it_is(row):
    assert row.label and row.description and label_of(row)
    assert row.better in ("", "higher", "lower") and row.only in KINDS


@pytest.mark.parametrize("kind", TASKS)
def test_a_report_has_the_measures_of_its_task(kind):
    report = report_on(TASKS[kind])
    expected = [key for key, row in MEASURES.items() if row.only in ("", *TASKS[kind].criterion.kinds)]
    for row in (report.training, report.held_out, report.samples):
        assert list(row) == expected
    for spaces in report.distribution.values():
        assert all(list(row) == list(DISTRIBUTION) for row in spaces.values())


@pytest.mark.parametrize("kind", TASKS)
def test_measures_of_the_average_are_those_of_the_forecast(kind):
    report, task = report_on(TASKS[kind]), TASKS[kind]
    found = measure_average(report.predictive["samples"].average, task)
    assert list(found) == [key for key, row in FORECASTS.items() if row.only in task.criterion.kinds]
    assert {f"averaged_{key}": value for key, value in found.items()}.items() <= report.samples.items()


def test_a_new_row_is_in_the_report_and_on_the_command_line(monkeypatch, capsys):
    row = Measure(
        lambda found: float(found.predictive.scores.max()),
        "best accuracy",
        "the best network's accuracy",
        reading="of the best network",
        column="best",
    )
    monkeypatch.setitem(MEASURES, "best", row)
    report = report_on(TASKS["classification"])
    assert report.samples["best"] == report.predictive["samples"].scores.max()
    assert report.to_dict()["held_out"]["best"] == report.held_out["best"]
    echo_report(report, "a report")
    printed = capsys.readouterr().out
    assert "best" in printed.split("training")[0] and "best: of the best network" in printed
    assert f"{report.held_out['best']:.3f}" in printed
