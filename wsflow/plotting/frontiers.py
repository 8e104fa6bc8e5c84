"""Quality against novelty or dispersion, with the nulls, as a figure."""

from __future__ import annotations

from typing import Any

from wsflow.evaluation.pareto import DIVERSITY
from wsflow.evaluation.report import Report
from wsflow.plotting.panels import draw_frontiers
from wsflow.plotting.style import hide_spines, new_axes


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
