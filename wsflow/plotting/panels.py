"""Panels that displays of a report are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsflow.evaluation.calibration import Reliability
from wsflow.evaluation.measures import MEASURES
from wsflow.evaluation.nulls import NULLS
from wsflow.evaluation.pareto import DIVERSITY, Frontier
from wsflow.evaluation.report import Report
from wsflow.plotting.style import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    OLIVE,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    colours_of,
    label_of,
    logarithmic,
    of_how_many,
)
from wsflow.training.state import Schedule

LEVEL_STYLES = (
    {"color": BLUE, "marker": "o"},
    {"color": VERMILION, "marker": "s", "ls": "--"},
    {"color": GREEN, "marker": "^", "ls": "-."},
)
# of different lengths: no two of many nulls have both in common
NULL_COLOURS = (VERMILION, BROWN, ORANGE, PURPLE, SKY, OLIVE)
NULL_MARKERS = "sP^vDX*"
EVERY = Schedule.evaluate_every


def null_style(name: str) -> dict[str, str]:
    """Return the colour and the marker of a null, or of one of its levels, which are those of it in every figure."""
    family, known = name.split()[0], list(NULLS)
    place = known.index(family) if family in known else len(known)
    return {"color": NULL_COLOURS[place % len(NULL_COLOURS)], "marker": NULL_MARKERS[place % len(NULL_MARKERS)]}


def draw_nearest(ax: Any, report: Report) -> None:
    """Draw the distances to the nearest training network, in the space that counts: where samples look less new."""
    row = report.samples
    space = "weights" if row["novelty"] == row["novelty_weights"] else "function"
    distances = {name: getattr(report.nearest[name], space) for name in ("held_out", "samples")}
    bins = shared_bins(list(distances.values()))
    for name, label, colour in (("held_out", "networks of held-out runs", GREEN), ("samples", "samples", BLUE)):
        weight = np.full(len(distances[name]), 1 / len(distances[name]))
        label = f"{label}, {_shown(distances[name], bins)}"
        ax.hist(distances[name], bins, weights=weight, color=colour, alpha=0.55, label=label)
    line = np.quantile(distances["held_out"], 0.01)
    ax.axvline(line, ymax=0.77, color="black", ls="--", label="held-out 1% quantile (left: likely copies)")
    ax.set(xlabel=f"distance to the nearest training network, in {space}", ylabel="share of networks")
    ax.set_title(f"Novelty {row['novelty']:.2f}, dispersion {row['dispersion']:.2f}")
    # room for the legend, above bars and line
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])
    ax.legend(loc="upper left", frameon=False)


def draw_frontiers(ax: Any, report: Report, x: str, y: str, legend: bool = False) -> None:
    """Draw two measures against each other: nulls as curves, samples and held-out runs as points."""
    nulls = [curve for name, curve in report.frontiers.items() if name != "samples"]
    for curve in nulls:
        _curve(ax, curve, x, y, label=f"null: {curve.name.replace('_', ' ')}", **null_style(curve.name))
    if "samples" in report.frontiers:
        _curve(ax, report.frontiers["samples"], x, y, color=BLUE, marker="o", label="samples, at all levels")
    for row, label, colour in ((report.held_out, "held-out runs", GREEN), (report.samples, "samples", BLUE)):
        ax.scatter(row[x], row[y], s=90, c=colour, edgecolors="black", zorder=5, label=label)
    if y == "loss":
        # null losses reach over orders of magnitude, and what matters is near the smallest
        logarithmic(ax.yaxis)
    name = label_of(MEASURES[y])
    ax.set(xlabel=label_of(MEASURES[x]), ylabel=f"{name} on held-out data")
    ax.set_title(f"{name[0].upper()}{name[1:]} at {label_of(MEASURES[x])}")
    if legend:
        ax.legend(loc="best", fontsize=8, framealpha=0.8, edgecolor="none")


def draw_levels(ax: Any, report: Report) -> None:
    """Draw the score, the novelty and the dispersion of samples at each level of their generator's knob."""
    curve = report.frontiers["samples"]
    knob = curve.names[0].rpartition(" ")[0] or "level"
    levels = [float(name.rpartition(" ")[2]) for name in curve.names]
    for key, style in zip((report.score, *DIVERSITY), LEVEL_STYLES, strict=True):
        ax.plot(levels, [row[key] for row in curve.rows], label=label_of(MEASURES[key]), **style)
    ax.axhline(1, color="black", lw=0.8, ls=":", label="1: as newly trained networks")
    ax.set(xlabel=knob, ylabel="samples at this level")
    ax.set_title("Samples at several levels")
    ax.legend(frameon=False)


def draw_barriers(ax: Any, report: Report) -> None:
    """Draw the loss barriers of pairs of training runs, before and after alignment."""
    values = report.barriers
    bins = shared_bins([values["before"], values["after"]])
    for key, colour in (("before", ORANGE), ("after", BLUE)):
        mean = float(values[key].mean())
        label = f"{key} alignment, mean {mean:.3f}, {_shown(values[key], bins)}"
        ax.hist(values[key], bins, color=colour, alpha=0.6, label=label)
        ax.axvline(mean, ymax=0.8, color=colour, linewidth=2)
    ax.set(xlabel="midpoint loss barrier on training data", ylabel="pairs of training runs")
    ax.set_title("Loss barriers between training runs")
    # room for the legend, above bars
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
    ax.legend(loc="upper right", frameon=False)


def draw_training(ax: Any, curve: Mapping[str, Any] | None) -> None:
    """Draw the loss of a flow over the steps of its training, where it was measured."""
    ax.set_title("Training of the flow")
    if curve is None or not len(curve.get("step", ())):
        write(ax, "no training curve was given")
        return
    step = np.asarray(curve["step"], dtype=float)
    for key, label, colour in (("train", "training runs", GREY), ("validation", "held-out runs", BLUE)):
        if len(curve.get(key, ())):
            loss = np.asarray(curve[key], dtype=float)
            known = np.isfinite(loss)
            ax.plot(step[known], loss[known], color=colour, linewidth=1.5, label=label)
    if best := curve.get("best_step"):
        ax.axvline(best, color=GREEN, lw=1, ls=":", label=f"step {best}: the weights that are kept")
    low, high = ax.dataLim.intervaly
    if 0 < 10 * low < high:
        logarithmic(ax.yaxis)
    ax.set(xlabel="optimisation step", ylabel="flow-matching loss")
    if len(energy := np.asarray(curve.get("energy", ()), dtype=float)):
        _draw_energy(ax, step[-1], energy)
    ax.legend(frameon=False)


def _draw_energy(ax: Any, start: float, energy: np.ndarray) -> None:
    """Draw the means of each 50 steps of energy matching, which come behind, by a scale of their own."""
    other = ax.twinx()
    steps = start + EVERY * np.arange(1, len(energy) + 1)
    ax.plot([], [], color=ORANGE, label="energy matching (right)")
    other.plot(steps, energy, color=ORANGE, linewidth=1.5)
    other.axvline(start, color="black", lw=0.8, ls=":")
    other.set_ylabel("energy distance of predictions")
    other.spines["top"].set_visible(False)


def draw_iou(ax: Any, report: Report) -> None:
    """Draw the noise frontier of Zeng et al. 2025: accuracy against the overlap of mistakes with a training network."""
    ax.set_title("Mistakes shared with a training network")
    if report.score != "accuracy":
        write(ax, "this task has no classes to be wrong about")
        return
    if "noise" in report.frontiers:
        _curve(ax, report.frontiers["noise"], "iou", "accuracy", label="noise frontier", **null_style("noise"))
    for row, label, colour in ((report.held_out, "held-out runs", GREEN), (report.samples, "samples", BLUE)):
        ax.scatter(row["iou"], row["accuracy"], s=90, c=colour, edgecolors="black", zorder=5, label=label)
    ax.set(xlabel=f"{MEASURES['iou'].label} ({MEASURES['iou'].reading})", ylabel="accuracy on held-out data")
    ax.legend(loc="best", frameon=False)


def reliability_of(report: Report) -> dict[str, Reliability]:
    """Return the reliability of the model averages of a report, by the names of what is averaged; empty without one."""
    shown = {"training": "training networks", "samples": "samples"}
    return {label: report.reliability[name] for name, label in shown.items()} if report.reliability else {}


def draw_reliability(ax: Any, curves: Mapping[str, Reliability]) -> None:
    """Draw how often model averages are right, by how sure they are; there are none of a regression."""
    ax.set_title("Calibration of the model average")
    if not curves:
        write(ax, "this task has no classes to be sure of")
        return
    ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls="--", label="calibrated")
    colours = colours_of(curves)
    for name, found in curves.items():
        colour = colours[name]
        known = found.share > 0
        text = f"{name}, error {found.error:.3f}"
        ax.plot(found.confidence[known], found.accuracy[known], color=colour, lw=1, label=text)
        ax.scatter(found.confidence[known], found.accuracy[known], s=8 + 150 * found.share[known], c=colour)
    ax.set(xlabel="confidence (size: share of examples)", ylabel="accuracy")
    ax.legend(loc="best", frameon=False)


def write(ax: Any, text: str) -> None:
    """Write words where nothing can be drawn."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])


def shared_bins(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return forty bins over all values but the most extreme hundredth, so that one outlier does not hide the rest."""
    joined = np.concatenate(values)
    low, high = float(joined.min()), float(np.quantile(joined, 0.99))
    return np.linspace(low, high if high > low else low + 1.0, 41)


def _shown(values: np.ndarray, bins: np.ndarray) -> str:
    """Say how many of some values are within the bins, where others are left out."""
    inside = int(((values >= bins[0]) & (values <= bins[-1])).sum())
    return of_how_many(inside, len(values))


def _curve(ax: Any, curve: Frontier, x: str, y: str, **style: Any) -> None:
    points = [(row[x], row[y]) for row in curve.rows if _known(row, x, y)]
    if points:
        ax.plot(*np.array(points).T, markersize=5, lw=1.2, alpha=0.85, **style)


def _known(row: Mapping[str, float], x: str, y: str) -> bool:
    return bool(np.isfinite(row[x]) and np.isfinite(row[y]))
