"""All of a report on one page."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from wsflow.evaluation.report import Report
from wsflow.plotting.colours import SCORES
from wsflow.plotting.panels import draw_frontiers, draw_nearest, draw_overlap, draw_reliability

COLUMNS, LINES, FONT = 64, 30, 8.5


class ReportDisplay:
    """The evidence on samples on one page.

    Score and loss against novelty and dispersion, with the nulls as curves; distances to the nearest training network;
    the overlap of mistakes and the noise frontier; the calibration of the model average; and the verdict in words.

    Parameters
    ----------
    report : Report
        Made by `wsflow.evaluate`.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
    axes_ : ndarray of matplotlib.axes.Axes, shape (2, 4)

    Examples
    --------
    >>> import wsflow
    >>> from wsflow.plotting import ReportDisplay
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> report = wsflow.evaluate(weights[:4], weights[:8], weights[8:], task, nulls=False)
    >>> display = ReportDisplay.from_report(report)  # display.figure_.savefig("report.pdf") writes it
    >>> display.axes_.shape
    (2, 4)
    """

    figure_: Any
    axes_: np.ndarray

    def __init__(self, report: Report) -> None:
        self.report = report

    @classmethod
    def from_report(cls, report: Report) -> ReportDisplay:
        """Make the display and draw it.

        Parameters
        ----------
        report : Report

        Returns
        -------
        ReportDisplay
        """
        return cls(report).plot()

    def plot(self) -> ReportDisplay:
        """Draw the page in a new figure, which belongs to no window and no global state.

        Returns
        -------
        ReportDisplay
            Itself.
        """
        from matplotlib.figure import Figure

        self.figure_ = Figure(figsize=(18, 9), dpi=120, layout="constrained")
        self.axes_ = self.figure_.subplots(2, 4)
        report, axes = self.report, self.axes_
        for row, y in enumerate((report.score, "loss")):
            for column, x in enumerate(("novelty", "dispersion")):
                draw_frontiers(axes[row, column], report, x, y)
                name = SCORES[report.score] if row == 0 else "loss"
                axes[row, column].set_title(f"{name[0].upper()}{name[1:]} at {x}")
        axes[0, 0].legend(loc="best", fontsize=8, framealpha=0.8, edgecolor="none")
        for draw, ax in ((draw_nearest, axes[0, 2]), (draw_overlap, axes[0, 3]), (draw_reliability, axes[1, 2])):
            draw(ax, report)
        for ax in axes.flat:
            ax.spines[["top", "right"]].set_visible(False)
        self._verdict(axes[1, 3])
        return self

    def _verdict(self, ax: Any) -> None:
        ax.set_axis_off()
        ax.set_title("Verdict")
        lines = [line for sentence in self.report.verdict for line in (*textwrap.wrap(sentence, COLUMNS), "")]
        size = FONT * min(1.0, LINES / max(1, len(lines)))
        ax.text(0, 1, "\n".join(lines), va="top", ha="left", fontsize=size, transform=ax.transAxes, parse_math=False)
