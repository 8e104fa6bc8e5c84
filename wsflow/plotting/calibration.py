"""Reliability diagrams as figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wsflow.evaluation.calibration import Reliability, class_forecasts, reliability
from wsflow.evaluation.predictive import predict
from wsflow.evaluation.report import Report
from wsflow.exceptions import InvalidInputError
from wsflow.plotting.panels import draw_reliability, reliability_of
from wsflow.plotting.style import hide_spines, new_axes
from wsflow.task import Task
from wsflow.weights import WeightArray


class ReliabilityDisplay:
    """How often forecasts are right, by how sure they are: on the diagonal, they are calibrated.

    Parameters
    ----------
    curves : mapping from str to Reliability
        By the name of the forecast, such as ``"samples"``.

    Examples
    --------
    >>> import wsflow
    >>> from wsflow.plotting import ReliabilityDisplay
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=8, epochs=2).weights
    >>> display = ReliabilityDisplay.from_networks({"average of 8": weights, "one network": weights[:1]}, task)
    >>> display.ax_.get_xlabel()
    'confidence (size: share of examples)'
    """

    figure_: Any
    ax_: Any

    def __init__(self, curves: Mapping[str, Reliability]) -> None:
        if not curves:
            raise ValueError("ReliabilityDisplay needs at least one curve: make it with wsflow.evaluation.reliability.")
        self.curves = curves

    @classmethod
    def from_report(cls, report: Report, *, ax: Any = None) -> ReliabilityDisplay:
        """Draw the model averages of the samples and of the training networks of a report."""
        if not report.reliability:
            raise InvalidInputError("A reliability diagram is of classes, and the task of this report has none.")
        return cls(reliability_of(report)).plot(ax)

    @classmethod
    def from_networks(
        cls, weights: WeightArray | Mapping[str, WeightArray], task: Task, *, n_bins: int = 15, ax: Any = None
    ) -> ReliabilityDisplay:
        """Draw the model average of networks (n, d), or of several sets by name, on the held-out data of a task."""
        if not task.is_classification:
            raise InvalidInputError("A reliability diagram is of classes, and this task has none.")
        named = weights if isinstance(weights, Mapping) else {"model average": weights}
        return cls({name: _reliability(networks, task.held_out, n_bins) for name, networks in named.items()}).plot(ax)

    @classmethod
    def from_predictions(
        cls, probabilities: np.ndarray, targets: np.ndarray, *, name: str = "forecast", n_bins: int = 15, ax: Any = None
    ) -> ReliabilityDisplay:
        """Draw a forecast of probabilities (b, k) of classes, beside targets 0, 1, ... (b,)."""
        return cls({name: reliability(np.asarray(probabilities), np.asarray(targets), n_bins)}).plot(ax)

    def plot(self, ax: Any = None) -> ReliabilityDisplay:
        """Draw the curves on axes, or in a new figure."""
        self.ax_ = new_axes((5.4, 4.8)) if ax is None else ax
        self.figure_ = self.ax_.figure
        draw_reliability(self.ax_, self.curves)
        hide_spines(self.ax_)
        return self


def _reliability(networks: WeightArray, task: Task, n_bins: int) -> Reliability:
    probabilities, targets, weights = class_forecasts(predict(networks, task).average, task)
    return reliability(probabilities, targets, n_bins, weights)
