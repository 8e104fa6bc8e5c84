"""Which of the flow's settings matter: one population, one setting changed at a time, judged as the demo is.

Writes ``docs/results/ablation.json``, a row for each seed and variant, and ``docs/results/ablation.inc``, their means
over the seeds. Every variant has the same training steps, so the seconds of fitting differ. Nothing is selected here,
but the defaults are what did well in such tables.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import torch
from demo_seeds import COLUMNS, RESULTS, table
from quality import QUICK_FLOW, fitted
from results_file import Clock, ResultsFile, defaults, mean_and_sd

import wsflow
from wsflow import Task, WeightArray

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "hints=None": {"hints": None},
    "metric='euclidean'": {"metric": "euclidean"},
    "hints=None, metric='euclidean'": {"hints": None, "metric": "euclidean"},
    "velocity='mlp'": {"velocity": "mlp"},
    "velocity='mlp', hints=None": {"velocity": "mlp", "hints": None},
    "width=128": {"velocity.width": 128},
    "identity=None": {"velocity.identity": None},
    "identity=None, source='exchangeable'": {"velocity.identity": None, "source": "exchangeable"},
    "source='exchangeable'": {"source": "exchangeable"},
    "source='isotropic'": {"source": "isotropic"},
    "source='initialisation'": {"source": "initialisation"},
    "shrinkage=0.05": {"source.shrinkage": 0.05},
    "shrinkage=0.3": {"source.shrinkage": 0.3},
    "coupling='ot'": {"coupling": "ot"},
    "identity=None, coupling='orbit'": {"velocity.identity": None, "coupling": "orbit"},
    "geometry='euclidean'": {"geometry": "euclidean"},
    "geometry='euclidean', form='balanced'": {"geometry": "euclidean", "form": "balanced"},
    "geometry='euclidean', form='raw'": {"geometry": "euclidean", "form": "raw"},
    "geometry='normalized'": {"geometry": "normalized"},
    "last_layer='polar'": {"geometry.last_layer": "polar"},
    "validation_fraction=0": {"training.validation_fraction": 0.0},
    "dropout=0.1": {"velocity.dropout": 0.1},
    "energy='predictions'": {"energy": "predictions"},
    "not aligned": {"aligned": False},
    "not aligned, identity=None": {"aligned": False, "velocity.identity": None},
    "64 principal components": {"components": 64, "geometry": "auto", "velocity": "mlp"},
    "256 principal components": {"components": 256, "geometry": "auto", "velocity": "mlp"},
    "temperature=0.7": {"temperature": 0.7},
}
# what is no parameter of WeightFlow, and what it is by default
PIPELINE: dict[str, Any] = {"form": "unit", "aligned": True, "components": None}
# a variant that is the default says nothing
DEFAULTS = defaults()
VARIANTS = {n: v for n, v in VARIANTS.items() if not v or any(DEFAULTS.get(k, 1.0) != x for k, x in v.items())}
HELD_OUT, NULL = "held-out networks", "null: gaussian_full"
SHOWN = (*COLUMNS, "copies")


def measured(
    known: WeightArray, unseen: WeightArray, task: Task, seed: int, changes: dict[str, Any], nulls: bool, n: int
) -> dict[str, Any]:
    """Fit and judge one variant; with the nulls come the rows that it stands beside."""
    settings = {"geometry": "geometric", **changes}
    temperature = settings.pop("temperature", 1.0)
    pipeline = {name: settings.pop(name) for name in PIPELINE if name in settings}
    clock = Clock()
    model = fitted(known, task, seed, settings, clock, **pipeline)
    samples = wsflow.sample(model, n, random_state=seed, temperature=temperature)
    report = wsflow.evaluate(samples, known, unseen, task, nulls=nulls, random_state=seed)
    beside = {HELD_OUT: report.held_out, NULL: report.nulls["gaussian_full"]} if nulls else {}
    return {**report.samples, "seconds": clock.seconds["flow"], "beside": beside}


def page(rows: dict[str, dict[str, Any]], runs: int) -> str:
    """The table: means over the seeds that have been measured, of every variant."""
    found = by_variant(rows)
    machines = sorted({f"{row['hardware']['threads']} thread of {row['hardware']['cpu']}" for row in rows.values()})
    lines = [f"{runs:,} runs, {', '.join(machines)}; mean ± standard deviation over seeds.", ""]
    cells = [
        [name, ", ".join(of), *(mean_and_sd(row[key] for row in of.values()) for key in SHOWN), spent(of)]
        for name, of in found.items()
    ]
    return "\n".join([*lines, *table(["setting", "seeds", *SHOWN, "seconds of fitting"], cells)]).rstrip() + "\n"


def by_variant(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Variant -> seed -> row, in the order of the table, after what they stand beside."""
    seeds = sorted({key.partition("/")[0] for key in rows}, key=int)
    beside = {
        name: {s: row["beside"][name] for s in seeds if (row := rows.get(f"{s}/defaults")) is not None}
        for name in (HELD_OUT, NULL)
    }
    # those of settings that are gone stay
    names = dict.fromkeys([*VARIANTS, *(key.partition("/")[2] for key in rows)])
    variants = {name: {s: rows[key] for s in seeds if (key := f"{s}/{name}") in rows} for name in names}
    return {name: found for name, found in (beside | variants).items() if found}


def spent(rows: dict[str, dict[str, Any]]) -> str:
    """Seconds of fitting, where something was fitted."""
    return mean_and_sd((row["seconds"] for row in rows.values()), 0) if "seconds" in next(iter(rows.values())) else ""


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure what the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: to see that it runs")
    parser.add_argument("--results", type=Path, help="folder of the json and the table (default: docs/results)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick and options.results is None:
        parser.error("--quick needs --results: what it measures says nothing")
    settings = {"runs": options.runs, "held_out": 300, "samples": 200, "training": {}, "flow": {}}
    if options.quick:
        settings = {"runs": 16, "held_out": 8, "samples": 8, "training": {"epochs": 4}, "flow": QUICK_FLOW}
    run(options.results or RESULTS, settings, options)


def run(results: Path, settings: dict[str, Any], options: argparse.Namespace) -> None:
    """Seed by seed and variant by variant; the table is written after each."""
    task = wsflow.load_task("breast_cancer")
    file = ResultsFile(results / "ablation.json", settings, options.again)

    @cache
    def populations(seed: int) -> tuple[WeightArray, WeightArray]:
        count = settings["runs"] + settings["held_out"]
        weights = wsflow.train_population(task, n_runs=count, random_state=seed, **settings["training"]).weights
        return weights[weights.runs < settings["runs"]], weights[weights.runs >= settings["runs"]]

    for seed in options.seeds:
        for name in options.variants:
            changes = {**settings["flow"], **VARIANTS[name]}
            first = name == "defaults"
            row = file.measure(
                f"{seed}/{name}",
                lambda s=seed, c=changes, f=first: measured(*populations(s), task, s, c, f, settings["samples"]),
            )
            (results / "ablation.inc").write_text(page(file.rows, settings["runs"]), encoding="utf-8")
            print(f"seed {seed}, {name}:", ", ".join(f"{key} {row[key]:.3f}" for key in SHOWN), flush=True)


if __name__ == "__main__":
    main()
