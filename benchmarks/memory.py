"""Populations that do not fit into the memory that is allowed: each stage in a process of its own, and what it took.

Networks of MNIST are trained, moved in their orbits and perturbed, until their shards are as large as is asked. Each
stage may allocate so much more than Python and the libraries take: the system refuses more (RLIMIT_DATA), and the
largest anonymous memory is measured meanwhile. A small population is taken through the same stages in memory too, and
the numbers are compared:

    python benchmarks/memory.py --gib 4 --allowed 1 --folder /tmp/large --out docs/results/memory.json
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import hardware

import wsflow
from wsflow import mapped as whole
from wsflow.flow.divergence import TraceEstimator
from wsflow.flow.solvers import RungeKutta
from wsflow.mapped import chunks, mapped
from wsflow.models.options import NeuronTransformer
from wsflow.symmetry.actions import Action

GIB = 2**30
SHARD = 2**24  # bytes
TRAINED, EXAMPLES, NOISE = 64, 2000, 0.02
SAMPLES, STEPS = 20, 20  # as many held-out networks as samples; training steps of the flow
STAGES = ("align", "canonicalize", "fit", "score", "evaluate")
INTERVAL = 0.01  # seconds between two looks at the memory


def status(key: str) -> int:
    """Bytes of a row of /proc/self/status."""
    rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith(key))


@contextmanager
def watched(allowed: float | None) -> Iterator[dict[str, float]]:
    """Allow so many more bytes, and measure the largest growth of anonymous and of all resident memory."""
    before = {key: status(key) for key in ("RssAnon:", "VmRSS:", "VmData:")}
    if allowed is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(before["VmData:"] + allowed),) * 2)
    found, done = {"anonymous": 0.0, "resident": 0.0}, threading.Event()

    def look() -> None:
        while not done.wait(INTERVAL):
            for name, key in (("anonymous", "RssAnon:"), ("resident", "VmRSS:")):
                found[name] = max(found[name], status(key) - before[key])

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def task() -> wsflow.Task:
    """Few examples: what networks compute on them is not what is measured."""
    mnist = wsflow.load_task("mnist")
    return replace(mnist.subset(np.arange(EXAMPLES)), test=mnist.held_out.subset(np.arange(256)))


def make(folder: Path, n_bytes: float, hidden: int) -> None:
    """Write a population of so many bytes to shards, and held-out networks of other runs."""
    trained = wsflow.train_population(task(), hidden=(hidden,), n_runs=TRAINED, epochs=3, random_state=0)
    rows, architecture = np.asarray(trained.weights), trained.architecture
    n = int(n_bytes // (4 * architecture.n_weights))
    large = mapped((n + SAMPLES, architecture.n_weights), np.float32, folder)
    deviation, rng, generator = NOISE * rows.std(0), np.random.default_rng(0), torch.Generator().manual_seed(0)
    for part in chunks(*large.shape):
        size = part.stop - part.start
        moved = rows[rng.integers(TRAINED, size=size)]
        moved = moved + deviation * rng.standard_normal(moved.shape, dtype=np.float32)
        large[part] = Action.random(architecture, size, generator, log_scale=0.5)(moved.astype(np.float32))
    weights = wsflow.WeightArray(large, architecture)
    population = wsflow.Population(weights[:n], trained.task, trained.provenance)
    wsflow.save_population(population, folder / "zoo.index.json", SHARD)
    wsflow.save_population(replace(population, weights=weights[n:]), folder / "held_out.st")


def load(folder: Path, name: str, mmap: bool) -> wsflow.Population:
    """The population of an index."""
    return wsflow.load_population(folder / f"{name}.index.json", mmap=mmap)


def align(folder: Path, mmap: bool) -> dict[str, float]:
    """Align all networks, and write them."""
    population, aligner = load(folder, "zoo", mmap), wsflow.PermutationAligner(method="weight")
    aligned = aligner.fit_transform(population.weights)
    wsflow.save_population(replace(population, weights=aligned), folder / "aligned.index.json", SHARD)
    return {"objective": float(aligner.objective_.mean()), "output_change": aligner.output_change_}


def canonicalize(folder: Path, mmap: bool) -> dict[str, float]:
    """Bring all networks to their canonical form, and write them."""
    population, canonicalizer = load(folder, "aligned", mmap), wsflow.ScaleCanonicalizer()
    canonical = canonicalizer.fit_transform(population.weights)
    wsflow.save_population(replace(population, weights=canonical), folder / "canonical.index.json", SHARD)
    return {"output_norm": canonicalizer.output_norm_, "output_change": canonicalizer.output_change_}


def fit(folder: Path, mmap: bool) -> dict[str, float]:
    """Fit a flow, and write it."""
    weights = load(folder, "canonical", mmap).weights
    velocity = NeuronTransformer(width=16, depth=1)
    flow = wsflow.WeightFlow(velocity=velocity, source="exchangeable", max_iter=STEPS, random_state=0).fit(weights)
    wsflow.save_model(flow, folder / "model.st")
    return {"loss": float(flow.history_.validation[-1])}


def score(folder: Path, mmap: bool) -> dict[str, float]:
    """Score all networks."""
    flow = wsflow.load_model(folder / "model.st")
    flow.set_params(solver=RungeKutta("euler", 4), density=TraceEstimator("hutchinson", 1))
    found = flow.score_samples(load(folder, "canonical", mmap).weights)
    return {"log_density": float(found.mean()), "least": float(found.min())}


def evaluate(folder: Path, mmap: bool) -> dict[str, float]:
    """Evaluate samples beside all networks, with nulls that are made of all of them."""
    population = load(folder, "canonical", mmap)
    held_out = wsflow.load_population(folder / "held_out.st").weights
    held_out = wsflow.WeightArray(held_out, held_out.architecture, runs=len(population) + np.arange(len(held_out)))
    samples = wsflow.load_model(folder / "model.st").sample(SAMPLES, random_state=0)
    found = wsflow.evaluate(samples, population.weights, held_out, task())
    rows = {"samples": found.samples, "training": found.training, "gaussian": found.nulls["gaussian_full"]}
    return {f"{name} {key}": row[key] for name, row in rows.items() for key in ("accuracy", "novelty", "dispersion")}


FUNCTIONS: dict[str, Callable[[Path, bool], dict[str, float]]] = {stage: globals()[stage] for stage in STAGES}


def run_stage(stage: str, folder: Path, mmap: bool, allowed: float | None, numbers: int) -> None:
    """Run a stage in this process, and print what it found and took."""
    whole.CHUNK_NUMBERS = numbers
    torch.set_num_threads(1)
    # what is imported when it is first named is no growth
    _ = wsflow.PermutationAligner, wsflow.ScaleCanonicalizer, wsflow.WeightFlow, wsflow.evaluate, wsflow.load_population
    start = time.perf_counter()
    with watched(allowed) as grown:
        found = FUNCTIONS[stage](folder, mmap)
    print(json.dumps({"seconds": time.perf_counter() - start, "numbers": found, **grown}))


def in_process(stage: str, folder: Path, mmap: bool, allowed: float | None, numbers: int) -> dict[str, Any]:
    """Run a stage in a process of its own."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--chunk", str(numbers)]
    command += ["--mmap"] * mmap + ([] if allowed is None else ["--allowed", str(allowed / GIB)])
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{stage}: {result.stderr}")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    print(stage, "mapped" if mmap else "in memory", found, file=sys.stderr, flush=True)
    return found


def compared(folder: Path, n_bytes: float, hidden: int, numbers: int) -> dict[str, float]:
    """The largest relative difference of the numbers of each stage, mapped and in memory, on a small population."""
    found: dict[bool, dict[str, Any]] = {}
    for mmap in (True, False):
        own = folder / f"small_{mmap}"
        own.mkdir()
        make(own, n_bytes, hidden)
        found[mmap] = {stage: in_process(stage, own, mmap, None, numbers)["numbers"] for stage in STAGES}
        shutil.rmtree(own)
    return {
        stage: max(abs(a - found[False][stage][key]) / max(abs(a), 1e-12) for key, a in found[True][stage].items())
        for stage in STAGES
    }


def main() -> None:
    """Make populations, run the stages and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--small", type=float, default=0.0625, help="GiB of the population that is compared.")
    parser.add_argument("--allowed", type=float, help="GiB that a stage may take.")
    parser.add_argument("--hidden", type=int, default=32, help="Neurons of a network.")
    parser.add_argument("--chunk", type=int, default=whole.CHUNK_NUMBERS, help="Numbers that are worked on at once.")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--mmap", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    allowed = None if options.allowed is None else options.allowed * GIB
    if options.stage:
        run_stage(options.stage, options.folder, options.mmap, allowed, options.chunk)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        differences = compared(folder, options.small * GIB, options.hidden, options.chunk)
        make(folder, options.gib * GIB, options.hidden)
        networks = wsflow.persistence.describe(folder / "zoo.index.json")
        stages = {stage: in_process(stage, folder, True, allowed, options.chunk) for stage in STAGES}
    result = {
        "gib": options.gib,
        "allowed_gib": options.allowed,
        "chunk_numbers": options.chunk,
        "networks": networks["networks"],
        "architecture": networks["architecture"],
        "stages": stages,
        "small_gib": options.small,
        "largest_relative_difference": differences,
        "hardware": hardware(),
    }
    text = json.dumps(result, indent=1, sort_keys=True) + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
