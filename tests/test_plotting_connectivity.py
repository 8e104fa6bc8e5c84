"""Figures of paths and of barriers: they draw the numbers, say what they are, and touch no global state."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from wsflow import Architecture, Task, WeightArray, plot_barrier_matrix, plot_path
from wsflow.evaluation.barrier import BarrierMatrix, barrier_matrix
from wsflow.evaluation.connectivity import LossPath
from wsflow.plotting import BarrierMatrixDisplay, PathDisplay

T = np.linspace(0, 1, 11)
HILL = LossPath(T, np.stack([T + np.sin(np.pi * T), T + 3 * np.sin(np.pi * T)]), np.stack([1 - T**2, 1 - T**4]))
ONE = LossPath(T, HILL.losses[:1], HILL.scores[:1])


def networks(n: int) -> WeightArray:
    architecture = Architecture.mlp([4, 5, 3])
    return WeightArray(np.random.default_rng(0).standard_normal((n, architecture.n_weights)), architecture)


def a_task() -> Task:
    rng = np.random.default_rng(1)
    return Task(rng.standard_normal((30, 4)), rng.integers(3, size=30))


class TestPath:
    def test_path_chord_and_ends_are_drawn(self):
        ax = PathDisplay.from_path(ONE).ax_
        chord, path, ends = ax.lines
        np.testing.assert_allclose(path.get_ydata(), ONE.losses[0])
        np.testing.assert_allclose(chord.get_ydata(), T)
        assert ends.get_xdata().tolist() == [0, 1] and ends.get_ydata().tolist() == pytest.approx([0, 1])

    def test_the_barrier_stands_beside_its_arrow(self):
        arrow, text = PathDisplay.from_path(ONE).ax_.texts
        assert text.get_text() == "barrier 1" and arrow.xy == pytest.approx((0.5, 1.5))
        assert arrow.xyann == pytest.approx((0.5, 0.5))

    def test_a_score_falls_below_its_chord(self):
        display = PathDisplay.from_path(ONE, quantity="score", names=("start", "end"))
        assert display.ax_.get_ylabel() == "accuracy"
        assert "network start at 0" in display.ax_.get_xlabel()
        # the accuracy 1 - t^2 is above its chord 1 - t: the barrier is negative
        assert display.ax_.texts[1].get_text() == f"barrier {ONE.score_barrier[0]:.3g}"
        assert ONE.score_barrier[0] < 0

    def test_many_pairs_have_thin_lines_and_a_mean(self):
        ax = PathDisplay.from_path(HILL, label="aligned").ax_
        assert len(ax.lines) == 2 + 3
        np.testing.assert_allclose(ax.lines[3].get_ydata(), HILL.losses.mean(0))
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["aligned, mean of 2 pairs"]

    def test_paths_share_given_axes(self):
        ax = Figure().subplots()
        display = PathDisplay.from_path(ONE, ax=ax, label="one")
        assert PathDisplay.from_path(ONE, ax=ax, label="two").ax_ is ax and display.figure_ is ax.figure
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["one", "two"]

    def test_it_measures_networks(self):
        weights, task = networks(2), a_task()
        display = plot_path(weights[:1], weights[1:], task, 5)
        other = PathDisplay.from_networks(weights[:1], weights[1:], task, 5)
        np.testing.assert_array_equal(display.path.losses, other.path.losses)
        assert display.path.losses.shape == (1, 7)

    def test_a_wrong_quantity_is_refused(self):
        with pytest.raises(ValueError, match="loss or score"):
            PathDisplay(ONE, "accuracy")


class TestMatrix:
    def test_cells_have_their_numbers_in_a_colour_that_can_be_read(self):
        values = np.array([[0.0, 1.5, 0.3], [1.5, 0.0, 3.0], [0.3, 3.0, 0.0]])
        ax = BarrierMatrixDisplay.from_matrix(BarrierMatrix(values, values / 10)).ax_
        assert [t.get_text() for t in ax.texts] == ["0", "1.5", "0.3", "1.5", "0", "3", "0.3", "3", "0"]
        assert ax.texts[0].get_color() == "white" and ax.texts[5].get_color() == "black"
        np.testing.assert_array_equal(ax.images[0].get_array(), values)
        shared = BarrierMatrixDisplay.from_matrix(BarrierMatrix(values, values / 10), largest=12)
        assert shared.ax_.images[0].get_clim() == (0, 12) and shared.ax_.texts[5].get_color() == "white"

    def test_axes_and_colours_are_labelled(self):
        matrix = BarrierMatrix(np.zeros((2, 2)), np.zeros((2, 2)), score="r2")
        display = BarrierMatrixDisplay.from_matrix(matrix, quantity="score", names=["one", "two"])
        assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["one", "two"]
        assert display.figure_.axes[1].get_ylabel() == "$R^2$ barrier"

    def test_large_matrices_have_few_ticks_and_no_numbers(self):
        matrix = BarrierMatrix(np.zeros((40, 40)), np.zeros((40, 40)))
        ax = BarrierMatrixDisplay.from_matrix(matrix).ax_
        assert not ax.texts and len(ax.get_xticks()) <= 20

    def test_it_measures_networks(self):
        weights, task = networks(5), a_task()
        display = plot_barrier_matrix(weights[:2], task, 3, others=weights[2:])
        expected = barrier_matrix(weights[:2], task, 3, others=weights[2:]).losses
        np.testing.assert_allclose(display.matrix.losses, expected)
        assert BarrierMatrixDisplay.from_networks(weights, task, 1, names=list("abcde")).ax_.images

    def test_errors_are_sentences(self):
        matrix = BarrierMatrix(np.zeros((2, 2)), np.zeros((2, 2)))
        with pytest.raises(ValueError, match="a name for each row"):
            BarrierMatrixDisplay(matrix, names=["one"])
        with pytest.raises(ValueError, match="loss or score"):
            BarrierMatrixDisplay(matrix, "barrier")


@pytest.mark.parametrize("display", [PathDisplay.from_path(HILL, label="aligned"), PathDisplay.from_path(ONE)])
def test_no_text_leaves_the_figure(display):
    display.figure_.draw_without_rendering()
    ax = display.ax_
    boxes = [text.get_window_extent() for text in (ax.xaxis.label, ax.yaxis.label, ax.texts[1])]
    width, height = display.figure_.bbox.size
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in boxes)
