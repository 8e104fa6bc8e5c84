"""A report as figures: all of it on one page, and its quality against novelty or dispersion."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from wsflow.evaluation.pareto import DIVERSITY
from wsflow.evaluation.report import Report
from wsflow.plotting.panels import draw_frontiers, draw_iou, draw_nearest, draw_reliability, reliability_of
from wsflow.plotting.style import hide_spines, new_axes

COLUMNS, LINES, FONT = 64, 30, 8.5


class ReportDisplay:
    """The evidence on samples on one page.

    Score and loss against novelty and dispersion, with the nulls as curves; distances to the nearest training network;
    the overlap of mistakes and the noise frontier; the calibration of the model average; and the verdict in words.

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
        """Make the display and draw it."""
        return cls(report).plot()

    def plot(self) -> ReportDisplay:
        """Draw the page in a new figure."""
        self.axes_ = new_axes((18, 9), 2, 4)
        self.figure_ = self.axes_[0, 0].figure
        report, axes = self.report, self.axes_
        for row, y in enumerate((report.score, "loss")):
            for column, x in enumerate(DIVERSITY):
                draw_frontiers(axes[row, column], report, x, y, legend=row == column == 0)
        draw_nearest(axes[0, 2], report)
        draw_iou(axes[0, 3], report)
        draw_reliability(axes[1, 2], reliability_of(report))
        hide_spines(*axes.flat)
        self._verdict(axes[1, 3])
        return self

    def _verdict(self, ax: Any) -> None:
        ax.set_axis_off()
        ax.set_title("Verdict")
        lines = [line for sentence in self.report.verdict for line in (*textwrap.wrap(sentence, COLUMNS), "")]
        size = FONT * min(1.0, LINES / max(1, len(lines)))
        ax.text(0, 1, "\n".join(lines), va="top", ha="left", fontsize=size, transform=ax.transAxes, parse_math=False)


class FrontierDisplay:
    """The quality of samples at their novelty, beside networks of held-out runs, and the nulls as curves.

    Parameters
    ----------
    report : Report
        Made by `wsflow.evaluate`.
    x : {"novelty", "dispersion"}
    y : str, optional
        The score of the report (default) or ``"loss"``.

    Examples
    --------
    >>> import wsflow
    >>> from wsflow.plotting import FrontierDisplay
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> report = wsflow.evaluate(weights[:4], weights[:8], weights[8:], task, nulls=False)
    >>> display = FrontierDisplay.from_report(report)  # display.figure_.savefig("frontier.png") writes it
    >>> display.ax_.get_ylabel()
    'accuracy on held-out data'
    """

    figure_: Any
    ax_: Any

    def __init__(self, report: Report, x: str = "novelty", y: str | None = None) -> None:
        y = y or report.score
        for name, value, known in (("x", x, DIVERSITY), ("y", y, (report.score, "loss"))):
            if value not in known:
                raise ValueError(f"The {name!r} of FrontierDisplay is {' or '.join(known)}, got {value!r}.")
        self.report = report
        self.x, self.y = x, y

    @classmethod
    def from_report(
        cls, report: Report, *, x: str = "novelty", y: str | None = None, ax: Any = None
    ) -> FrontierDisplay:
        """Make the display and draw it."""
        return cls(report, x, y).plot(ax)

    def plot(self, ax: Any = None) -> FrontierDisplay:
        """Draw the curves and points on axes, or in a new figure."""
        self.ax_ = new_axes((6.4, 4.8)) if ax is None else ax
        self.figure_ = self.ax_.figure
        draw_frontiers(self.ax_, self.report, self.x, self.y, legend=True)
        hide_spines(self.ax_)
        return self
