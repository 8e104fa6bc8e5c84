"""How many runs does a flow need? Quality on the Wisconsin breast-cancer data against the number of training runs.

The runs of a smaller number are the first of a larger one; held-out runs, training steps and everything else are the
same for all. Settings are the defaults of ``WeightFlow``, samples are neither guided nor selected. Beside them is
the best null that is about as new and as different. Writes a row for each seed and number.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from demo_seeds import RESULTS
from quality import QUICK_FLOW, fitted
from results_file import Clock, ResultsFile, rival

import wsflow
from wsflow import Task, WeightArray

COUNTS = (50, 100, 200, 500, 1000, 2000, 5000)
HELD_OUT = 300


def measured(
    known: WeightArray, unseen: WeightArray, task: Task, flow: dict[str, Any], seed: int, n: int
) -> dict[str, Any]:
    """One flow: its samples, the networks it learned from and held-out ones, and the best null beside it."""
    clock = Clock()
    model = fitted(known, task, seed, flow, clock)
    with clock("samples"):
        samples = wsflow.sample(model, n, random_state=seed)
    with clock("evaluation"):
        report = wsflow.evaluate(samples, known, unseen, task, random_state=seed)
    names = ("training", "held_out", "samples", "nulls", "verdict")
    found = {name: getattr(report, name) for name in names}
    return {"seconds": clock.seconds, **found, "beside": rival(report, report.samples)}


def show(key: str, row: dict[str, Any]) -> None:
    """One line of the table."""
    numbers = ", ".join(
        f"{name} {row['samples'][name]:.3f}" for name in ("accuracy", "loss", "novelty", "dispersion", "copies")
    )
    beside = row["beside"]
    null = "no null there" if beside["null"] is None else f"{beside['null']} {beside['null_accuracy']:.3f}"
    print(f"{key:8} {numbers}; {null}; {row['seconds']['all']:.0f} s", flush=True)


class Runs:
    """Training runs of one seed and held-out ones, trained when they are first needed, all of them."""

    def __init__(self, task: Task, seed: int, largest: int, held_out: int, training: dict[str, Any]) -> None:
        self.task, self.seed, self.largest, self.count = task, seed, largest, held_out
        self.training = training
        self._weights: WeightArray | None = None

    def split(self, runs: int) -> tuple[WeightArray, WeightArray]:
        """The first runs, and the held-out ones."""
        if self._weights is None:
            options = {"n_runs": self.largest + self.count, "random_state": self.seed, **self.training}
            self._weights = wsflow.train_population(self.task, **options).weights
        # held-out runs are the first ones, so that they are the same whatever the largest number is
        first, weights = self.count, self._weights
        return weights[(weights.runs >= first) & (weights.runs < first + runs)], weights[weights.runs < first]


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure what the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: to see that it runs")
    parser.add_argument("--out", type=Path, help="default: docs/results/runs.json; none with --quick")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings: dict[str, Any] = {"held_out": HELD_OUT, "samples": options.samples, "training": {}, "flow": {}}
    counts = options.counts
    if options.quick:
        if options.out is None:
            parser.error("--quick needs --out: what it measures says nothing")
        settings, counts = {"held_out": 8, "samples": 8, "training": {"epochs": 4}, "flow": QUICK_FLOW}, [8, 16]
    task = wsflow.load_task("breast_cancer")
    file = ResultsFile(options.out or RESULTS / "runs.json", settings, options.again)
    for seed in options.seeds:
        runs = Runs(task, seed, max(counts), settings["held_out"], settings["training"])
        for count in counts:
            key = f"{seed}/{count}"
            row = file.measure(
                key,
                lambda s=seed, c=count, r=runs: measured(*r.split(c), task, settings["flow"], s, settings["samples"]),
            )
            show(key, row)


if __name__ == "__main__":
    main()
