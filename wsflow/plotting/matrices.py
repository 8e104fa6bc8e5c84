"""Matrices of barriers as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsflow.evaluation.barrier import BarrierMatrix, barrier_matrix
from wsflow.evaluation.measures import MEASURES
from wsflow.plotting.style import DIVERGING, SEQUENTIAL, label_of, new_axes
from wsflow.task import Task
from wsflow.weights import WeightArray

# larger matrices have no numbers in their cells
NUMBERED = 12
# a barrier that is lower than minus this share of the largest is no rounding and no luck of a few examples
NEGATIVE = 0.05


class BarrierMatrixDisplay:
    """The barriers between all pairs of networks, as a map with numbers.

    Parameters
    ----------
    matrix : BarrierMatrix
        Made by `wsflow.evaluation.barrier_matrix`.
    quantity : {"loss", "score"}
        What is drawn.
    names, others : sequence of str, optional
        Of the networks of the rows, and of the columns (default: their numbers).

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow.evaluation.barrier import BarrierMatrix
    >>> from wsflow.plotting import BarrierMatrixDisplay
    >>> matrix = BarrierMatrix(np.array([[0.0, 1.2], [1.2, 0.0]]), np.zeros((2, 2)))
    >>> [text.get_text() for text in BarrierMatrixDisplay.from_matrix(matrix).ax_.texts]
    ['0', '1.2', '1.2', '0']
    """

    figure_: Any
    ax_: Any

    def __init__(
        self,
        matrix: BarrierMatrix,
        quantity: str = "loss",
        names: Sequence[str] | None = None,
        others: Sequence[str] | None = None,
    ) -> None:
        if quantity not in ("loss", "score"):
            raise ValueError(f"The 'quantity' of BarrierMatrixDisplay is loss or score, got {quantity!r}.")
        rows, columns = matrix.losses.shape
        self.matrix = matrix
        self.quantity = quantity
        self.names = list(names or map(str, range(rows)))
        self.others = list(others or (self.names if matrix.symmetric else map(str, range(columns))))
        if (len(self.names), len(self.others)) != (rows, columns):
            raise ValueError(
                f"A matrix of barriers of shape {rows, columns} has a name for each row and column, got "
                f"{len(self.names)} and {len(self.others)}."
            )

    @classmethod
    def from_matrix(
        cls,
        matrix: BarrierMatrix,
        *,
        quantity: str = "loss",
        names: Sequence[str] | None = None,
        others: Sequence[str] | None = None,
        ax: Any = None,
        largest: float | None = None,
    ) -> BarrierMatrixDisplay:
        """Make the display and draw it."""
        return cls(matrix, quantity, names, others).plot(ax, largest=largest)

    @classmethod
    def from_networks(
        cls, weights: WeightArray, task: Task, n_points: int = 25, *, others: WeightArray | None = None, **options: Any
    ) -> BarrierMatrixDisplay:
        """Measure the barriers between networks, and draw them with the options of `from_matrix`."""
        return cls.from_matrix(barrier_matrix(weights, task, n_points, others=others), **options)

    def plot(self, ax: Any = None, *, largest: float | None = None) -> BarrierMatrixDisplay:
        """Draw the map on axes, or in a new figure; colours end at the barrier `largest`.

        They begin at 0, or where some barriers are clearly negative go from -largest to largest, with 0 in the middle.
        """
        values = self.matrix.losses if self.quantity == "loss" else self.matrix.scores
        rows, columns = values.shape
        if ax is None:
            ax = new_axes((2.6 + 0.55 * min(columns, 16), 1.8 + 0.55 * min(rows, 16)))
        self.ax_, self.figure_ = ax, ax.figure
        image = ax.imshow(values, **_colours(values, largest))
        measured = "loss barrier" if self.quantity == "loss" else f"{label_of(MEASURES[self.matrix.score])} barrier"
        measured = f"midpoint {measured}" if self.matrix.midpoint else measured
        self.figure_.colorbar(image, ax=ax, label=measured, shrink=0.9)
        for axis, names in ((ax.xaxis, self.others), (ax.yaxis, self.names)):
            every = max(1, len(names) // 16)
            axis.set_ticks(range(0, len(names), every), names[::every])
        ax.set(xlabel="network", ylabel="network")
        ax.set_title(f"{measured[0].upper()}{measured[1:]}s between networks")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if max(rows, columns) <= NUMBERED:
            self._number(values, image)
        return self

    def _number(self, values: np.ndarray, image: Any) -> None:
        """Write the value of each cell in black or white, whatever reads better on its colour."""
        for (row, column), value in np.ndenumerate(values):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
            style = {"ha": "center", "va": "center", "color": "white" if dark else "black", "fontsize": 8.5}
            self.ax_.text(column, row, f"{value:.2g}", **style)


def _colours(values: np.ndarray, largest: float | None) -> dict[str, Any]:
    """Return the map of colours and its ends: of two sides around 0 where there are values on both."""
    top = float(np.nanmax(np.abs(values))) if largest is None else largest
    if np.nanmin(values) < -NEGATIVE * top:
        return {"cmap": DIVERGING, "vmin": -top, "vmax": top}
    return {"cmap": SEQUENTIAL, "vmin": 0, "vmax": top or 1}


def plot_barrier_matrix(
    weights: WeightArray,
    task: Task,
    n_points: int = 25,
    *,
    others: WeightArray | None = None,
    quantity: str = "loss",
    names: Sequence[str] | None = None,
    ax: Any = None,
    largest: float | None = None,
) -> BarrierMatrixDisplay:
    """Draw the barriers between all pairs of networks.

    Parameters
    ----------
    n_points : int
        Points strictly between the ends.
    others : WeightArray of shape (m, d), optional
        The networks of the columns (default: those of the rows).
    quantity : {"loss", "score"}
        What is drawn.
    names : sequence of str, optional
        Of the networks.
    largest : float, optional
        The barrier at which colours end, where several matrices are compared (default: the largest).

    Raises
    ------
    InvalidInputError
        If there is no pair, or the task is not that of the networks.
    ValueError
        If `quantity` or `n_points` has a wrong value, or there are not as many names as networks.

    Examples
    --------
    >>> import numpy as np
    >>> from wsflow import Architecture, Task, WeightArray, plot_barrier_matrix
    >>> weights = WeightArray([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]], Architecture.mlp([1, 1]))
    >>> plot_barrier_matrix(weights, Task(np.ones((1, 1)), [0.0], loss="mse"), n_points=1).matrix.losses[0]
    array([ 0., -1., -4.])
    """
    matrix = barrier_matrix(weights, task, n_points, others=others)
    return BarrierMatrixDisplay.from_matrix(matrix, quantity=quantity, names=names, ax=ax, largest=largest)
