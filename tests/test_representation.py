"""Objects in a line or a table, names of columns, and frames of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow import Architecture, PermutationAligner, Population, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.evaluation import Evaluator
from wsflow.models.options import MLP
from wsflow.representation import html_table, in_a_line, summary, text_table

LINE = 120


@pytest.fixture(scope="module")
def population():
    return wsflow.train_population(wsflow.load_task("iris"), (4,), 12, epochs=1)


@pytest.fixture(scope="module")
def report(population):
    weights = population.weights
    return wsflow.evaluate(weights[:4], weights[:8], weights[8:], population.task, nulls=False)


@pytest.fixture(scope="module")
def shown(population, report):
    """Objects by name, most of which hold arrays."""
    weights = population.weights
    _, action = PermutationAligner().fit(weights).transform(weights, return_action=True)
    flow = WeightFlow("euclidean", velocity=MLP(8, 1), max_iter=1, random_state=0).fit(weights)
    evaluator = Evaluator.of(weights[:6], weights[6:], population.task)
    return {
        "report": report,
        "architecture": population.architecture,
        "large architecture": Architecture.mlp([10] * 50),
        "population": population,
        "weights": weights,
        "action": action,
        "flow's model": flow.model_,
        "history": flow.history_,
        "geometry": flow.geometry_,
        "evaluator": evaluator,
        "measured": evaluator.measure(weights[:3]),
        "embedding": evaluator.train,
        "nearest": evaluator.nearest,
        "predictive": report.predictive["samples"],
        "average": wsflow.posterior_predictive(weights, population.task),
        "curve": wsflow.predictive_curve(weights, population.task, (1, 2)),
    }


NAMES = [
    "report",
    "architecture",
    "large architecture",
    "population",
    "weights",
    "action",
    "flow's model",
    "history",
    "geometry",
    "evaluator",
    "measured",
    "embedding",
    "nearest",
    "predictive",
    "average",
    "curve",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_representation_is_a_line_that_names_the_class(shown, name):
    text = repr(shown[name])
    assert len(text) <= LINE and "\n" not in text
    assert type(shown[name]).__name__ in text


def test_a_representation_says_what_matters(shown, report):
    assert repr(shown["architecture"]) == "<Architecture: 4-4-3 relu (35 weights)>"
    accuracy = report.samples["accuracy"]
    assert repr(report).startswith(f"<Report: accuracy {accuracy:.3f}, loss {report.samples['loss']:.3f}, novelty")
    assert "architecture=<Architecture: 4-4-3 relu (35 weights)>" in repr(
        PermutationAligner(architecture=shown["architecture"])
    )
    assert repr(shown["nearest"]) == "NearestDistances(weights=<float64 (6,)>, function=<float64 (6,)>)"


def test_a_printed_report_is_a_table_and_its_verdict(report):
    lines = str(report).split("\n")
    assert lines[0].split() == ["accuracy", "loss", "novelty", "dispersion"]
    assert [line.split("  ")[0] for line in lines[1:4]] == ["training", "held-out runs", "samples"]
    assert lines[3].split()[1:] == [f"{report.samples[key]:.3f}" for key in report.headline]
    assert lines[5:] == report.verdict
    assert max(map(len, lines[:4])) < LINE


@pytest.mark.parametrize("name", ["report", "architecture", "large architecture", "population", "weights"])
def test_notebooks_get_a_table(shown, name):
    html = shown[name]._repr_html_()
    assert html.startswith("<table><caption>") and html.count("<table>") == html.count("</table>") == 1
    assert html.count("<tr>") <= 45


def cells(html):
    return dict(re.findall(r"<tr><th>([^<]*)</th><td>([^<]*)</td>", html))


def test_tables_say_what_matters(population):
    found = cells(population._repr_html_())
    assert (found["networks"], found["runs"], found["architecture"]) == ("12", "12", "4-4-3 relu (35 weights)")
    assert found["task"].startswith("iris: 120 examples, 4 inputs, 3 outputs")
    assert found["learning_rate"] == "0.001"
    assert cells(population.architecture._repr_html_()) == {
        "0.weight": "4 x 4", "0.bias": "4", "2.weight": "3 x 4", "2.bias": "3"
    }  # fmt: skip
    snapshots = WeightArray(np.zeros((4, 35)), population.architecture, runs=[0, 0, 1, 1], steps=[1, 9, 1, 9])
    assert cells(snapshots._repr_html_())["steps"] == "1 to 9"
    assert cells(Population(snapshots)._repr_html_())["task"] == "none"
    assert cells(snapshots[:0]._repr_html_())["networks"] == "0"


def test_a_table_escapes_what_others_wrote():
    html = html_table("<script>", [("<b>", "&")], ("<i>", ""))
    assert "<script>" not in html and "<b>" not in html and "<i>" not in html and "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros((3, 2), dtype=np.float32), "<float32 (3, 2)>"),
        (0.123456789, "0.1235"),
        (np.float64(2.5), "2.5"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "<a, b, c, ...>"),
        ([1] * 100, "<100 items>"),
        ("x" * 100, "<str>"),
        (None, "None"),
    ],
)
def test_values_are_summed_up(value, expected):
    assert summary(value) == expected


def test_columns_of_a_table_are_aligned():
    assert text_table([["", "a"], ["long name", "10.5"]]) == "              a\nlong name  10.5"


def test_fields_that_are_left_out_stay_so():
    from dataclasses import dataclass, field

    @in_a_line
    @dataclass
    class Found:
        x: int
        y: int = field(repr=False)

    assert repr(Found(1, 2)).endswith("Found(x=1)")


ARCHITECTURE = Architecture.mlp([2, 2, 1])
WEIGHTS = ["0.weight[0,0]", "0.weight[0,1]", "0.weight[1,0]", "0.weight[1,1]", "0.bias[0]", "0.bias[1]"]
WEIGHTS += ["2.weight[0,0]", "2.weight[0,1]", "2.bias[0]"]


def networks(n=12):
    return WeightArray(np.random.default_rng(0).normal(size=(n, 9)), ARCHITECTURE)


@pytest.mark.parametrize("make", [PermutationAligner, ScaleCanonicalizer])
class TestNamesOfColumns:
    def test_they_are_those_of_the_weights(self, make):
        assert make().fit(networks()).get_feature_names_out().tolist() == WEIGHTS
        for column, name in enumerate(WEIGHTS):
            parameter, index = ARCHITECTURE.locate(column)
            assert name == f"{parameter}[{','.join(map(str, index))}]"

    def test_names_of_fit_come_first(self, make):
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame(np.asarray(networks()), columns=[f"w{i}" for i in range(9)])
        step = make(architecture=ARCHITECTURE).fit(frame)
        assert step.get_feature_names_out().tolist() == list(frame.columns)
        with pytest.raises(ValueError, match="input_features"):
            step.get_feature_names_out(["other"] * 9)

    def test_frames_hold_the_same_numbers(self, make):
        pytest.importorskip("pandas")
        step = make().fit(networks())
        expected = step.transform(networks())
        frame = step.set_output(transform="pandas").transform(networks())
        assert list(frame.columns) == WEIGHTS
        np.testing.assert_array_equal(frame.to_numpy(), np.asarray(expected))
        moved, action = step.transform(networks(), return_action=True)
        assert list(moved.columns) == WEIGHTS and action.architecture == ARCHITECTURE


def test_a_pipeline_names_its_columns_and_goes_on_with_frames_where_the_architecture_is_said():
    pytest.importorskip("pandas")
    model = make_pipeline(PermutationAligner(), ScaleCanonicalizer(architecture=ARCHITECTURE))
    assert model.fit(networks()).get_feature_names_out().tolist() == WEIGHTS
    expected = model.transform(networks())
    frame = model.set_output(transform="pandas").fit_transform(networks())
    np.testing.assert_array_equal(frame.to_numpy(), np.asarray(expected))


def test_a_task_is_a_line():
    X, y = np.zeros((5, 3)), ["a", "b", "a", "b", "c"]
    task = wsflow.Task(X, y, test=wsflow.Task(X[:2], ["a", "b"]), source={"name": "letters"})
    assert repr(task) == "<Task: letters, 5 examples of shape (3,), 2 for test; cross_entropy of 3 outputs>"
