"""Which of the flow's settings matter: one population, one setting changed at a time, judged as the demo is.

Writes ``docs/results/ablation.json``, a row for each seed and variant, and ``docs/results/ablation.inc``, their means
over the seeds. The short jobs have files of their own, ``ablation_JOB.json``, and fewer runs and training steps, so
that three seeds and MNIST take hours and not days. Every variant of a job has the same training steps, so the seconds
of fitting differ. Nothing is selected here, but the defaults are what did well in such tables. Rows of settings that
are constants by now stay in the files. MNIST is where ``WSFLOW_DATA`` says, or is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import torch
from demo_seeds import COLUMNS, RESULTS, table
from quality import QUICK_FLOW, RECIPES, fitted
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
    # what chance alone changes
    "another random_state": {"random_state": 100},
}
JOBS: dict[str, dict[str, Any]] = {
    "wdbc": {
        "task": "breast_cancer",
        "hidden": (16, 16),
        "runs": 2000,
        "held_out": 300,
        "samples": 200,
        "training": {},
        "flow": {"geometry": "geometric"},
        "form": "unit",
    },
    "wdbc-short": {
        "task": "breast_cancer",
        "hidden": (16, 16),
        "runs": 1000,
        "held_out": 200,
        "samples": 200,
        "training": {},
        "flow": {"geometry": "geometric", "max_iter": 250},
        "form": "unit",
    },
    "mnist-short": {
        "task": "mnist",
        # images to train on, and to judge by
        "images": (12000, 2000),
        "hidden": (10,),
        "runs": 300,
        "held_out": 60,
        "samples": 100,
        "training": RECIPES["mnist"]["training"] | {"epochs": 4, "n_jobs": 1},
        "flow": {
            "geometry": "euclidean",
            "training.learning_rate": 0.004,
            "source.shrinkage": 0.02,
            "training.batch_size": 32,
            "max_iter": 150,
        },
        "form": "raw",
    },
}
QUICK_SIZES = {"runs": 16, "held_out": 8, "samples": 8, "training": {"epochs": 4}}
# what is no parameter of WeightFlow, and what it is by default
PIPELINE: dict[str, Any] = {"form": "unit", "aligned": True, "components": None}
# a variant that is the default says nothing
DEFAULTS = defaults()
VARIANTS = {n: v for n, v in VARIANTS.items() if not v or any(DEFAULTS.get(k, 1.0) != x for k, x in v.items())}
HELD_OUT, NULL = "held-out networks", "null: gaussian_full"
SHOWN = (*COLUMNS, "copies")


def measured(
    job: dict[str, Any], networks: tuple[WeightArray, WeightArray], task: Task, seed: int, changes: dict[str, Any]
) -> dict[str, Any]:
    """Fit and judge one variant; with the defaults come the rows that it stands beside."""
    known, unseen = networks
    settings = {**job["flow"], **changes}
    temperature, offset = settings.pop("temperature", 1.0), settings.pop("random_state", 0)
    pipeline = {"form": job["form"]} | {name: settings.pop(name) for name in PIPELINE if name in settings}
    clock = Clock()
    model = fitted(known, task, seed + offset, settings, clock, **pipeline)
    samples = wsflow.sample(model, job["samples"], random_state=seed, temperature=temperature)
    report = wsflow.evaluate(samples, known, unseen, task, nulls=not changes, random_state=seed)
    beside = {} if changes else {HELD_OUT: report.held_out, NULL: report.nulls["gaussian_full"]}
    return {**report.samples, "seconds": clock.seconds["flow"], "beside": beside}


def task_of(job: dict[str, Any]) -> Task:
    """The task of a job, or some examples of it."""
    task = wsflow.load_task(job["task"])
    if "images" not in job or task.test is None:
        return task
    generator = torch.Generator().manual_seed(0)
    parts = zip((task, task.test), job["images"], strict=True)
    rows = [(part, torch.randperm(len(part.X), generator=generator)[:n].numpy()) for part, n in parts]
    known, unseen = (Task(part.X[chosen], part.y[chosen], part.loss) for part, chosen in rows)
    return dataclasses.replace(known, test=unseen)


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
        name: {
            s: row["beside"][name] for s in seeds if name in (row := rows.get(f"{s}/defaults", {})).get("beside", {})
        }
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
    parser.add_argument("--job", choices=list(JOBS), default="wdbc")
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
    job = JOBS[options.job]
    if options.quick:
        job = job | QUICK_SIZES | {"flow": job["flow"] | QUICK_FLOW}
        job["task"] = "digits" if job["task"] == "mnist" else job["task"]
    run(options.results or RESULTS, job, options)


def run(results: Path, job: dict[str, Any], options: argparse.Namespace) -> None:
    """Seed by seed and variant by variant; the table is written after each."""
    task, is_short = task_of(job), options.job != "wdbc"
    file = ResultsFile(results / (f"ablation_{options.job}.json" if is_short else "ablation.json"), job, options.again)

    @cache
    def populations(seed: int) -> tuple[WeightArray, WeightArray]:
        count, training = job["runs"] + job["held_out"], job["training"]
        weights = wsflow.train_population(task, job["hidden"], count, random_state=seed, **training).weights
        return weights[weights.runs < job["runs"]], weights[weights.runs >= job["runs"]]

    for seed in options.seeds:
        for name in options.variants:
            row = file.measure(
                f"{seed}/{name}", lambda s=seed, n=name: measured(job, populations(s), task, s, VARIANTS[n])
            )
            if not is_short:
                (results / "ablation.inc").write_text(page(file.rows, job["runs"]), encoding="utf-8")
            print(f"seed {seed}, {name}:", ", ".join(f"{key} {row[key]:.3f}" for key in SHOWN), flush=True)


if __name__ == "__main__":
    main()
