"""A report as a figure that a person would look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsflow.evaluation.measures import MEASURES
from wsflow.evaluation.report import Report
from wsflow.evaluation.verdict import comparable
from wsflow.plotting.panels import draw_barriers, draw_nearest, draw_training, null_style
from wsflow.plotting.style import BLUE, GREY, hide_spines, label_of, logarithmic, new_axes, of_how_many


class EvaluationDisplay:
    """The evidence on samples in one figure of four panels.

    Scores and losses of samples beside training networks and nulls; loss barriers before and after
    alignment; the training curve; and distances to the nearest training network.

    Parameters
    ----------
    curve : mapping from str to array-like, optional
        ``"step"``, ``"train"`` and ``"validation"``: the flow's loss. NaN, or no list at all,
        where it was not measured.

    Examples
    --------
    >>> import wsflow
    >>> from wsflow.plotting import EvaluationDisplay
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=12, epochs=2).weights
    >>> report = wsflow.evaluate(weights[:4], weights[:8], weights[8:], task, nulls=False)
    >>> display = EvaluationDisplay.from_report(report)  # display.figure_.savefig("report.png") writes it
    >>> display.axes_.shape
    (2, 2)
    """

    figure_: Any
    axes_: np.ndarray

    def __init__(self, report: Report, curve: Mapping[str, Any] | None = None) -> None:
        self.report = report
        self.curve = curve

    @classmethod
    def from_report(
        cls, report: Report, *, curve: Mapping[str, Any] | None = None, axes: Any = None
    ) -> EvaluationDisplay:
        """Make the display and draw it."""
        return cls(report, curve).plot(axes)

    def plot(self, axes: Any = None) -> EvaluationDisplay:
        """Draw the four panels on axes, or in a new figure."""
        self.axes_ = new_axes((12, 9), 2, 2) if axes is None else np.asarray(axes, dtype=object)
        if self.axes_.size != 4:
            raise ValueError(f"The 'axes' of EvaluationDisplay.plot are 4, got {self.axes_.size}.")
        self.figure_ = self.axes_.flat[0].figure
        performance, barriers, curve, nearest = self.axes_.flat
        self._performance(performance)
        draw_barriers(barriers, self.report)
        draw_training(curve, self.curve)
        draw_nearest(nearest, self.report)
        hide_spines(*self.axes_.flat)
        return self

    def _performance(self, ax: Any) -> None:
        report = self.report
        clouds = (("training", "training networks", GREY, 0.25), ("samples", "samples", BLUE, 0.5))
        low, high = _limits([report.training, report.samples, *report.nulls.values()], report)
        for row, label, colour, alpha in clouds:
            found = report.predictive[row]
            shown, n = int((found.scores >= low).sum()), len(found.scores)
            label = f"{label}, each ({of_how_many(shown, n)})"
            ax.scatter(found.losses, _spread(found.scores), s=9, c=colour, alpha=alpha, lw=0, label=label)
        for row, label, colour, _ in clouds:
            at = getattr(report, row)
            ax.scatter(
                at["loss"], at[report.score], s=110, c=colour, edgecolors="black", zorder=4, label=f"{label}, mean"
            )
        self._null_markers(ax)
        logarithmic(ax.xaxis)
        ax.set_ylim(low, high)
        ax.set(xlabel="loss on held-out data", ylabel=f"{label_of(MEASURES[report.score])} on held-out data")
        ax.set_title("Samples, training networks and nulls")
        # low loss with a low score does not occur: that corner is free
        title = "filled nulls: as new and as\ndifferent as the samples" if report.nulls else None
        style = {"framealpha": 0.8, "edgecolor": "none", "fontsize": 8.5, "title_fontsize": 8.5, "labelspacing": 0.7}
        ax.legend(loc="lower left", title=title, alignment="left", **style)

    def _null_markers(self, ax: Any) -> None:
        report = self.report
        level = comparable(report.nulls, report.samples)
        families = list(dict.fromkeys(name.split()[0] for name in report.nulls))
        for family in families:
            style = null_style(family)
            names = [name for name in report.nulls if name.split()[0] == family]
            rows = [report.nulls[name] for name in names]
            ax.scatter(
                [row["loss"] for row in rows],
                [row[report.score] for row in rows],
                s=[35 + 35 * i for i in range(len(rows))],
                marker=style["marker"],
                facecolors=[style["color"] if name in level else "none" for name in names],
                edgecolors=style["color"],
                zorder=5,
                label=_family_label(family, names),
            )


def _family_label(family: str, names: Sequence[str]) -> str:
    levels = [name.split()[1] for name in names if " " in name]
    label = family.replace("_", " ")
    return f"null: {label} ({', '.join(levels)})" if levels else f"null: {label}"


def _spread(scores: np.ndarray) -> np.ndarray:
    """Spread accuracies, which coincide on few inputs, by a third of their spacing, the same way every time.

    None is drawn above the best or below the worst, so that no accuracy is above 1.
    """
    values = np.unique(scores)
    step = np.diff(values).min() if 1 < len(values) < len(scores) else 0.0
    if not step:
        return scores
    moved = scores + step / 3 * np.random.default_rng(0).uniform(-1, 1, len(scores))
    return values[-1] - np.abs(values[-1] - values[0] - np.abs(moved - values[0]))


def _limits(rows: Sequence[Mapping[str, float]], report: Report) -> tuple[float, float]:
    """Return the limits from the worst to the best of what is shown; networks far below every mean are cut off."""
    shown = [row[report.score] for row in rows]
    clouds = [report.predictive[name].scores for name in ("samples", "training")]
    low = min(*shown, *(float(np.quantile(cloud, 0.02)) for cloud in clouds))
    high = max(*shown, *(float(cloud.max()) for cloud in clouds))
    margin = 0.06 * (high - low or 1.0)
    return low - margin, high + margin
