"""What alignment did to each network, as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsflow.plotting.colours import BLUE, GREY

if TYPE_CHECKING:
    from wsflow.estimators.aligner import PermutationAligner
    from wsflow.weights import WeightArray


class AlignmentDisplay:
    """One number of each network before and after alignment: two histograms.

    Parameters
    ----------
    before, after : ndarray of shape (n,)
    label : str
        What the numbers are.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
    ax_ : matplotlib.axes.Axes

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.plotting.alignment import AlignmentDisplay
    >>> display = AlignmentDisplay(np.array([2.0, 3.0]), np.array([0.5, 1.0]), "distance").plot()
    >>> display.ax_.get_xlabel()
    'distance'
    """

    figure_: Any
    ax_: Any

    def __init__(self, before: np.ndarray, after: np.ndarray, label: str) -> None:
        self.before = before
        self.after = after
        self.label = label

    @classmethod
    def from_aligner(
        cls, aligner: PermutationAligner, before: WeightArray, after: WeightArray, *, ax: Any = None
    ) -> AlignmentDisplay:
        """Barriers half-way to the reference where the aligner knew a task, or else distances to it, and draw them.

        Parameters
        ----------
        aligner : PermutationAligner
            Fitted to the networks.
        before, after : WeightArray of shape (n, d)
            The networks, and what the aligner made of them.
        ax : matplotlib.axes.Axes, optional

        Returns
        -------
        AlignmentDisplay
        """
        report = aligner.report_
        if np.isfinite(report["barrier_before"]).all():
            label = "excess of the loss half-way to the reference"
            return cls(report["barrier_before"], report["barrier_after"], label).plot(ax)
        start, end = (aligner.distances_to_reference(rows) for rows in (before, after))
        return cls(start, end, "distance to the reference").plot(ax)

    def plot(self, ax: Any = None) -> AlignmentDisplay:
        """Draw the two histograms.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Default: that of a new figure, which belongs to no window and no global state.

        Returns
        -------
        AlignmentDisplay
            Itself.
        """
        self.ax_ = _new_axes() if ax is None else ax
        self.figure_ = self.ax_.figure
        bins = np.histogram_bin_edges(np.concatenate([self.before, self.after]), bins=min(40, 8 + len(self.before)))
        for values, name, colour in ((self.before, "before", GREY), (self.after, "after alignment", BLUE)):
            label = f"{name}, mean {values.mean():.3g}"
            self.ax_.hist(values, bins=bins, color=colour, alpha=0.7, label=label)
            self.ax_.axvline(values.mean(), color=colour, lw=1.5)
        self.ax_.set(xlabel=self.label, ylabel="networks")
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.legend(frameon=False)
        return self


def _new_axes() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained").subplots()
