"""From N(0, I) to another Gaussian: mean, variance and log-density of a trained flow, against what they should be.

Vectors are as long as the weights of a 30-16-16-2 network (802), and known to the flow as such networks. Writes
``docs/results/two_gaussians.json`` (all numbers, times and the machine) and ``docs/results/two_gaussians.inc`` (the
table of the results page). Nothing is selected: every seed that was run is in both.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from demo_seeds import RESULTS, table
from measure import hardware
from scipy.stats import norm

from wsflow import Architecture, WeightFlow
from wsflow.flow.divergence import TraceEstimator
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import NeuronTransformer

NETWORK = Architecture.mlp([30, 16, 16, 2])
# standard deviation of the target -> training steps
TARGETS = {1.0: 300, 0.7: 1500}
WAYS = {"deterministic": 0.0, "stochastic": 0.2}
COLUMNS = ("mean", "variance", "stochastic mean", "stochastic variance", "log-density off by", "standard error")


def fitted(target: np.ndarray, steps: int, seed: int) -> WeightFlow:
    """A flow from N(0, I) to the law of some rows."""
    settings = {"velocity": NeuronTransformer(64, 2), "solver": RungeKutta(n_steps=32), "random_state": seed}
    return WeightFlow("euclidean", architecture=NETWORK, source="standard", max_iter=steps, **settings).fit(target)


def moments(samples: np.ndarray, deviation: float) -> dict[str, float]:
    """The mean, which should be 1, and the pooled variance over the target's."""
    return {"mean": float(samples.mean()), "variance_ratio": float(samples.var(0).mean() / deviation**2)}


def densities(flow: WeightFlow, rows: np.ndarray, deviation: float) -> dict[str, float]:
    """How far log-densities of fresh rows are from the closed form, in nats."""
    flow.set_params(solver=RungeKutta(n_steps=16), density=TraceEstimator(n_probes=8, probes="row"))
    found, error = flow.score_samples(rows, return_std=True)
    right = norm(1, deviation).logpdf(rows).sum(1)
    off = found - right
    return {
        "exact": float(right.mean()),
        "mean_error": float(off.mean()),
        "rms_error": float(np.sqrt(np.mean(off**2))),
        "standard_error": float(error.mean()),
    }


def run(seed: int, deviation: float, steps: int, n_rows: int, n_samples: int) -> dict[str, Any]:
    """One flow: what it was trained on, what it gives, and how long that took."""
    rng = np.random.default_rng(seed)
    start = time.perf_counter()
    flow = fitted(1 + deviation * rng.normal(size=(n_rows, NETWORK.n_weights)), steps, seed)
    seconds = {"fit": time.perf_counter() - start}
    result: dict[str, Any] = {"seed": seed, "deviation": deviation, "steps": steps, "rows": n_rows}
    for name, noise in WAYS.items():
        start = time.perf_counter()
        result[name] = moments(np.asarray(flow.sample(n_samples, seed, noise=noise)), deviation)
        seconds[name] = time.perf_counter() - start
    start = time.perf_counter()
    result["log_density"] = densities(flow, 1 + deviation * rng.normal(size=(128, NETWORK.n_weights)), deviation)
    seconds["score"] = time.perf_counter() - start
    return result | {"seconds": {name: round(value, 1) for name, value in seconds.items()}}


def cells(result: dict[str, Any]) -> list[str]:
    """A row of the table."""
    ways = [f"{result[way][key]:.4f}" for way in WAYS for key in ("mean", "variance_ratio")]
    density = result["log_density"]
    off = [f"{density['mean_error']:+.1f} of {density['exact']:.0f}", f"{density['standard_error']:.1f}"]
    return [f"{result['deviation']:g}", str(result["seed"]), *ways, *off, f"{sum(result['seconds'].values()):.0f} s"]


def page(results: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The machine, and a row for each flow."""
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    lines = [f"Measured on {machine['cores']} cores of {machine['cpu']}, Python {machine['python']}, {versions}.", ""]
    return "\n".join([*lines, *table(["deviation", "seed", *COLUMNS, "time"], [cells(r) for r in results])])


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=4000, help="rows of the target that the flow is fitted to")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the json and the table go")
    options = parser.parse_args()
    results = []
    print("  ".join(["deviation", "seed", *COLUMNS, "time"]))
    for deviation, steps in TARGETS.items():
        for seed in options.seeds:
            results.append(run(seed, deviation, steps, options.rows, options.samples))
            print("  ".join(cells(results[-1])), flush=True)
    machine = hardware()
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"hardware": machine, "runs": results}, indent=1, sort_keys=True)
    (options.results / "two_gaussians.json").write_text(text + "\n", encoding="utf-8")
    (options.results / "two_gaussians.inc").write_text(page(results, machine), encoding="utf-8")


if __name__ == "__main__":
    main()
