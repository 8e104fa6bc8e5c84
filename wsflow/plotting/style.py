"""What figures share: colours, axes without a window, logarithmic axes and labels."""

from __future__ import annotations

from typing import Any

from wsflow.evaluation.measures import Measure

# of Okabe and Ito: they stay apart for colour-blind eyes
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
BROWN, OLIVE = "#8C510A", "#808000"
GREY = "#8C8C8C"
# dark to light as the value grows
SEQUENTIAL = "cividis"
# blue below the middle, red above it
DIVERGING = "RdBu_r"


def new_axes(size: tuple[float, float], rows: int = 1, columns: int = 1) -> Any:
    """Return the axes of a new figure of some inches, which belongs to no window and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=120, layout="constrained").subplots(rows, columns)


def logarithmic(axis: Any) -> None:
    """Make an axis logarithmic, with ticks that are plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def label_of(measure: Measure) -> str:
    """Return the label of a measure, with powers set as mathematics."""
    return f"${measure.label}$" if "^" in measure.label else measure.label


def hide_spines(*axes: Any) -> None:
    """Leave the left and the lower spine alone."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
