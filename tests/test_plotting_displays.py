"""Figures of flows, of calibration, of frontiers and of lines between networks: they draw the numbers."""

from __future__ import annotations

import builtins
import copy

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from test_plotting import REPORT, a_report
from test_plotting_connectivity import HILL, a_task, networks

import wsflow
from wsflow import PermutationAligner, Population, ScaleCanonicalizer, Task, WeightFlow
from wsflow.evaluation import loss_path, predict, reliability
from wsflow.evaluation.calibration import expected_calibration_error
from wsflow.evaluation.connectivity import LossPath, chord
from wsflow.evaluation.projection import principal_directions
from wsflow.exceptions import InvalidInputError
from wsflow.flow.adaptive import PARTS, DormandPrince
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import NeuronTransformer
from wsflow.plotting import (
    ConnectivityDisplay,
    FrontierDisplay,
    ReliabilityDisplay,
    TrainingCurveDisplay,
    TrajectoryDisplay,
)

SMALL = NeuronTransformer(width=8, depth=1, heads=2)


@pytest.fixture(scope="module")
def model():
    """A pipeline that was fitted to networks without a task."""
    flow = WeightFlow(max_iter=60, random_state=0, velocity=SMALL)
    return make_pipeline(PermutationAligner(), ScaleCanonicalizer(), flow).fit(networks(40))


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestTrajectories:
    @pytest.mark.parametrize("solver", ["midpoint", "euler", RungeKutta(n_steps=5), "rk4", DormandPrince(1e-4, 1e-5)])
    def test_they_end_in_the_samples_of_the_same_seed_and_begin_in_the_source(self, model, solver):
        flow = copy.copy(model[-1]).set_params(solver=solver)
        times, points = flow.trajectories(3, random_state=4)
        samples = flow.sample(3, random_state=4)
        # in parts, steps of an adaptive solver are other ones
        atol = 1e-3 if isinstance(solver, DormandPrince) else 1e-5
        np.testing.assert_allclose(points[-1], flow.to_manifold(samples), atol=atol)
        assert times[0] == 0 and times[-1] == pytest.approx(1) and (np.diff(times) > 0).all()
        n_steps = PARTS if isinstance(solver, DormandPrince) else getattr(solver, "n_steps", 8)
        assert len(times) == len(points) == 1 + n_steps
        _, others = flow.trajectories(3, random_state=4, temperature=0.0)
        assert np.abs(others[0] - others[0, :1]).max() < 1e-5 < np.abs(points[0] - points[0, :1]).max()

    def test_the_ways_are_drawn_on_the_directions_of_training_networks(self, model):
        display = TrajectoryDisplay.from_estimator(model, networks(40), 6, random_state=1)
        known = model[-1].to_manifold(model[:-1].transform(networks(40)))
        pca = PCA(2).fit(known)
        _, points = model[-1].trajectories(6, random_state=1)
        assert len(display.ax_.lines) == 6
        for line, way in zip(display.ax_.lines, points.swapaxes(0, 1), strict=True):
            np.testing.assert_allclose(np.transpose(line.get_data()), pca.transform(way), atol=1e-6)
        training, source, samples = (np.asarray(cloud.get_offsets()) for cloud in display.ax_.collections)
        np.testing.assert_allclose(training, pca.transform(known), atol=1e-6)
        np.testing.assert_allclose(source, pca.transform(points[0]), atol=1e-6)
        np.testing.assert_allclose(samples, pca.transform(points[-1]), atol=1e-6)
        assert labels(display.ax_) == ["training networks: 40", "source, t = 0: 6", "samples, t = 1: 6"]

    def test_without_training_networks_the_directions_are_those_of_samples(self, model):
        ax = Figure().subplots()
        display = TrajectoryDisplay.from_estimator(model[-1], n_samples=5, random_state=1, ax=ax)
        _, points = model[-1].trajectories(5, random_state=1)
        np.testing.assert_allclose(display.paths[-1], principal_directions(points[-1]).transform(points[-1]))
        assert display.ax_ is ax and len(ax.collections) == 2 and ax.get_aspect() == 1

    def test_populations_and_pipelines_of_the_flow_alone_are_taken(self, model):
        canonical = model[:-1].transform(networks(40))
        alone = TrajectoryDisplay.from_estimator(make_pipeline(model[-1]), canonical, 2, random_state=0)
        piped = TrajectoryDisplay.from_estimator(model, Population(networks(40)), 2, random_state=0)
        np.testing.assert_allclose(alone.training, piped.training, atol=1e-9)

    def test_errors_are_sentences(self, model):
        with pytest.raises(InvalidInputError, match="ends with one, got ScaleCanonicalizer"):
            TrajectoryDisplay.from_estimator(model[:-1])
        with pytest.raises(NotFittedError):
            TrajectoryDisplay.from_estimator(WeightFlow())
        with pytest.raises(ValueError, match="n_samples"):
            TrajectoryDisplay.from_estimator(model, n_samples=0)


class TestTrainingCurve:
    def test_it_is_the_history(self, model):
        ax = Figure().subplots()
        display, history = TrainingCurveDisplay.from_estimator(model, ax=ax), model[-1].history_
        train, validation, kept = display.ax_.lines
        np.testing.assert_array_equal(train.get_data(), [history.step, history.train])
        np.testing.assert_array_equal(validation.get_ydata(), history.validation)
        assert kept.get_xdata() == [history.best_step, history.best_step] and display.figure_ is ax.figure
        assert labels(ax)[2] == f"step {history.best_step}: the weights that are kept"

    def test_errors_are_sentences(self, model):
        with pytest.raises(InvalidInputError, match="TrainingCurveDisplay is of a WeightFlow"):
            TrainingCurveDisplay.from_estimator(PermutationAligner())
        with pytest.raises(NotFittedError):
            TrainingCurveDisplay.from_estimator(WeightFlow())

    def test_energy_matching_follows_flow_matching(self):
        curve = {"step": [50, 100], "train": [2.0, 1.0], "validation": [], "best_step": 100, "energy": [0.5, 0.25, 0.1]}
        display = TrainingCurveDisplay(curve).plot()
        (right,) = (ax for ax in display.figure_.axes if ax is not display.ax_)
        np.testing.assert_array_equal(right.lines[0].get_data(), [[150, 200, 250], curve["energy"]])
        assert "energy matching (right)" in labels(display.ax_) and right.get_ylabel().startswith("energy distance")


class TestFrontier:
    @pytest.mark.parametrize(("x", "y"), [("novelty", None), ("dispersion", "loss")])
    def test_samples_and_nulls_stand_at_their_numbers(self, x, y):
        display = FrontierDisplay.from_report(REPORT, x=x, y=y)
        y = y or "accuracy"
        held_out, samples = (np.asarray(cloud.get_offsets())[0] for cloud in display.ax_.collections)
        assert samples.tolist() == [REPORT.samples[x], REPORT.samples[y]]
        assert held_out.tolist() == [REPORT.held_out[x], REPORT.held_out[y]]
        lines = {line.get_label(): line for line in display.ax_.lines}
        curve = REPORT.frontiers["noise"]
        np.testing.assert_array_equal(lines["null: noise"].get_xdata(), [row[x] for row in curve.rows])
        assert display.ax_.get_yscale() == ("log" if y == "loss" else "linear") and display.ax_.get_title()

    def test_what_is_no_measure_of_the_report_is_refused(self):
        with pytest.raises(ValueError, match="'x' of FrontierDisplay is novelty or dispersion, got 'accuracy'"):
            FrontierDisplay(REPORT, "accuracy")
        with pytest.raises(ValueError, match="'y' of FrontierDisplay is accuracy or loss, got 'r2'"):
            FrontierDisplay(REPORT, y="r2")


class TestReliability:
    def test_points_are_accuracy_at_confidence(self):
        rng = np.random.default_rng(0)
        forecast = rng.dirichlet(np.ones(3), size=200)
        targets = rng.integers(3, size=200)
        display = ReliabilityDisplay.from_predictions(forecast, targets, name="mine", n_bins=5)
        found = reliability(forecast, targets, 5)
        known = found.share > 0
        diagonal, line = display.ax_.lines
        np.testing.assert_array_equal(line.get_data(), [found.confidence[known], found.accuracy[known]])
        assert np.array_equal(diagonal.get_data(), [[0, 1], [0, 1]]) and line.get_ydata().max() <= 1
        error = expected_calibration_error(forecast, targets, n_bins=5)
        # by hand: the mean over examples of how far their bin is from the diagonal
        bins = np.ceil(5 * forecast.max(1))
        right = forecast.argmax(1) == targets
        gaps = [abs(right[bins == b].mean() - forecast.max(1)[bins == b].mean()) for b in bins]
        assert error == pytest.approx(np.mean(gaps)) and f"mine, error {error:.3f}" in labels(display.ax_)

    def test_networks_are_averaged_on_held_out_data(self):
        task = Task(a_task().X, a_task().y, test=Task(a_task().X[::-1], a_task().y))
        display = ReliabilityDisplay.from_networks({"samples": networks(5), "one": networks(1)}, task)
        expected = reliability(predict(networks(5), task.test).average, task.test.targets)
        np.testing.assert_array_equal(display.curves["samples"].accuracy, expected.accuracy)
        assert [text.split(",")[0] for text in labels(display.ax_)] == ["calibrated", "samples", "one"]

    def test_a_report_has_the_same_curves_on_its_page(self):
        display = ReliabilityDisplay.from_report(REPORT)
        page = REPORT.plot().axes_[1, 2]
        for line, other in zip(display.ax_.lines, page.lines, strict=True):
            np.testing.assert_array_equal(line.get_data(), other.get_data())
        assert labels(display.ax_) == labels(page)
        assert f"samples, error {REPORT.samples['averaged_ece']:.3f}" in labels(page)

    def test_regressions_are_refused(self):
        report = a_report("mse", nulls=False)
        with pytest.raises(InvalidInputError, match="the task of this report has none"):
            ReliabilityDisplay.from_report(report)
        with pytest.raises(InvalidInputError, match="this task has none"):
            ReliabilityDisplay.from_networks(networks(2), Task(np.eye(4), np.eye(4, 3), loss="mse"))
        with pytest.raises(ValueError, match="at least one curve"):
            ReliabilityDisplay({})


class TestConnectivity:
    def test_loss_and_score_have_a_panel_each_with_both_paths(self):
        weights, task = networks(2), a_task()
        display = ConnectivityDisplay.from_networks(Population(weights[:1]), weights[1:], task, 5, names=("one", "two"))
        aligned = PermutationAligner(task=task, reference="first", random_state=0).fit_transform(weights)
        expected = [loss_path(w[:1], w[1:], task, 5) for w in (weights, aligned)]
        for ax, values in zip(display.axes_, ("losses", "scores"), strict=True):
            assert labels(ax) == ["before alignment", "after alignment"] and "network one at 0" in ax.get_xlabel()
            for index, path in enumerate(expected):
                line, dashed = ax.lines[3 * index + 1], ax.lines[3 * index]
                np.testing.assert_allclose(line.get_ydata(), getattr(path, values)[0])
                np.testing.assert_allclose(dashed.get_ydata(), chord(getattr(path, values)[0]))
        assert display.axes_[1].get_title() == "Accuracy between networks"
        # the end stays the same function
        np.testing.assert_allclose(expected[1].losses[:, [0, -1]], expected[0].losses[:, [0, -1]])

    def test_a_score_that_is_the_loss_has_no_panel(self):
        path = LossPath(HILL.t, HILL.losses, -HILL.losses, "minus_loss")
        assert len(ConnectivityDisplay({"mine": path}).plot().axes_) == 1

    def test_it_draws_on_given_axes(self):
        axes = Figure().subplots(1, 2)
        assert ConnectivityDisplay({"mine": HILL}).plot(axes).axes_[1] is axes[1]
        with pytest.raises(ValueError, match="are 2, got 1"):
            ConnectivityDisplay({"mine": HILL}).plot(axes[0])

    def test_errors_are_sentences(self):
        with pytest.raises(InvalidInputError, match="aligned to one, but 'a' has 2"):
            ConnectivityDisplay.from_networks(networks(2), networks(2), a_task())
        with pytest.raises(ValueError, match="at least one path"):
            ConnectivityDisplay({})


def test_without_matplotlib_a_sentence_says_so(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InvalidInputError, match="Figures need matplotlib, which is not installed: pip install"):
        ConnectivityDisplay({"mine": HILL}).plot()


def test_midpoint_barriers_are_called_so():
    weights, task = networks(3), a_task()
    for n_points, name in ((1, "Midpoint loss barriers between networks"), (5, "Loss barriers between networks")):
        assert wsflow.plot_barrier_matrix(weights, task, n_points).ax_.get_title() == name
