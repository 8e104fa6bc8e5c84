"""Draw the picture of the first page and of the README: accuracy against novelty, from what the benchmarks measured.

``python docs/pictures/draw.py`` makes ``accuracy_against_novelty.png`` of ``docs/results/quality_mnist.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsflow.plotting.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, hide_spines, new_axes

HERE = Path(__file__).parent
NULLS = {
    "noise": ("training networks and noise", ORANGE),
    "dirichlet": ("mixtures of training networks", PURPLE),
    "gaussian_full": ("a fitted Gaussian", SKY),
    "gaussian_diagonal": ("a diagonal Gaussian", GREY),
}
AREA = 60.0  # of a point whose dispersion is that of newly trained networks, in square points


def main() -> None:
    """Read, draw and write."""
    row = json.loads((HERE.parent / "results" / "quality_mnist.json").read_text(encoding="utf-8"))["rows"]["0"]
    ax = new_axes((7.2, 3.9))
    for name, (label, colour) in NULLS.items():
        draw(ax, [row["nulls"][point] for point in row["curves"][name]], label, colour)
    draw(ax, list(row["samples"].values()), "samples of the flow", BLUE, marker="o", width=2.2)
    for kind, label, colour in (("training", "training networks", VERMILION), ("held_out", "newly trained", GREEN)):
        found = row[kind]
        ax.scatter(found["novelty"], found["accuracy"], 110, colour, marker="*", label=label, zorder=5)
    ax.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    ax.set_xlim(-0.05, 1.75)
    ax.set_ylim(0.55, 0.96)
    ax.set_xlabel("novelty: 0 is a copy, 1 is as new as a training run")
    ax.set_ylabel("accuracy on MNIST's test part")
    ax.set_title("784-10-10 networks; areas of points: how different they are from each other", fontsize=10)
    ax.legend(loc="lower left", fontsize=8, frameon=False)
    hide_spines(ax)
    ax.figure.savefig(HERE / "accuracy_against_novelty.png", dpi=160, metadata={"Software": None})


def draw(
    ax: Any, points: list[dict[str, float]], label: str, colour: str, marker: str = "s", width: float = 1.2
) -> None:
    """One generator as a curve over its level."""
    points = sorted(points, key=lambda point: point["novelty"])
    x, y = ([point[key] for point in points] for key in ("novelty", "accuracy"))
    ax.plot(x, y, color=colour, linewidth=width, alpha=0.8)
    areas = [AREA * max(0.04, point["dispersion"]) ** 2 for point in points]
    ax.scatter(x, y, areas, colour, marker=marker, label=label, zorder=3)


if __name__ == "__main__":
    main()
