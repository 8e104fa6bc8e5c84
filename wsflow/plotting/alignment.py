"""What alignment did to each network, as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsflow.plotting.style import BLUE, GREY, hide_spines, new_axes


class AlignmentDisplay:
    """One number (n,) of each network before and after alignment, named `label`: two histograms."""

    figure_: Any
    ax_: Any

    def __init__(self, before: np.ndarray, after: np.ndarray, label: str) -> None:
        self.before = before
        self.after = after
        self.label = label

    def plot(self, ax: Any = None) -> AlignmentDisplay:
        """Draw the two histograms on axes, or in a new figure."""
        self.ax_ = new_axes((6.4, 4.0)) if ax is None else ax
        self.figure_ = self.ax_.figure
        bins = np.histogram_bin_edges(np.concatenate([self.before, self.after]), bins=min(40, 8 + len(self.before)))
        for values, name, colour in ((self.before, "before", GREY), (self.after, "after alignment", BLUE)):
            label = f"{name}, mean {values.mean():.3g}"
            self.ax_.hist(values, bins=bins, color=colour, alpha=0.7, label=label)
            self.ax_.axvline(values.mean(), color=colour, lw=1.5)
        self.ax_.set(xlabel=self.label, ylabel="networks")
        self.ax_.set_title(f"{len(self.before)} networks before and after alignment")
        hide_spines(self.ax_)
        self.ax_.legend(frameon=False)
        return self
