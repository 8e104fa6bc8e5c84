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


def logarithmic(axis: Any) -> None:
    """Make an axis logarithmic, with ticks that are plain numbers.

    Parameters
    ----------
    axis : matplotlib.axis.Axis
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
