"""Paths between networks as figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from wsflow.evaluation.connectivity import LossPath, chord, loss_path
from wsflow.evaluation.measures import MEASURES
from wsflow.plotting.style import BLUE, GREY, hide_spines, label_of, new_axes
from wsflow.task import Task
from wsflow.weights import WeightArray


class PathDisplay:
    """The loss, or the score, along the lines between networks, with its chord and its barrier.

    With several pairs, each has a thin line and their mean a thick one.

    Parameters
    ----------
    path : LossPath
        Made by `wsflow.evaluation.loss_path`.
    quantity : {"loss", "score"}
        What is drawn.
    names : (str, str)
        Of the two ends.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.connectivity import LossPath
    >>> from wsflow.plotting import PathDisplay
    >>> t = np.linspace(0, 1, 11)
    >>> path = LossPath(t, np.sin(np.pi * t)[None] + t, np.zeros((1, 11)))
    >>> display = PathDisplay.from_path(path, label="as trained")
    >>> display.ax_.get_ylabel()
    'loss'
    """

    figure_: Any
    ax_: Any

    def __init__(self, path: LossPath, quantity: str = "loss", names: tuple[str, str] = ("a", "b")) -> None:
        if quantity not in ("loss", "score"):
            raise ValueError(f"The 'quantity' of PathDisplay is loss or score, got {quantity!r}.")
        self.path = path
        self.quantity = quantity
        self.names = names

    @classmethod
    def from_path(
        cls, path: LossPath, *, quantity: str = "loss", names: tuple[str, str] = ("a", "b"), **options: Any
    ) -> PathDisplay:
        """Make the display and draw it with the options of `plot`."""
        return cls(path, quantity, names).plot(**options)

    @classmethod
    def from_networks(
        cls,
        a: WeightArray,
        b: WeightArray,
        task: Task,
        n_points: int = 25,
        *,
        quantity: str = "loss",
        names: tuple[str, str] = ("a", "b"),
        **options: Any,
    ) -> PathDisplay:
        """Measure the path between networks, and draw it with the options of `plot`."""
        return cls.from_path(loss_path(a, b, task, n_points), quantity=quantity, names=names, **options)

    def plot(self, ax: Any = None, *, label: str | None = None, colour: str = BLUE) -> PathDisplay:
        """Draw the path on axes, perhaps with other paths, or in a new figure; `label` is for the legend."""
        self.ax_ = new_axes((6.4, 4.4)) if ax is None else ax
        self.figure_ = self.ax_.figure
        t, values = self.path.t, self.path.losses if self.quantity == "loss" else self.path.scores
        mean = values.mean(0)
        if len(values) > 1:
            self.ax_.plot(t, values.T, color=colour, lw=0.8, alpha=min(0.5, 8 / len(values)), zorder=1)
        self.ax_.plot(t, chord(mean, t), color=GREY, ls="--", lw=1.2, zorder=2)
        self.ax_.plot(t, mean, color=colour, lw=2.2, label=self._label(label), zorder=3)
        self.ax_.plot(t[[0, -1]], mean[[0, -1]], "o", ms=8, color=colour, mec="black", zorder=4)
        self._annotate(t, mean, colour)
        self._decorate(label is not None)
        return self

    def _label(self, label: str | None) -> str | None:
        pairs = f"mean of {len(self.path)} pairs" if len(self.path) > 1 else ""
        return ", ".join(filter(None, [label, pairs])) or None

    def _annotate(self, t: np.ndarray, mean: np.ndarray, colour: str) -> None:
        """Draw an arrow from the chord to where the mean path is farthest on its worse side."""
        line = chord(mean, t)
        excess = mean - line if self.quantity == "loss" else line - mean
        at = 1 + int(excess[1:-1].argmax())
        arrow = {"arrowstyle": "<->", "color": colour, "shrinkA": 0, "shrinkB": 0}
        self.ax_.annotate("", (t[at], mean[at]), (t[at], line[at]), arrowprops=arrow)
        above = self.quantity == "loss"
        self.ax_.annotate(
            f"barrier {excess[at]:.3g}",
            (t[at], mean[at]),
            xytext=(0, 6 if above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
            zorder=5,
        )

    def _decorate(self, legend: bool) -> None:
        ax = self.ax_
        ax.set_xlabel(f"t, between network {self.names[0]} at 0 and network {self.names[1]} at 1")
        label = "loss" if self.quantity == "loss" else label_of(MEASURES[self.path.score])
        ax.set_ylabel(label)
        ax.set_title(f"{label[0].upper()}{label[1:]} between networks")
        ax.set_xlim(-0.03, 1.03)
        ax.margins(y=0.12)
        hide_spines(ax)
        if legend or len(self.path) > 1:
            ax.legend(frameon=False)


def plot_path(
    a: WeightArray,
    b: WeightArray,
    task: Task,
    n_points: int = 25,
    *,
    quantity: str = "loss",
    names: tuple[str, str] = ("a", "b"),
    ax: Any = None,
    label: str | None = None,
    colour: str = BLUE,
) -> PathDisplay:
    """Draw the loss along the line between two networks, with its chord and its barrier.

    Parameters
    ----------
    a, b : WeightArray of shape (pairs, d)
        A single row goes with every row of the other.
    n_points : int
        Points strictly between the ends.
    quantity : {"loss", "score"}
        What is drawn.
    names : (str, str)
        Of the two ends.
    label : str, optional
        For the legend, where several paths share axes.

    Raises
    ------
    InvalidInputError
        If the networks do not pair up, or the task is not theirs.
    ValueError
        If `quantity` or `n_points` has a wrong value.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, plot_path
    >>> line = Architecture.mlp([1, 1])
    >>> a, b = WeightArray([[0.0, 0.0]], line), WeightArray([[2.0, 0.0]], line)
    >>> display = plot_path(a, b, Task(np.ones((1, 1)), [0.0], loss="mse"), n_points=1)
    >>> display.path.barrier  # display.figure_.savefig("path.png") writes the figure
    array([-1.])
    """
    path = loss_path(a, b, task, n_points)
    return PathDisplay.from_path(path, quantity=quantity, names=names, ax=ax, label=label, colour=colour)
