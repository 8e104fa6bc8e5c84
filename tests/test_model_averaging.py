"""The posterior predictive: averages of more and more networks, calibration, and foreign inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsflow.architecture import Architecture
from wsflow.evaluation.calibration import expected_calibration_error, reliability
from wsflow.evaluation.measures import measure_average
from wsflow.evaluation.model_averaging import predictive_curve
from wsflow.evaluation.ood_detection import ood_auroc
from wsflow.evaluation.predictive import predict
from wsflow.exceptions import InvalidInputError
from wsflow.plotting import PredictiveDisplay, ReportDisplay
from wsflow.task import Task
from wsflow.weights import WeightArray

RNG = np.random.default_rng(0)
TASK = Task(RNG.standard_normal((40, 4)), RNG.integers(3, size=40))
ARCHITECTURE = Architecture.mlp([4, 6, 3])
WEIGHTS = WeightArray(RNG.standard_normal((12, ARCHITECTURE.n_weights)), ARCHITECTURE)
FOREIGN = 9 * RNG.standard_normal((25, 4))


def probabilities(rng: np.random.Generator, b: int, k: int = 3) -> np.ndarray:
    return rng.dirichlet(np.ones(k), size=b)


class TestCurve:
    def test_one_network_is_the_mean_over_networks_and_all_of_them_one_average(self):
        curve = predictive_curve(WEIGHTS, TASK, sizes=(1, 12, 500), draws=300, random_state=1)
        said = predict(WEIGHTS, TASK)
        assert curve.sizes == (1, 12)
        assert curve.mean["accuracy"][0] == pytest.approx(said.scores.mean(), abs=4 * said.scores.std() / 300**0.5)
        for key, value in measure_average(said.average, TASK).items():
            assert curve.mean[key][1] == pytest.approx(value, rel=1e-5)
            assert curve.sd[key][1] == pytest.approx(0, abs=1e-6)

    def test_averaging_lowers_convex_losses_on_average(self):
        # Jensen: the loss of the mean forecast is at most the mean loss
        curve = predictive_curve(WEIGHTS, TASK, sizes=(1, 4, 12), draws=200)
        for key in ("nll", "brier"):
            assert (np.diff(curve.mean[key]) < 0).all()

    def test_it_is_seeded_and_chunks_and_other_sizes_change_nothing(self, monkeypatch):
        first = predictive_curve(WEIGHTS, TASK, sizes=(2, 5), ood=FOREIGN)
        assert set(first.mean) == {"accuracy", "nll", "brier", "ece", "ood_auroc"}
        other = predictive_curve(WEIGHTS, TASK, sizes=(2, 5), ood=FOREIGN, random_state=1)
        assert other.mean["nll"][0] != first.mean["nll"][0]
        monkeypatch.setattr("wsflow.evaluation.predictive.CHUNK_NUMBERS", 1)
        again = predictive_curve(WEIGHTS, TASK, sizes=(5,), ood=FOREIGN)
        for key, values in first.mean.items():
            assert again.mean[key][0] == pytest.approx(values[1], rel=1e-5)

    def test_a_regression_has_an_error_and_no_foreign_inputs(self):
        task = Task(TASK.X, RNG.standard_normal((40, 3)), loss="mse")
        curve = predictive_curve(WEIGHTS, task, sizes=(1, 12))
        assert set(curve.mean) == {"r2", "mse"} and curve.mean["mse"][1] < curve.mean["mse"][0]
        with pytest.raises(InvalidInputError, match="regression"):
            predictive_curve(WEIGHTS, task, ood=FOREIGN)

    def test_impossible_sizes_are_named(self):
        with pytest.raises(InvalidInputError, match="No average of 50 networks can be made of 12"):
            predictive_curve(WEIGHTS, TASK, sizes=(50, 100))


class TestForeignInputs:
    @pytest.mark.parametrize("score", ["entropy", "max_probability"])
    def test_it_is_the_share_of_pairs_in_order(self, score):
        rng = np.random.default_rng(1)
        inside, outside = probabilities(rng, 30), probabilities(rng, 20) ** 0.5
        outside /= outside.sum(1, keepdims=True)
        doubt = {"entropy": lambda p: -(p * np.log(p)).sum(1), "max_probability": lambda p: -p.max(1)}[score]
        expected = (doubt(outside)[:, None] > doubt(inside)).mean()
        assert ood_auroc(inside, outside, score) == pytest.approx(expected)

    def test_guessing_is_a_half_and_certainty_against_doubt_is_one(self):
        sure, blank = np.eye(3), np.full((4, 3), 1 / 3)
        assert ood_auroc(blank, blank) == 0.5 and ood_auroc(sure, blank) == 1 and ood_auroc(blank, sure) == 0
        with pytest.raises(ValueError, match="one of entropy, max_probability"):
            ood_auroc(sure, blank, "margin")


class TestReliability:
    @given(st.integers(0, 30), st.integers(1, 20))
    def test_bins_add_up(self, seed, n_bins):
        rng = np.random.default_rng(seed)
        p, y = probabilities(rng, 25), rng.integers(3, size=25)
        found = reliability(p, y, n_bins)
        known = found.share > 0
        assert found.share.sum() == pytest.approx(1)
        assert (found.share * found.accuracy)[known].sum() == pytest.approx((p.argmax(1) == y).mean())
        assert (found.share * found.confidence)[known].sum() == pytest.approx(p.max(1).mean())
        edges = np.arange(n_bins + 1) / n_bins
        centres = found.confidence[known]
        assert ((centres >= edges[:-1][known] - 1e-12) & (centres <= edges[1:][known] + 1e-12)).all()

    def test_the_calibration_error_is_that_of_torchmetrics(self):
        torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
        import torch

        rng = np.random.default_rng(0)
        p, y = probabilities(rng, 200), rng.integers(3, size=200)
        error = torchmetrics.multiclass_calibration_error(torch.from_numpy(p), torch.from_numpy(y), 3, n_bins=15)
        assert expected_calibration_error(p, y) == pytest.approx(float(error), abs=1e-6)


class TestDisplays:
    def test_a_panel_for_each_number_and_a_line_for_each_source(self):
        with_foreign = predictive_curve(WEIGHTS, TASK, sizes=(1, 5), ood=FOREIGN)
        display = PredictiveDisplay({"flow": with_foreign, "ensemble": with_foreign}).plot()
        assert len(display.axes_) == 5 and "AUROC" in display.axes_[4].get_ylabel()
        for ax, key in zip(display.axes_, with_foreign.mean, strict=True):
            assert [line.get_label() for line in ax.lines] == ["flow", "ensemble"]
            np.testing.assert_array_equal(ax.lines[1].get_ydata(), with_foreign.mean[key])
        # only what all sources have
        plain = predictive_curve(WEIGHTS, TASK, sizes=(1, 5))
        assert len(PredictiveDisplay({"flow": with_foreign, "ensemble": plain}).plot().axes_) == 4
        with pytest.raises(ValueError, match="at least one curve"):
            PredictiveDisplay({}).plot()
        with pytest.raises(ValueError, match="are 4, got 1"):
            PredictiveDisplay({"flow": plain}).plot([display.axes_[0]])

    @pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
    def test_one_page_has_the_curves_the_calibration_and_the_verdict(self, loss):
        from test_plotting import a_report

        report = a_report(loss)
        display = ReportDisplay.from_report(report)
        ax = display.axes_[1, 1]
        lines = {line.get_label(): line for line in ax.lines}
        curve = report.frontiers["gaussian_full"]
        expected = [(row["dispersion"], row["loss"]) for row in curve.rows]
        np.testing.assert_allclose(lines["null: gaussian full"].get_xydata(), expected)
        text = " ".join(display.axes_[1, 3].texts[0].get_text().split())
        assert all(sentence in text for sentence in report.verdict)
        assert bool(display.axes_[1, 2].lines) == (loss == "cross_entropy")
        display.figure_.draw_without_rendering()
        box = display.axes_[1, 3].texts[0].get_window_extent()
        assert box.y0 >= 0 and box.x1 <= display.figure_.bbox.width
