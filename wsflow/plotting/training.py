"""The training of a flow as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsflow.plotting.panels import draw_training
from wsflow.plotting.style import hide_spines, new_axes
from wsflow.plotting.trajectories import flow_of


class TrainingCurveDisplay:
    """The flow-matching loss of a flow over the steps of its training, on training and on held-out runs.

    Parameters
    ----------
    curve : mapping from str to array-like
        ``"step"``, ``"train"`` and ``"validation"``, and ``"best_step"``, where the weights that are kept were taken: a
        history as a dict.

    Examples
    --------
    >>> import numpy as np
    >>> import wsflow
    >>> from wsflow.plotting import TrainingCurveDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> flow = wsflow.WeightFlow("euclidean", max_iter=100, random_state=0).fit(X)
    >>> display = TrainingCurveDisplay.from_estimator(flow)  # display.figure_.savefig("training.png") writes it
    >>> display.ax_.lines[0].get_xdata().tolist()
    [50.0, 100.0]
    """

    figure_: Any
    ax_: Any

    def __init__(self, curve: Mapping[str, Any]) -> None:
        self.curve = curve

    @classmethod
    def from_estimator(cls, model: Any, *, ax: Any = None) -> TrainingCurveDisplay:
        """Draw the `history_` of a fitted `WeightFlow`, or of a pipeline that ends with one."""
        from sklearn.utils.validation import check_is_fitted

        flow = flow_of(model, cls.__name__)
        check_is_fitted(flow)
        return cls(vars(flow.history_)).plot(ax)

    def plot(self, ax: Any = None) -> TrainingCurveDisplay:
        """Draw the curve on axes, or in a new figure."""
        self.ax_ = new_axes((6.4, 4.4)) if ax is None else ax
        self.figure_ = self.ax_.figure
        draw_training(self.ax_, self.curve)
        hide_spines(self.ax_)
        return self
