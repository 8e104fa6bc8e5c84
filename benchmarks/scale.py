"""What wsflow costs: by weights and by networks, over its own floor, and against what else could be done.

Each row is a comparison of two things in one run, on one thread, so that ratios carry over to other machines and
seconds do not. Rows are written as they are measured, and those that the file has are skipped:

    python benchmarks/scale.py --out docs/results/scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import RESULTS
from dense_relational import DenseRelational
from measure import seconds
from quality import RECIPES, networks_of, task_of
from results_file import ResultsFile
from torch.utils.flop_counter import FlopCounterMode
from velocity import training_step

import wsflow
from wsflow import Architecture, WeightArray, WeightFlow
from wsflow.flow.continuous import SAMPLED, together
from wsflow.metanetworks.velocity import velocity_network
from wsflow.training.distributed import data_parallel

# hidden widths w of perceptrons 2w-w-w-10: 10^3 to 10^6 weights
HIDDEN = (17, 60, 180, 575)
BATCHES = (8, 32, 128, 512)
SQUARE = 1024
STEPS, WARM = 24, 4
RELATIONAL = {"wdbc": ([30, 16, 16, 2], 64, 32), "mnist": ([784, 10, 10], 32, 1)}
DEPTH = 4
PROCESSES = {"hidden": 64, "batch": 256, "steps": 24}


def networks(architecture: Architecture, n: int, seed: int = 0) -> WeightArray:
    """Networks that nobody trained: what is measured does not depend on what they compute."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, architecture.n_weights), dtype=np.float32) / architecture.n_weights**0.25
    return WeightArray(rows, architecture)


def perceptron(w: int) -> Architecture:
    """Of hidden width w, with half of its weights in the first layer."""
    return Architecture.mlp([2 * w, w, w, 10])


def step_seconds(flow: WeightFlow, X: WeightArray, n: int = STEPS) -> float:
    """The median time of a training step of a flow, after some that do not count."""
    times: list[float] = []
    flow.set_params(max_iter=n, progress=lambda done, total: times.append(time.perf_counter())).fit(X)
    # of several processes only the first one is told
    return float(statistics.median(np.diff(times[WARM:]))) if times else 0.0


def step_flops(flow: WeightFlow, X: WeightArray) -> float:
    """The floating-point operations of the matrix products of a training step, as torch counts them."""
    counts = []
    for n in (2, 2 + WARM):
        with FlopCounterMode(display=False) as counter:
            flow.set_params(max_iter=n, progress=None).fit(X)
        counts.append(counter.get_total_flops())
    return (counts[1] - counts[0]) / WARM


def product_speed() -> float:
    """Floating-point operations a second of a product of two square matrices."""
    a, b = torch.randn(2, SQUARE, SQUARE)
    return 2 * SQUARE**3 / seconds(lambda: a @ b, 9)


def slope(sizes: list[float], times: list[float]) -> float:
    """The exponent of the power that fits times to sizes best."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def by_weights() -> dict[str, Any]:
    """Seconds of each stage, for a network of 10^3 to 10^6 weights, and the exponents of their growth."""
    rows: dict[str, dict[str, float]] = {}
    for w in HIDDEN:
        architecture = perceptron(w)
        X = networks(architecture, 64)
        aligner, canonicalizer = wsflow.PermutationAligner(method="weight"), wsflow.ScaleCanonicalizer()
        aligned = aligner.fit_transform(X)
        canonical = canonicalizer.fit_transform(aligned)
        flow = WeightFlow(source="exchangeable", training=wsflow.models.options.AdamW(batch_size=8), random_state=0)
        step, block = step_seconds(flow, canonical), together(SAMPLED, architecture.n_weights)
        calls: dict[str, tuple[Callable[[], Any], int]] = {
            "align": (partial(aligner.transform, X), len(X)),
            "canonicalize": (partial(canonicalizer.transform, aligned), len(X)),
            "sample": (partial(flow.sample, block, 0), block),
            "score": (partial(flow.score_samples, canonical[: block // 4]), block // 4),
        }
        costs = {stage: seconds(call, 1) / n for stage, (call, n) in calls.items()}
        rows[str(architecture.n_weights)] = {"step": step / 8, **costs}
        print(architecture.n_weights, rows[str(architecture.n_weights)], flush=True)
    sizes = [float(size) for size in rows]
    stages = list(next(iter(rows.values())))
    return {"networks": rows, "slope": {s: slope(sizes, [row[s] for row in rows.values()]) for s in stages}}


def by_batch() -> dict[str, Any]:
    """Seconds of a training step by the number of networks in it, and their exponent."""
    X = wsflow.ScaleCanonicalizer().fit_transform(networks(Architecture.mlp([30, 16, 16, 2]), 1024))
    found = {}
    for size in BATCHES:
        training = wsflow.models.options.AdamW(batch_size=size)
        found[str(size)] = step_seconds(WeightFlow(training=training, random_state=0), X)
    return {"step": found, "slope": slope([float(size) for size in found], list(found.values()))}


def floor(job: str) -> dict[str, Any]:
    """A training step with all defaults over the time that its matrix products would take at the best speed."""
    recipe = RECIPES[job]
    task = task_of(recipe)
    known = wsflow.train_population(task, hidden=recipe["hidden"], n_runs=128, epochs=1, random_state=0).weights
    canonical = wsflow.ScaleCanonicalizer().fit_transform(wsflow.PermutationAligner().fit_transform(known))
    flow = WeightFlow(task=task, random_state=0)
    flops, speed = step_flops(flow, canonical), product_speed()
    step, least = step_seconds(flow, canonical), flops / speed
    return {"step": step, "flops": flops, "flops_a_second": speed, "floor": least, "ratio": step / least}


def relational(job: str, repeats: int = 3) -> dict[str, Any]:
    """A training step of the relational transformer over real edges, and of the published one over all pairs."""
    widths, dim, batch = RELATIONAL[job]
    architecture = Architecture.mlp(widths)
    x, target = torch.randn(2, batch, architecture.n_weights)
    t = torch.rand(batch)
    own = velocity_network("relational", architecture, dim=dim, depth=DEPTH, identity="learned")
    found = {
        "edges": seconds(training_step(own, x, t, target), 5 * repeats),
        "pairs": seconds(training_step(DenseRelational(widths, dim, DEPTH), x, t, target), repeats),
    }
    return {**found, "widths": widths, "dim": dim, "batch": batch, "ratio": found["pairs"] / found["edges"]}


def sampling(job: str, runs: int) -> dict[str, Any]:
    """Drawing a network, over training one with the recipe of its job, both many at once."""
    recipe = RECIPES[job]
    task, training = task_of(recipe), {**recipe["training"], "n_jobs": 1}
    start = time.perf_counter()
    known = wsflow.train_population(task, n_runs=runs, random_state=0, **networks_of(recipe), **training).weights
    trained = (time.perf_counter() - start) / runs
    flow = WeightFlow("euclidean", hints=None, max_iter=5, random_state=0).fit(known)
    hints = wsflow.models.options.ConsensusHints(recipe["flow"]["hints.n_inputs"])
    informed = WeightFlow("euclidean", task=task, hints=hints, max_iter=5, random_state=0).fit(known)
    drawn = {
        "without hints": seconds(lambda: flow.sample(128, 0), 1) / 128,
        "with hints": seconds(lambda: informed.sample(128, 0), 1) / 128,
    }
    return {"train": trained, "sample": drawn, "ratio": {name: trained / value for name, value in drawn.items()}}


def processes() -> dict[str, Any]:
    """Steps a second of two processes, each on a core of its own, over one process on one core; same minibatches."""
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("The row 'processes' needs two cores.")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (1, 2):
            out = Path(folder) / f"{n}.json"
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run([*command, __file__, "--worker", str(out)], env=environment, check=True)
            found[n] = json.loads(out.read_text(encoding="utf-8"))
    one, two = found[1], found[2]
    difference = max(abs(a - b) / abs(a) for a, b in zip(one["losses"], two["losses"], strict=True))
    return {
        **PROCESSES,
        "one": one["step"],
        "two": two["step"],
        "ratio": one["step"] / two["step"],
        "largest_relative_difference_of_losses": difference,
    }


def worker(out: Path) -> None:
    """Time the steps of this process's part of a fit, on the core of its rank."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ["LOCAL_RANK"])]})
    torch.set_num_threads(1)
    X = networks(Architecture.mlp([2 * PROCESSES["hidden"], PROCESSES["hidden"], PROCESSES["hidden"], 10]), 1024)
    training = wsflow.models.options.AdamW(batch_size=PROCESSES["batch"])
    flow = WeightFlow("euclidean", training=training, random_state=0)
    with data_parallel() as group:
        step = step_seconds(flow, X, PROCESSES["steps"])
        if group.is_first:
            history = flow.history_
            out.write_text(json.dumps({"step": step, "losses": [*history.train, *history.validation]}))


ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    "by weights": by_weights,
    "by batch": by_batch,
    "floor, wdbc": partial(floor, "wdbc"),
    "floor, mnist": partial(floor, "mnist"),
    "relational, wdbc": partial(relational, "wdbc"),
    "relational, mnist": partial(relational, "mnist", 1),
    "sampling, mnist": partial(sampling, "mnist", 32),
    "sampling, cnn": partial(sampling, "cnn", 16),
    "processes": processes,
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--again", action="store_true", help="measure rows that the file has, too")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker)
        return
    torch.set_num_threads(1)
    file = ResultsFile(options.out, {}, options.again)
    for name in options.rows:
        print(name, file.measure(name, ROWS[name]), flush=True)


if __name__ == "__main__":
    main()
