"""Which of the flow's defaults matter: one population, one setting changed at a time, judged as the demo is.

Writes ``docs/results/ablation.json`` and ``docs/results/ablation.inc`` (the table of the results page). Every
variant has the same training steps, so the seconds of fitting differ; nothing is selected.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from demo_seeds import COLUMNS, RESULTS, number, table
from measure import hardware
from sklearn.pipeline import make_pipeline

import wsflow

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "metric='euclidean'": {"metric": "euclidean"},
    "metric_weight=0.5": {"metric_weight": 0.5},
    "metric_weight=0.99": {"metric_weight": 0.99},
    "velocity='mlp'": {"velocity": "mlp"},
    "prior='isotropic'": {"prior": "isotropic"},
    "identity=None": {"identity": None},
    "prediction='x1'": {"prediction": "x1"},
    "prediction='velocity'": {"prediction": "velocity"},
    "coupling='ot'": {"coupling": "ot"},
    "geometry='euclidean'": {"geometry": "euclidean"},
    "geometry='normalized'": {"geometry": "normalized"},
    "last_layer='polar'": {"last_layer": "polar"},
    "temperature=0.7": {"temperature": 0.7},
}


def measure(known: Any, unseen: Any, task: Any, seed: int, changes: dict[str, Any], nulls: bool) -> Any:
    """Fit and judge one variant: its report, and the seconds of fitting."""
    settings = {"geometry": "geometric", "task": task, "random_state": seed, **changes}
    temperature = settings.pop("temperature", 1.0)
    model = make_pipeline(wsflow.PermutationAligner(), wsflow.ScaleCanonicalizer(), wsflow.WeightFlow(**settings))
    start = time.perf_counter()
    model.fit(known)
    seconds = time.perf_counter() - start
    samples = wsflow.sample(model, 200, random_state=seed, temperature=temperature)
    return wsflow.evaluate(samples, known, unseen, task, nulls=nulls, random_state=seed), seconds


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = wsflow.load_task("breast_cancer")
    weights = wsflow.train_population(task, n_runs=options.runs + 300, random_state=options.seed).weights
    known, unseen = weights[weights.runs < options.runs], weights[weights.runs >= options.runs]
    rows: dict[str, dict[str, float]] = {}
    for name in options.variants:
        first = not rows
        report, seconds = measure(known, unseen, task, options.seed, VARIANTS[name], nulls=first)
        rows[name] = {**{c: report.samples[c] for c in COLUMNS}, "seconds": seconds}
        if first:
            rows["held-out networks"] = {**{c: report.held_out[c] for c in COLUMNS}, "seconds": 0.0}
            rows["null: gaussian_full"] = {**{c: report.nulls["gaussian_full"][c] for c in COLUMNS}, "seconds": 0.0}
        print(name, {key: round(value, 3) for key, value in rows[name].items()}, flush=True)
    machine = hardware()
    header = ["setting", *COLUMNS, "seconds of fitting"]
    lines = [f"Seed {options.seed}, {options.runs} runs, one thread of {machine['cpu']}.", ""]
    lines += table(header, [[n, *(number(r[c]) for c in COLUMNS), f"{r['seconds']:.0f}"] for n, r in rows.items()])
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"hardware": machine, "seed": options.seed, "rows": rows}, indent=1, sort_keys=True)
    (options.results / "ablation.json").write_text(text + "\n", encoding="utf-8")
    (options.results / "ablation.inc").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
