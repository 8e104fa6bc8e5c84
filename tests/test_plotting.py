"""The figure of a report: what it draws, and that it needs no window and no global state."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from wsflow.architecture import Architecture
from wsflow.evaluation.barrier import BarrierMatrix
from wsflow.evaluation.nulls import NULLS
from wsflow.evaluation.report import Report, evaluate
from wsflow.plotting import BarrierMatrixDisplay, EvaluationDisplay, plot_path
from wsflow.plotting.alignment import AlignmentDisplay
from wsflow.plotting.evaluation import _spread
from wsflow.plotting.panels import null_style
from wsflow.task import Task
from wsflow.weights import WeightArray


def a_report(loss: str = "cross_entropy", nulls: bool = True) -> Report:
    rng = np.random.default_rng(0)
    architecture = Architecture.mlp([4, 5, 3])
    X = rng.standard_normal((30, 4))
    y = rng.integers(3, size=30) if loss == "cross_entropy" else rng.standard_normal((30, 3))
    train, held_out, samples = (
        WeightArray(rng.standard_normal((n, architecture.n_weights)), architecture, runs=np.arange(n) + first)
        for n, first in ((30, 0), (10, 30), (20, 40))
    )
    return evaluate(samples, train, held_out, Task(X, y, loss=loss), nulls=nulls)


REPORT = a_report()
CURVE = {"step": [0, 10, 20], "train": [2.0, 1.0, 0.1], "validation": [2.1, np.nan, 0.2]}


def texts(ax) -> str:
    legend = ax.get_legend()
    labels = [text.get_text() for text in legend.get_texts()] if legend else []
    return " ".join([ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), *labels])


def test_four_panels_name_what_they_show():
    performance, barriers, curve, novelty = EvaluationDisplay.from_report(REPORT, curve=CURVE).axes_.flat
    assert all(word in texts(performance) for word in ("samples", "training networks", "gaussian full", "accuracy"))
    assert f"before alignment, mean {REPORT.barrier['before']:.3f}" in texts(barriers)
    assert "held-out runs" in texts(curve)
    assert "1% quantile" in texts(novelty) and f"Novelty {REPORT.samples['novelty']:.2f}" in texts(novelty)


def test_the_clouds_are_the_networks_and_the_markers_their_means():
    ax = EvaluationDisplay.from_report(REPORT).axes_[0, 0]
    clouds = {c.get_label(): c.get_offsets().data for c in ax.collections}
    (each,) = (points for label, points in clouds.items() if label.startswith("samples, each ("))
    found = REPORT.predictive["samples"]
    np.testing.assert_allclose(each[:, 0], found.losses)
    # accuracies are spread by less than half of their spacing, and none is above the best
    assert np.abs(each[:, 1] - found.scores).max() < 0.5 / 30
    assert found.scores.min() <= each[:, 1].min() and each[:, 1].max() <= found.scores.max()
    mean = REPORT.samples["loss"], REPORT.samples["accuracy"]
    np.testing.assert_allclose(clouds["samples, mean"], [mean])
    assert len(clouds["null: noise (0.02, 0.1, 0.3, 1)"]) == 4


def test_no_accuracy_is_drawn_above_one_or_below_zero():
    scores = np.array([1.0] * 50 + [0.9] * 30 + [0.0] * 20)
    spread = _spread(scores)
    assert spread.max() <= 1 and spread.min() >= 0 and len(np.unique(spread)) == 100
    assert np.abs(spread - scores).max() <= 0.1 / 3 + 1e-12
    np.testing.assert_array_equal(_spread(scores[:50]), scores[:50])


def test_networks_that_are_not_drawn_are_counted():
    """Of 200 samples two are far below every mean, and their accuracies outside the axes."""
    predictive = replace(REPORT.predictive["samples"], scores=np.array([0.6] * 198 + [0.0] * 2), losses=np.ones(200))
    report = replace(REPORT, predictive={**REPORT.predictive, "samples": predictive})
    ax = EvaluationDisplay.from_report(report).axes_[0, 0]
    assert "samples, each (198 of 200)" in texts(ax)
    barriers = {"before": np.array([0.1] * 199 + [9.0]), "after": np.full(200, 0.1)}
    ax = EvaluationDisplay.from_report(replace(REPORT, barriers=barriers)).axes_[0, 1]
    assert "mean 0.144, 199 of 200" in texts(ax) and "mean 0.100, 200" in texts(ax)


def test_nulls_differ_in_colour_and_marker_and_have_theirs_in_every_figure():
    styles = [null_style(name) for name in (*NULLS, "one's own")]
    assert len({style["marker"] for style in styles}) == len(styles)
    assert len({style["color"] for style in styles[:-1]}) == len(NULLS)
    assert null_style("noise 0.1") == null_style("noise")
    four, page = EvaluationDisplay.from_report(REPORT).axes_[0, 0], REPORT.plot().axes_[0, 0]
    lines = {line.get_label(): line for line in page.lines}
    clouds = {cloud.get_label().partition(" (")[0]: cloud for cloud in four.collections}
    for name in ("noise", "gaussian diagonal", "gaussian full", "dirichlet"):
        line, cloud = lines[f"null: {name}"], clouds[f"null: {name}"]
        assert line.get_color() == to_hex(cloud.get_edgecolor()[0]).upper()
        assert line.get_marker() == null_style(name.replace(" ", "_"))["marker"]


@pytest.mark.parametrize(("lowest", "ends"), [(-1.0, (-2.0, 2.0)), (-0.01, (0.0, 2.0)), (0.0, (0.0, 2.0))])
def test_maps_of_barriers_are_centred_on_zero_or_begin_there(lowest, ends):
    matrix = BarrierMatrix(np.array([[0.0, 2.0], [lowest, 0.0]]), np.zeros((2, 2)))
    (image,) = BarrierMatrixDisplay.from_matrix(matrix).ax_.images
    assert image.get_clim() == ends
    if lowest == -1:
        red, green, blue, _ = image.cmap(image.norm(0.0))
        assert min(red, green, blue) > 0.95
    assert BarrierMatrixDisplay.from_matrix(matrix, largest=4.0).ax_.images[0].get_clim()[1] == 4


def test_every_figure_has_a_title():
    matrix = BarrierMatrix(np.zeros((2, 2)), np.zeros((2, 2)))
    axes = [BarrierMatrixDisplay.from_matrix(matrix).ax_, *EvaluationDisplay.from_report(REPORT).axes_.flat]
    axes += [*REPORT.plot().axes_.flat, AlignmentDisplay(np.ones(3), np.ones(3), "distance").plot().ax_]
    line = Architecture.mlp([1, 1])
    a, b = WeightArray([[0.0, 0.0]], line), WeightArray([[2.0, 0.0]], line)
    axes.append(plot_path(a, b, Task(np.ones((1, 1)), [0.0], loss="mse"), n_points=1).ax_)
    assert all(ax.get_title() for ax in axes)


def test_the_line_of_likely_copies_is_the_held_out_quantile():
    ax = EvaluationDisplay.from_report(REPORT).axes_[1, 1]
    space = "weights" if REPORT.samples["novelty"] == REPORT.samples["novelty_weights"] else "function"
    expected = np.quantile(getattr(REPORT.nearest["held_out"], space), 0.01)
    assert ax.lines[0].get_xdata()[0] == pytest.approx(expected) and space in ax.get_xlabel()


def test_points_that_were_not_measured_are_left_out_of_the_curve():
    ax = EvaluationDisplay.from_report(REPORT, curve=CURVE).axes_[1, 0]
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [0, 20])
    assert ax.get_yscale() == "log"
    ax = EvaluationDisplay.from_report(REPORT, curve=CURVE | {"validation": []}).axes_[1, 0]
    assert [line.get_label() for line in ax.lines] == ["training runs"]


@pytest.mark.parametrize("options", [{"loss": "mse"}, {"nulls": False}])
def test_regressions_and_reports_without_nulls_are_drawn(options):
    buffer = io.BytesIO()
    EvaluationDisplay.from_report(a_report(**options)).figure_.savefig(buffer, dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_it_draws_on_given_axes():
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 4)
    display = EvaluationDisplay(REPORT).plot(axes)
    assert display.axes_.flat[3] is axes[3] and display.figure_ is axes[0].figure
    with pytest.raises(ValueError, match="are 4, got 2"):
        EvaluationDisplay(REPORT).plot(axes[:2])


def test_no_text_leaves_the_figure_or_covers_another():
    figure = EvaluationDisplay.from_report(REPORT, curve=CURVE).figure_
    figure.draw_without_rendering()
    boxes = [
        text.get_window_extent()
        for ax in figure.axes
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_legend().get_texts())
    ]
    width, height = figure.bbox.size
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_importing_it_loads_no_matplotlib():
    code = "import sys, wsflow.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
