"""Draw the pictures of the concepts page: orbits, geometries, a flow, and novelty, each computed by wsflow itself.

``python docs/pictures/draw_concepts.py`` makes ``concept_*.png``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsflow import Architecture, PermutationAligner, ScaleCanonicalizer, WeightArray, WeightFlow
from wsflow.manifolds import Sphere
from wsflow.plotting.style import BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, hide_spines, new_axes

HERE = Path(__file__).parent


def orbits() -> Any:
    """Scalings of a neuron, with two canonical forms, and permutations of two neurons, before and after alignment."""
    left, right = new_axes((7.4, 3.3), 1, 2)
    scalings(left)
    permutations(right)
    return left.figure


def scalings(ax: Any) -> None:
    """Networks w2 relu(w1 x), whose orbits are hyperbolas."""
    architecture, s = Architecture.mlp([1, 1, 1]), np.geomspace(0.25, 4, 60)
    for product, colour in ((0.4, GREY), (1.0, BLUE), (2.2, GREEN)):
        ax.plot(s, product / s, color=colour, linewidth=1)
        rows = np.zeros((4, 4))
        rows[:, 0], rows[:, 2] = (first := np.array([0.35, 0.8, 1.9, 2.8])), product / first
        X = WeightArray(rows, architecture)
        ax.scatter(rows[:, 0], rows[:, 2], 16, colour)
        for form, marker in (("unit", "s"), ("balanced", "D")):
            unit = np.asarray(ScaleCanonicalizer(form).fit_transform(X))
            label = f'form="{form}"' if product == 1.0 else None
            ax.scatter(unit[0, 0], unit[0, 2], 60, "none", edgecolors=VERMILION, marker=marker, label=label, zorder=4)
    ax.set(xlim=(0, 3), ylim=(0, 3), xlabel="$w_1$", ylabel="$w_2$")
    ax.set_title("$w_2\\,\\mathrm{relu}(w_1 x)$: one function on each curve", fontsize=9)
    ax.legend(fontsize=8, frameon=False)
    hide_spines(ax)


def permutations(ax: Any) -> None:
    """The first weights of two neurons, which may change places: a mirror at the diagonal."""
    rng, architecture = np.random.default_rng(0), Architecture.mlp([1, 2, 1], "gelu")
    rows = np.array([1.6, 0.4, 0.2, -0.3, 1.0, -0.8, 0.1]) + 0.16 * rng.normal(size=(40, 7))
    swapped = rows[:, [1, 0, 3, 2, 5, 4, 6]]
    rows = np.where(rng.random((40, 1)) < 0.5, rows, swapped)
    aligned = np.asarray(PermutationAligner(random_state=0).fit_transform(WeightArray(rows, architecture)))
    ax.axline((0, 0), slope=1, color=GREY, linewidth=0.8, linestyle=":")
    ax.scatter(rows[:, 0], rows[:, 1], 26, "none", edgecolors=GREY, label="40 networks")
    ax.scatter(aligned[:, 0], aligned[:, 1], 12, BLUE, label="aligned")
    for title, points, colour in (("mean", rows, GREY), ("mean of aligned", aligned, VERMILION)):
        ax.scatter(*points[:, :2].mean(0), 90, colour, marker="*", label=title, zorder=4)
    ax.set(xlabel="weight of the first neuron", ylabel="of the second", aspect="equal")
    ax.set_title("two neurons change places: a mirror", fontsize=9)
    ax.legend(fontsize=8, frameon=False, loc="upper right")
    hide_spines(ax)


def geometries() -> Any:
    """From one direction of weights to another: the straight line, its projection, and the great circle."""
    axes, sphere = new_axes((7.4, 2.1), 1, 3), Sphere(2)
    start, end = (torch.tensor([np.cos(a), np.sin(a)]) for a in (0.15, 2.75))
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    straight = start + times.unsqueeze(1) * (end - start)
    paths = {
        "euclidean": straight,
        "normalized": sphere.projection(straight),
        "geometric": sphere.geodesic(start.expand(9, 2), end.expand(9, 2), times)[0],
    }
    angle = np.linspace(0, 2 * np.pi, 200)
    for ax, (name, path) in zip(axes, paths.items(), strict=True):
        ax.plot(np.cos(angle), np.sin(angle), color=GREY, linewidth=0.8)
        ax.plot(path[:, 0], path[:, 1], "o-", color=BLUE, markersize=4, linewidth=1)
        ax.scatter(*start, 50, ORANGE, zorder=4)
        ax.scatter(*end, 50, GREEN, zorder=4)
        ax.set(aspect="equal", ylim=(-0.1, 1.12), xlim=(-1.15, 1.15))
        ax.set_title(f'geometry="{name}"', fontsize=9)
        ax.axis("off")
    return axes[0].figure


def flow() -> Any:
    """A flow over vectors in the plane: from its source, along its paths, to samples."""
    rng = np.random.default_rng(0)
    angle = np.pi * rng.random(600)
    half = rng.random(600) < 0.5
    rows = np.stack([np.cos(angle) + half - 0.5, np.where(half, -1, 1) * (np.sin(angle) - 0.25)], 1)
    rows += 0.08 * rng.normal(size=rows.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = WeightFlow("euclidean", source="isotropic", max_iter=3000, random_state=0).fit(rows)
    rows, (_, paths) = model.to_manifold(rows), model.trajectories(150, random_state=0)
    ax = new_axes((6.4, 3.4))
    ax.scatter(rows[:, 0], rows[:, 1], 5, GREY, alpha=0.5, label="what it learned from")
    for i in range(60):
        ax.plot(paths[:, i, 0], paths[:, i, 1], color=SKY, linewidth=0.5, alpha=0.7)
    ax.scatter(paths[0, :, 0], paths[0, :, 1], 8, ORANGE, label="the source, $t = 0$")
    ax.scatter(paths[-1, :, 0], paths[-1, :, 1], 8, BLUE, label="samples, $t = 1$")
    ax.set(aspect="equal")
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    ax.axis("off")
    return ax.figure


def novelty() -> Any:
    """Distances to the nearest training network, over those of held-out runs."""
    rng = np.random.default_rng(3)
    training, held_out = rng.normal(size=(26, 2)), rng.normal(size=(7, 2))
    samples = {"a copy": training[4] + [0.05, 0.04], "a new one": np.array([-0.45, 1.55])}

    def nearest(point: np.ndarray) -> np.ndarray:
        return training[np.linalg.norm(training - point, axis=1).argmin()]

    ax = new_axes((6.4, 3.4))
    unit = float(np.mean([np.linalg.norm(point - nearest(point)) for point in held_out]))
    ax.scatter(*training.T, 22, GREY, label="training networks")
    ax.scatter(*held_out.T, 60, GREEN, marker="*", label="networks of held-out runs")
    for point in held_out:
        ax.plot(*zip(point, nearest(point), strict=True), color=GREEN, linewidth=0.9)
    for name, point in samples.items():
        ax.scatter(*point, 46, BLUE, zorder=4, label=None if name == "a copy" else "samples")
        ax.plot(*zip(point, nearest(point), strict=True), color=BLUE, linewidth=1.4)
        found = np.linalg.norm(point - nearest(point)) / unit
        ax.annotate(f"{name}: novelty {found:.2f}", point, xytext=(8, 6), textcoords="offset points", fontsize=8)
    ax.set(aspect="equal")
    ax.axis("off")
    ax.set_title("1 is the mean green distance", fontsize=9)
    ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax.figure


PICTURES: dict[str, Callable[[], Any]] = {"orbits": orbits, "geometries": geometries, "flow": flow, "novelty": novelty}


def main(folder: Path = HERE) -> None:
    """Draw and write all of them."""
    for name, draw in PICTURES.items():
        draw().savefig(folder / f"concept_{name}.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
