"""Flows as figures: the loss along their training, and the way of samples from the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from wsflow.evaluation.embedding import evenly_spaced
from wsflow.evaluation.projection import DRAWN, principal_directions
from wsflow.exceptions import InvalidInputError
from wsflow.plotting.panels import draw_training
from wsflow.plotting.style import BLUE, GREY, ORANGE, hide_spines, label_directions, new_axes, of_how_many
from wsflow.populations.population import Population

SAMPLES = 30


class TrajectoryDisplay:
    """Where samples of a flow come from: from the source at t = 0 to networks at t = 1.

    Directions are the principal ones of training networks, or where there are none of the samples, in the flow's own
    coordinates (points of its manifold); lines go from one step of the solver to the next.

    Parameters
    ----------
    times : ndarray of shape (k,)
    paths : ndarray of shape (k, n, 2)
    explained : ndarray of shape (2,)
        Shares of the variance along the two directions.
    training : ndarray of shape (m, 2), optional
    n_training : int
        Of which the drawn training networks may be some.

    Examples
    --------
    >>> import numpy as np
    >>> import wsflow
    >>> from wsflow.plotting import TrajectoryDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> flow = wsflow.WeightFlow("euclidean", max_iter=5, random_state=0).fit(X)
    >>> display = TrajectoryDisplay.from_estimator(flow, X, n_samples=4, random_state=0)
    >>> display.paths.shape  # display.figure_.savefig("trajectories.png") writes the figure
    (9, 4, 2)
    """

    figure_: Any
    ax_: Any

    def __init__(
        self,
        times: np.ndarray,
        paths: np.ndarray,
        explained: np.ndarray,
        training: np.ndarray | None = None,
        n_training: int = 0,
    ) -> None:
        self.times = times
        self.paths = paths
        self.explained = explained
        self.training = training
        self.n_training = n_training

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any = None,
        n_samples: int = SAMPLES,
        random_state: Any = None,
        *,
        ax: Any = None,
        **options: Any,
    ) -> TrajectoryDisplay:
        """Follow samples of a fitted `WeightFlow`, or of a pipeline that ends with one, and draw them.

        X are its training networks, an array (n, d) or a `Population`, before the transformers of the pipeline;
        options are those of `WeightFlow.trajectories`, such as `temperature`.
        """
        flow = _flow_of(model, cls.__name__)
        X = X.weights if isinstance(X, Population) else X
        times, points = flow.trajectories(n_samples, random_state, **options)
        training = None if X is None else _points(model, flow, X)
        directions = principal_directions(points[-1] if training is None else training)
        paths = np.stack([directions.transform(at) for at in points])
        known = None if training is None else directions.transform(training)
        return cls(times, paths, directions.explained_variance_ratio_, known, 0 if X is None else len(X)).plot(ax)

    def plot(self, ax: Any = None) -> TrajectoryDisplay:
        """Draw the paths on axes, or in a new figure."""
        self.ax_ = ax = new_axes((6.4, 5.2)) if ax is None else ax
        self.figure_ = ax.figure
        n = self.paths.shape[1]
        if self.training is not None:
            label = f"training networks: {of_how_many(len(self.training), self.n_training)}"
            ax.scatter(*self.training.T, s=12, color=GREY, alpha=0.6, lw=0, label=label, zorder=1)
        for path in self.paths.swapaxes(0, 1):
            ax.plot(*path.T, color=BLUE, lw=0.8, alpha=min(0.6, 30 / n), zorder=2)
        ends = ((0, "source, t = 0", "none", ORANGE), (-1, "samples, t = 1", BLUE, "white"))
        for at, label, face, edge in ends:
            ax.scatter(*self.paths[at].T, s=24, facecolors=face, edgecolors=edge, label=f"{label}: {n}", zorder=3)
        label_directions(ax, self.explained)
        ax.set_title("From the source of the flow to samples")
        ax.set_aspect("equal", adjustable="datalim")
        hide_spines(ax)
        ax.legend(frameon=False)
        return self


class TrainingCurveDisplay:
    """The flow-matching loss of a flow over the steps of its training, on training and on held-out runs.

    Parameters
    ----------
    curve : mapping from str to array-like
        ``"step"``, ``"train"`` and ``"validation"``, ``"best_step"``, where the weights that are kept were taken, and
        ``"energy"``, the energy distance of predictions in the steps behind: a history as a dict.

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
        flow = _flow_of(model, cls.__name__)
        check_is_fitted(flow)
        return cls(vars(flow.history_)).plot(ax)

    def plot(self, ax: Any = None) -> TrainingCurveDisplay:
        """Draw the curve on axes, or in a new figure."""
        self.ax_ = new_axes((6.4, 4.4)) if ax is None else ax
        self.figure_ = self.ax_.figure
        draw_training(self.ax_, self.curve)
        hide_spines(self.ax_)
        return self


def _flow_of(model: Any, display: str) -> Any:
    """Return the fitted flow that a model is or ends with, for a display of that name."""
    from wsflow.estimators.flow import WeightFlow

    flow = model[-1] if hasattr(model, "steps") else model
    if not isinstance(flow, WeightFlow):
        raise InvalidInputError(
            f"{display} is of a WeightFlow, or of a pipeline that ends with one, got {type(flow).__name__}."
        )
    return flow


def _points(model: Any, flow: Any, X: Any) -> np.ndarray:
    """Return some of the training networks, evenly spaced, as points of the flow's manifold."""
    rows = X[evenly_spaced(len(X), DRAWN)]
    transformed = flow is not model and len(model) > 1
    return flow.to_manifold(model[:-1].transform(rows) if transformed else rows)
