"""Figures without a window."""

from __future__ import annotations

from typing import Any


def new_axes(size: tuple[float, float]) -> Any:
    """The axes of a new figure, which belongs to no window and no global state.

    Parameters
    ----------
    size : (float, float)
        Width and height, in inches.

    Returns
    -------
    matplotlib.axes.Axes
    """
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=120, layout="constrained").subplots()
