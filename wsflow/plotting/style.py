"""What figures share: colours, axes without a window, logarithmic axes and labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from wsflow.evaluation.measures import Measure
from wsflow.exceptions import InvalidInputError

# of Okabe and Ito: they stay apart for colour-blind eyes
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
BROWN, OLIVE = "#8C510A", "#808000"
GREY = "#8C8C8C"
# of what is drawn under these names in every figure, and of others in turn
NAMED = {"training networks": GREY, "samples": BLUE, "held-out runs": GREEN}
OTHERS = (VERMILION, PURPLE, BROWN, ORANGE, SKY, OLIVE)
# dark to light as the value grows
SEQUENTIAL = "cividis"
# blue below the middle, red above it
DIVERGING = "RdBu_r"


def new_axes(size: tuple[float, float], rows: int = 1, columns: int = 1) -> Any:
    """Return the axes of a new figure of some inches, which belongs to no window and no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidInputError("Figures need matplotlib, which is not installed: pip install matplotlib.") from error
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


def of_how_many(drawn: int, n: int) -> str:
    """Say how many of some networks are drawn."""
    return f"{drawn} of {n}" if drawn < n else str(n)


def label_directions(ax: Any, explained: Any) -> None:
    """Label the axes of a projection with the shares of the variance along them."""
    for axis, name, share in ((ax.xaxis, "first", explained[0]), (ax.yaxis, "second", explained[1])):
        axis.set_label_text(f"{name} principal direction ({share:.0%} of the variance)")


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name: that of it in every figure, or one of the others in turn."""
    others = itertools.cycle(OTHERS)
    return {name: NAMED.get(name) or next(others) for name in names}


def hide_spines(*axes: Any) -> None:
    """Leave the left and the lower spine alone."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
