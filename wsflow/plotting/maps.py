"""Networks in the plane as figures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from wsflow.evaluation.projection import TRAINING, NetworkMap, network_map
from wsflow.plotting.style import (
    BROWN,
    GREY,
    OLIVE,
    ORANGE,
    PURPLE,
    SKY,
    colours_of,
    hide_spines,
    label_directions,
    new_axes,
    of_how_many,
)
from wsflow.task import Task
from wsflow.weights import WeightArray

# of runs of several networks, in turn; none is that of samples
RUN_COLOURS = (SKY, ORANGE, PURPLE, OLIVE, GREY, BROWN)
# of what lies on top of training networks
MARKERS = "o^sDvP"
TITLES = {"weights": "Networks by their weights, aligned", "function": "Networks by what they predict"}


class MapDisplay:
    """Training networks as points of the plane, and others, such as samples, on top.

    Training networks of runs with several snapshots have the colour of their run, and a line from each snapshot to the
    next. Distances are to scale, the same on both axes.

    Parameters
    ----------
    network_map : NetworkMap
        Made by `wsflow.evaluation.network_map`.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, WeightArray
    >>> from wsflow.plotting import MapDisplay
    >>> weights = WeightArray(np.random.default_rng(0).normal(size=(20, 23)), Architecture.mlp([4, 3, 2]))
    >>> display = MapDisplay.from_networks(weights[:15], weights[15:])
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['training networks: 15', 'samples: 5']
    """

    figure_: Any
    ax_: Any

    def __init__(self, network_map: NetworkMap) -> None:
        self.network_map = network_map

    @classmethod
    def from_map(cls, network_map: NetworkMap, *, ax: Any = None) -> MapDisplay:
        """Make the display and draw it."""
        return cls(network_map).plot(ax)

    @classmethod
    def from_networks(
        cls,
        train: WeightArray,
        others: WeightArray | Mapping[str, WeightArray] | None = None,
        task: Task | None = None,
        *,
        space: str = "weights",
        ax: Any = None,
    ) -> MapDisplay:
        """Project networks as `wsflow.evaluation.network_map` does, and draw them."""
        return cls.from_map(network_map(train, others, task, space=space), ax=ax)

    def plot(self, ax: Any = None) -> MapDisplay:
        """Draw the map on axes, or in a new figure."""
        self.ax_ = ax = new_axes((6.4, 5.2)) if ax is None else ax
        self.figure_ = ax.figure
        found = self.network_map
        self._training(found.points[TRAINING])
        others = colours_of(name for name in found.points if name != TRAINING)
        for (name, colour), marker in zip(others.items(), itertools.cycle(MARKERS), strict=False):
            style = {"s": 22, "marker": marker, "edgecolors": "white", "linewidths": 0.5, "zorder": 3}
            ax.scatter(*found.points[name].T, color=colour, label=self._label(name), **style)
        label_directions(ax, found.explained)
        ax.set_title(TITLES[found.space])
        ax.set_aspect("equal", adjustable="datalim")
        hide_spines(ax)
        ax.legend(frameon=False)
        return self

    def _training(self, points: np.ndarray) -> None:
        runs, own = np.unique(self.network_map.runs, return_inverse=True)
        label = self._label(TRAINING)
        if len(runs) == len(points):
            self.ax_.scatter(*points.T, s=12, color=GREY, alpha=0.7, lw=0, label=label, zorder=2)
            return
        colours = np.array(RUN_COLOURS)[own % len(RUN_COLOURS)]
        turn = ", in turn" if len(runs) > len(RUN_COLOURS) else ""
        label += f" of {len(runs)} runs (colours{turn})"
        self.ax_.scatter(*points.T, s=12, c=colours, alpha=0.9, lw=0, label=label, zorder=2)
        for run in range(len(runs)):
            rows = np.flatnonzero(own == run)
            path = points[rows[np.argsort(self.network_map.steps[rows], kind="stable")]]
            self.ax_.plot(*path.T, color=RUN_COLOURS[run % len(RUN_COLOURS)], lw=0.7, alpha=0.6, zorder=1)

    def _label(self, name: str) -> str:
        return f"{name}: {of_how_many(len(self.network_map.points[name]), self.network_map.counts[name])}"
