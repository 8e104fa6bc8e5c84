"""Loss and score between two networks, before and after alignment, as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wsflow.evaluation.connectivity import LossPath, loss_path
from wsflow.exceptions import InvalidInputError
from wsflow.plotting.paths import PathDisplay
from wsflow.plotting.style import BLUE, GREEN, GREY, ORANGE, PURPLE, new_axes
from wsflow.populations.arguments import takes_networks
from wsflow.task import Task
from wsflow.weights import WeightArray

BEFORE, AFTER = "before alignment", "after alignment"
COLOURS = (ORANGE, BLUE, GREEN, PURPLE, GREY)


class ConnectivityDisplay:
    """The loss and the score along the lines between networks, one path or several, each with its chord and barrier.

    Parameters
    ----------
    paths : mapping from str to LossPath
        By name, such as ``"before alignment"`` and ``"after alignment"``.
    names : (str, str)
        Of the two ends.

    Examples
    --------
    >>> import wsflow
    >>> from wsflow.plotting import ConnectivityDisplay
    >>> task = wsflow.load_task("iris")
    >>> weights = wsflow.train_population(task, hidden=(4,), n_runs=2, epochs=2).weights
    >>> display = ConnectivityDisplay.from_networks(weights[:1], weights[1:], task, n_points=5)
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['loss', 'accuracy']
    """

    figure_: Any
    axes_: np.ndarray

    def __init__(self, paths: Mapping[str, LossPath], names: tuple[str, str] = ("a", "b")) -> None:
        if not paths:
            raise ValueError("ConnectivityDisplay needs at least one path: make it with wsflow.evaluation.loss_path.")
        self.paths = paths
        self.names = names

    @classmethod
    @takes_networks("a", "b")
    def from_networks(
        cls,
        a: WeightArray,
        b: WeightArray,
        task: Task,
        n_points: int = 25,
        *,
        names: tuple[str, str] = ("a", "b"),
        random_state: Any = 0,
        axes: Any = None,
    ) -> ConnectivityDisplay:
        """Measure the lines from one network (1, d) to others (n, d), as they are and aligned to it, and draw them.

        Networks are aligned by ``PermutationAligner(task=task)``.
        """
        from wsflow.estimators.aligner import PermutationAligner

        if len(a) != 1:
            raise InvalidInputError(f"Networks are aligned to one, but 'a' has {len(a)}: pass a single row.")
        given = WeightArray(WeightArray.concatenate([a, b]), a.architecture)
        aligned = PermutationAligner(task=task, reference="first", random_state=random_state).fit_transform(given)
        sets = {BEFORE: given, AFTER: aligned}
        return cls({name: loss_path(w[:1], w[1:], task, n_points) for name, w in sets.items()}, names).plot(axes)

    def plot(self, axes: Any = None) -> ConnectivityDisplay:
        """Draw loss and score on two axes, or in a new figure; the score alone is left out where it is the loss."""
        first = next(iter(self.paths.values()))
        quantities = ("loss",) if first.score == "minus_loss" else ("loss", "score")
        made = new_axes((6.0 * len(quantities), 4.4), 1, len(quantities)) if axes is None else axes
        self.axes_ = np.array(made, dtype=object).ravel()
        if len(self.axes_) != len(quantities):
            raise ValueError(f"The 'axes' of ConnectivityDisplay.plot are {len(quantities)}, got {len(self.axes_)}.")
        self.figure_ = self.axes_[0].figure
        for ax, quantity in zip(self.axes_, quantities, strict=True):
            for index, (name, path) in enumerate(self.paths.items()):
                display = PathDisplay(path, quantity, self.names)
                display.plot(ax, label=name, colour=COLOURS[index % len(COLOURS)])
        return self
