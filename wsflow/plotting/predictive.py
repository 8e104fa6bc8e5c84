"""Model averages of several sources, by the number of networks in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wsflow.evaluation.measures import FORECASTS, OOD
from wsflow.evaluation.model_averaging import PredictiveCurve
from wsflow.plotting.style import BLUE, GREEN, GREY, ORANGE, VERMILION, hide_spines, label_of, new_axes

_COLOURS = (BLUE, GREEN, ORANGE, VERMILION, GREY)


class PredictiveDisplay:
    """A panel for each measure of model averages, a curve for each source.

    Parameters
    ----------
    curves : mapping from str to PredictiveCurve
        By the name of the source, such as ``"flow"`` and ``"deep ensemble"``.

    Examples
    --------
    >>> import wsflow
    >>> from wsflow.evaluation import predictive_curve
    >>> from wsflow.plotting import PredictiveDisplay
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=8, epochs=2).weights
    >>> display = PredictiveDisplay({"deep ensemble": predictive_curve(weights, task)}).plot()
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['accuracy', 'negative log-likelihood', 'Brier score', 'expected calibration error']
    """

    figure_: Any
    axes_: np.ndarray

    def __init__(self, curves: Mapping[str, PredictiveCurve]) -> None:
        self.curves = curves

    def plot(self, axes: Any = None) -> PredictiveDisplay:
        """Draw a panel for each measure that all curves have, on so many axes, or in a new figure."""
        if not self.curves:
            raise ValueError("PredictiveDisplay needs at least one curve: make it with predictive_curve.")
        first, *others = self.curves.values()
        keys = [key for key in first.mean if all(key in curve.mean for curve in others)]
        self.axes_ = np.array(
            new_axes((3.6 * len(keys), 3.4), 1, len(keys)) if axes is None else axes, dtype=object
        ).ravel()
        if len(self.axes_) != len(keys):
            raise ValueError(f"The 'axes' of PredictiveDisplay.plot are {len(keys)}, got {len(self.axes_)}.")
        self.figure_ = self.axes_[0].figure
        for key, ax in zip(keys, self.axes_, strict=True):
            self._panel(ax, key)
        self.axes_[0].legend(frameon=False)
        return self

    def _panel(self, ax: Any, key: str) -> None:
        for index, (name, curve) in enumerate(self.curves.items()):
            mean, sd, colour = curve.mean[key], curve.sd[key], _COLOURS[index % len(_COLOURS)]
            ax.plot(curve.sizes, mean, color=colour, marker="o", markersize=4, label=name)
            ax.fill_between(curve.sizes, mean - sd, mean + sd, color=colour, alpha=0.15, lw=0)
        ax.set_xscale("log")
        ticks = sorted({size for curve in self.curves.values() for size in curve.sizes})
        ax.set_xticks(ticks, [str(size) for size in ticks])
        ax.minorticks_off()
        label = label_of((FORECASTS | OOD)[key])
        ax.set(xlabel="networks averaged", ylabel=label, title=f"{label[0].upper()}{label[1:]}")
        hide_spines(ax)
