"""A directive that makes a picture, tables and sentences of what ``benchmarks/scale.py`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_from_results import Measured, Row, list_table, machines
from sphinx.application import Sphinx

# stage -> what it does to a network
STAGES = {
    "align": "aligning",
    "canonicalize": "canonical form",
    "step": "in a training step",
    "sample": "sampling",
    "score": "log-density",
}
MANY = 1_000_000


def costs_lines(found: Row) -> list[str]:
    """The table of seconds by size, what a million networks would take, and the table of ratios."""
    rows = found["rows"]
    lines = [f"Measured on {machines(rows.values())}.", ""]
    if "by weights" in rows:
        lines += growth_lines(rows["by weights"])
    return [*lines, *list_table(["what", "over what", "ratio"], ratio_cells(rows))]


def growth_lines(row: Row) -> list[str]:
    """Milliseconds of a network by its weights, exponents, and a million networks of the smallest size."""
    by_size = {int(size): costs for size, costs in row["networks"].items()}
    cells = [[f"{size:,}", *(f"{1000 * costs[s]:.3g}" for s in STAGES)] for size, costs in sorted(by_size.items())]
    cells.append(["exponent", *(f"{row['slope'][stage]:.2f}" for stage in STAGES)])
    size = min(by_size)
    hours = {stage: MANY * by_size[size][stage] / 3600 for stage in ("align", "canonicalize", "sample", "score")}
    said = ", ".join(f"{STAGES[stage]} {value:.2g} hours" for stage, value in hours.items())
    return [
        "Milliseconds a network, and the exponents of their growth with the number of weights:",
        "",
        *list_table(["weights", *STAGES.values()], cells),
        f"A million networks of {size:,} weights would take on one such core: {said}. Stages are divided among cores, "
        "see above; the steps of a fit are as many as for a few.",
        "",
    ]


def ratio_cells(rows: Row) -> list[list[str]]:
    """The ratios that were measured, in words."""
    cells: list[list[str]] = []
    if "by batch" in rows:
        cells.append(["exponent of a training step", "networks in it", f"{rows['by batch']['slope']:.2f}"])
    for job in ("wdbc", "mnist"):
        if (row := rows.get(f"floor, {job}")) is not None:
            title = f"training step with all defaults, {job.upper()}"
            cells.append([title, "its matrix products at the speed of a square one", f"{row['ratio']:.2f}"])
    for job in ("wdbc", "mnist"):
        if (row := rows.get(f"relational, {job}")) is not None:
            sizes = f"{'-'.join(map(str, row['widths']))}, width {row['dim']}, batch {row['batch']}"
            title = f"training step of the relational transformer over all pairs, {sizes}"
            cells.append([title, "over the weights alone", f"{row['ratio']:.0f}"])
    for job, title in (("mnist", "784-10-10"), ("cnn", "the CNN of the results")):
        if (row := rows.get(f"sampling, {job}")) is not None:
            for kind, ratio in row["ratio"].items():
                cells.append([f"training a network, {title}", f"sampling one {kind}", f"{ratio:.0f}"])
    if (row := rows.get("processes")) is not None:
        cells.append(["steps a second of two processes on two cores", "of one on one", f"{row['ratio']:.2f}"])
    return cells


def draw_growth(row: Row, path: Path) -> None:
    """Milliseconds of a network against its weights, both on logarithmic scales."""
    from matplotlib.figure import Figure

    sizes = sorted(row["networks"], key=int)
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    for stage, title in STAGES.items():
        values = [1000 * row["networks"][size][stage] for size in sizes]
        axis.plot([int(size) for size in sizes], values, "o-", label=f"{title}, exponent {row['slope'][stage]:.2f}")
    axis.set(xscale="log", yscale="log", xlabel="weights of a network", ylabel="milliseconds a network")
    axis.legend(fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


class CostsFigure(Measured):
    """The picture, and the tables."""

    def lines(self, found: Row) -> list[str]:
        """The picture where its row is there, and the tables."""
        lines = costs_lines(found)
        if "by weights" not in found["rows"]:
            return lines
        draw_growth(found["rows"]["by weights"], Path(self.env.srcdir) / "generated" / "costs.png")
        text = "Milliseconds a network for each stage, against the number of its weights, from 10^3 to 10^6"
        return [".. image:: /generated/costs.png", f"   :alt: {text}", "", *lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("costs-figure", CostsFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
