"""Networks of hidden width 32 from flows that saw width 10 only, without retraining.

A wide network is made of several sampled ones, or sampled at its width (``WeightFlow.sample(architecture=...)``). It
stands beside the flow's own networks; beside these padded with split neurons, which is the same function; and beside
networks that were trained at either width. A wide network that is made of four has four times as many samples in a
model average of 50: so the average of as many narrow ones is there too. Writes a row for each seed and geometry.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import RESULTS
from quality import AVERAGED, QUICK, QUICK_FLOW, QUICK_TRAINING, SHORT_MNIST, averaged, fitted
from results_file import Clock, ResultsFile
from torch import Tensor

import wsflow
from wsflow import Architecture, Task, WeightArray
from wsflow.evaluation import predict
from wsflow.models.widths import copies_needed
from wsflow.running import flatten, forward, unflatten

NARROW, WIDE = 10, 32
GEOMETRIES = ("geometric", "euclidean", "normalized")
# what a wide network has to reach in every geometry, and what we are after
MUST, AIM = 0.89, 0.92


def padded(weights: Tensor, narrow: Architecture, wide: Architecture) -> Tensor:
    """Perceptrons with some neurons split: copies that share what they send on, the same function.

    Neuron J of a wide layer is a copy of neuron J mod w, and each of c copies sends on 1/c.
    """
    tensors, made = unflatten(weights, narrow), {}
    pairs = [(a, b) for a, b in zip(narrow.layers, wide.layers, strict=True) if a.kind == "linear"]
    for small, large in pairs:
        sources = torch.arange(large.inputs) % small.inputs
        targets = torch.arange(large.outputs) % small.outputs
        share = 1 / torch.bincount(sources, minlength=small.inputs)[sources].to(weights)
        made[f"{small.name}.weight"] = tensors[f"{small.name}.weight"][:, targets][..., sources] * share
        if small.bias:
            made[f"{small.name}.bias"] = tensors[f"{small.name}.bias"][:, targets]
    return flatten(made, wide)


def split(networks: WeightArray, wide: Architecture, inputs: np.ndarray) -> WeightArray:
    """Padded networks, whose outputs have been compared with those of the originals."""
    rows, x = torch.from_numpy(np.array(networks, dtype=np.float64)), torch.from_numpy(inputs).double()
    made = padded(rows, networks.architecture, wide)
    before, after = forward(rows, networks.architecture, x), forward(made, wide, x)
    if not torch.allclose(before, after, rtol=1e-5, atol=1e-5):
        raise SystemExit(f"Padding changed an output by {(before - after).abs().max():.2g}: it must not.")
    return WeightArray(made.numpy().astype(networks.dtype), wide)


def judged(networks: WeightArray, task: Task, seed: int) -> dict[str, float]:
    """Accuracy and loss of single networks, and the accuracy of averages of 50."""
    predicted = predict(networks, task.held_out)
    row = {"accuracy": predicted.scores.mean(), "accuracy_sd": predicted.scores.std(), "loss": predicted.losses.mean()}
    row |= {"loss_sd": predicted.losses.std(), f"averaged_{AVERAGED}": averaged(networks, task, seed)}
    return {key: float(value) for key, value in row.items()}


def widened(
    known: WeightArray, task: Task, flow: dict[str, Any], seed: int, temperatures: list[float], n: int
) -> dict[str, Any]:
    """One geometry: the flow's own networks, padded ones and wide ones, at each temperature."""
    clock = Clock()
    model = fitted(known, task, seed, flow, clock)
    wide = Architecture.mlp([task.n_inputs, WIDE, task.n_outputs])
    copies = copies_needed(known.architecture, wide)
    rows: dict[str, dict[str, float]] = {}
    for temperature in temperatures:
        options = {"random_state": seed, "temperature": temperature}
        with clock("samples"):
            large = wsflow.sample(model, n, architecture=wide, **options)
            # wide networks are made of successive ones: these are those that they are made of
            small = wsflow.sample(model, n * copies, **options)
        predicted = predict(small[: min(AVERAGED, n) * copies], task.held_out)
        as_many = float((predicted.average.argmax(1) == task.held_out.y).mean())
        at = f", temperature {temperature:g}"
        rows[f"width {NARROW}{at}"] = {**judged(small[:n], task, seed), "averaged_as_many": as_many}
        rows[f"width {NARROW} padded to {WIDE}{at}"] = judged(split(small[:n], wide, task.X[:100]), task, seed)
        rows[f"width {WIDE}{at}"] = judged(large, task, seed)
    return {"copies": copies, "rows": rows, "seconds": clock.seconds}


def trained(task: Task, recipe: dict[str, Any], seed: int, n: int) -> dict[str, Any]:
    """Networks trained at either width, on runs that no flow saw."""
    rows = {}
    for width in (NARROW, WIDE):
        settings = {**recipe["training"], "first_run": recipe["runs"], "random_state": seed}
        networks = wsflow.train_population(task, (width,), n, **settings).weights
        rows[f"trained, width {width}"] = judged(networks, task, seed)
    return {"rows": rows}


def show(name: str, row: dict[str, Any]) -> None:
    """What was measured, on the screen."""
    print(name, f"({row['seconds']['all']:.0f} s)" if "seconds" in row else "")
    for key, numbers in row["rows"].items():
        print(f"  {key:40}", ", ".join(f"{k} {v:.3f}" for k, v in numbers.items()), flush=True)


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--geometries", nargs="+", choices=GEOMETRIES, default=list(GEOMETRIES))
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.7])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure what the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, on the small digits")
    parser.add_argument("--out", type=Path, help="default: docs/results/width.json; none with --quick")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe, n = SHORT_MNIST, options.samples
    if options.quick:
        if options.out is None:
            parser.error("--quick needs --out: what it measures says nothing")
        training, flow = {**recipe["training"], **QUICK_TRAINING}, {**recipe["flow"], **QUICK_FLOW}
        recipe, n = {**recipe, **QUICK, "task": "digits", "training": training, "flow": flow}, 4
    task = wsflow.load_task(recipe["task"])
    settings = {**recipe, "temperatures": options.temperatures, "samples": n, "must": MUST, "aim": AIM}
    file = ResultsFile(options.out or RESULTS / "width.json", settings, options.again)
    for seed in options.seeds:
        measure_seed(file, task, recipe, seed, options, n)


def measure_seed(
    file: ResultsFile, task: Task, recipe: dict[str, Any], seed: int, options: argparse.Namespace, n: int
) -> None:
    """The geometries of one seed, all from one population, which is trained only if it is needed."""
    known: list[WeightArray] = []

    def networks() -> WeightArray:
        if not known:
            settings = {**recipe["training"], "random_state": seed}
            known.append(wsflow.train_population(task, (NARROW,), recipe["runs"], **settings).weights)
        return known[0]

    for geometry in options.geometries:
        flow = {**recipe["flow"], "geometry": geometry}
        key = f"{seed}/{geometry}"
        row = file.measure(key, lambda f=flow: widened(networks(), task, f, seed, options.temperatures, n))
        show(key, row)
    show(f"{seed}/trained", file.measure(f"{seed}/trained", lambda: trained(task, recipe, seed, n)))


if __name__ == "__main__":
    main()
