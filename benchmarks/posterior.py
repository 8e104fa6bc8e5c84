"""Model averages of a flow's samples, beside deep ensembles, SGLD, SGHMC and a Laplace approximation.

Every source gives networks of one architecture, and averages of 1, 2, 5, ... of them are judged alike: accuracy,
negative log-likelihood, Brier score and calibration error on the test part, and how well their entropy tells foreign
inputs. These are Fashion-MNIST for MNIST; for the breast-cancer data, its own rows with the values of each feature
shuffled by themselves. Step sizes of the samplers and the prior of the Laplace approximation are the ones with the
best likelihood on the validation part, for each seed; nothing else is selected. Seconds are those of the call that
makes the networks: of a flow with its population, of a sampler with the step size that was taken. What else could be
had for the cost of a flow is ``affordable``, a number of training runs; its population is a deep ensemble already, and
is averaged whole. Writes a row for each seed. MNIST is where ``WSFLOW_DATA`` says, or is downloaded.

References: Welling and Teh 2011 (SGLD); Chen, Fox and Guestrin 2014, arXiv:1402.4102 (SGHMC); Daxberger et al. 2021,
arXiv:2106.14806 (Laplace approximations of the last layer).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import RESULTS
from quality import RECIPES, fitted, population, quick
from results_file import Clock, ResultsFile
from torch import Tensor

import wsflow
from wsflow import Task, WeightArray
from wsflow.architecture.sequential import LINEAR
from wsflow.evaluation import predictive_curve
from wsflow.exceptions import NumericalError
from wsflow.running import flatten, predictions, unflatten
from wsflow.running.execution import evaluation_run

JOBS = ("wdbc", "mnist")
SIZES = (1, 2, 5, 10, 20, 50, 100)
# a chain gives a tenth of the networks, from the second half of its steps
CHAINS = 10
EPOCHS = {"wdbc": 400, "mnist": 10}
RATES = {"sgld": (0.03, 0.1, 0.3, 1.0), "sghmc": (0.003, 0.01, 0.03, 0.1)}
PRIOR_VARIANCE = 1.0  # of the weights, for the samplers
PRECISIONS = (0.1, 1.0, 10.0, 100.0, 1000.0)


def foreign(task: Task, seed: int) -> np.ndarray:
    """Inputs that are not of the task."""
    if task.source.get("name") == "mnist":
        return wsflow.load_task("fashion_mnist").held_out.X
    return np.random.default_rng(seed).permuted(task.X, axis=0)


def chains(task: Task, recipe: dict[str, Any], optimizer: str, rate: float, seed: int, n: int, epochs: int) -> Any:
    """Networks of a sampler, at a temperature of one: the posterior under a normal prior."""
    training = {key: recipe["training"][key] for key in ("initialisation", "n_jobs") if key in recipe["training"]}
    each = max(1, n // CHAINS)
    steps = epochs * -(-len(task.X) // 64)
    return wsflow.train_population(
        task, recipe["hidden"], -(-n // each), optimizer=optimizer, learning_rate=rate, epochs=epochs, batch_size=64,
        weight_decay=1 / (PRIOR_VARIANCE * len(task.X)), temperature=1.0, snapshots=each,
        snapshot_every=max(1, steps // (2 * each)), random_state=seed, **training,
    ).weights[:n]  # fmt: skip


def laplace(network: WeightArray, task: Task, precision: float, n: int, generator: torch.Generator) -> WeightArray:
    """Networks whose last layer is drawn from a Gaussian around a trained one; the other layers are its own.

    The precision is that of the prior plus the curvature of the cross-entropy of all examples in the last layer's
    weights W and biases, sum_n (diag p_n - p_n p_n^T) (x) f_n f_n^T, with the features f and a one for the bias.
    """
    architecture = network.architecture
    tensors = unflatten(torch.from_numpy(np.array(network[:1], dtype=np.float64)), architecture)
    last = [layer for layer in architecture.layers if layer.kind == LINEAR][-1]
    features, outputs = _last_layer(tensors, architecture, torch.from_numpy(task.X).double())
    curvature = _curvature(features, outputs)
    factor = torch.linalg.cholesky(curvature + precision * torch.eye(len(curvature), dtype=torch.float64))
    noise = torch.randn(len(curvature), n, generator=generator, dtype=torch.float64)
    change = torch.linalg.solve_triangular(factor.mT, noise, upper=True).mT.reshape(n, last.outputs, last.inputs + 1)
    moved = {name: tensor.expand(n, *tensor.shape[1:]).clone() for name, tensor in tensors.items()}
    moved[f"{last.name}.weight"] += change[..., :-1]
    moved[f"{last.name}.bias"] += change[..., -1]
    return WeightArray(flatten(moved, architecture).numpy().astype(np.float32), architecture)


def _last_layer(tensors: dict[str, Tensor], architecture: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into the last layer, with a one for its bias, and the probabilities that come out."""
    run = evaluation_run(tensors, architecture)
    linear = [(step, of, out) for step, of, out in run.operations(inputs) if step.base == "linear"]
    _, (before, *_), outputs = linear[-1]
    features = before.value[0]
    return torch.cat([features, torch.ones_like(features[:, :1])], 1), predictions(outputs.value, "cross_entropy")[0]


def _curvature(features: Tensor, outputs: Tensor) -> Tensor:
    """The curvature in the last layer, of shape (outputs * features, outputs * features)."""
    k, p = outputs.shape[1], features.shape[1]
    total = torch.zeros(k, p, k, p, dtype=features.dtype)
    for f, q in zip(features.split(5000), outputs.split(5000), strict=True):
        # one class at a time: all at once are (5000, k, k)
        for i in range(k):
            share = q[:, i : i + 1] * (torch.eye(k, dtype=q.dtype)[i] - q)
            total[i] += torch.einsum("nj,na,nb->ajb", share, f, f)
    return total.reshape(k * p, k * p)


def best(makers: dict[float, Callable[[], WeightArray]], task: Task) -> tuple[float, WeightArray, float]:
    """The knob with the best likelihood of the average on the validation part, its networks, and their seconds."""
    found = []
    held = task.validation or task
    for knob, make in makers.items():
        clock = Clock()
        try:
            with clock("make"):
                networks = make()
        except NumericalError:
            # a step size that is too large
            continue
        nll = wsflow.posterior_predictive(networks, held).numbers["nll"]
        found.append((nll, knob, networks, clock.seconds["all"]))
    _, knob, networks, seconds = min(found, key=lambda row: row[0])
    return knob, networks, seconds


def sources(
    task: Task, recipe: dict[str, Any], seed: int, n: int, epochs: int
) -> tuple[dict[str, tuple[WeightArray, dict[str, float]]], float]:
    """Networks of every source with what they cost; and how many runs a flow costs."""
    clock = Clock()
    known, unseen = population({**recipe, "held_out": n}, task, seed, clock)
    model = fitted(known, task, seed, recipe["flow"], clock, form=recipe.get("form", "unit"))
    with clock("samples"):
        samples = wsflow.sample(model, n, random_state=seed)
    ensemble = clock.seconds.pop("held-out runs")
    whole = clock.seconds["all"] - ensemble
    made = {
        "flow": (samples, {"seconds": whole}),
        "deep ensemble": (unseen, {"seconds": ensemble}),
        "deep ensemble, the population": (known, {"seconds": clock.seconds["training runs"]}),
    }
    for name, rates in RATES.items():
        tried = {r: lambda r=r, o=name: chains(task, recipe, o, r, seed, n, epochs) for r in rates}
        rate, networks, seconds = best(tried, task)
        made[name] = (networks, {"seconds": seconds, "learning_rate": rate})

    def drawn(precision: float) -> WeightArray:
        return laplace(unseen, task, precision, n, torch.Generator().manual_seed(seed))

    precision, networks, seconds = best({p: lambda p=p: drawn(p) for p in PRECISIONS}, task)
    made["Laplace, last layer"] = (networks, {"seconds": seconds + ensemble / n, "prior_precision": precision})
    return made, n * whole / ensemble


def measured(job: str, recipe: dict[str, Any], seed: int, n: int, epochs: int, draws: int) -> dict[str, Any]:
    """The row of one seed: a curve for each source."""
    task = wsflow.load_task(recipe["task"])
    made, affordable = sources(task, recipe, seed, n, epochs)
    outside, rows = foreign(task, seed), {}
    for name, (networks, cost) in made.items():
        # of the population, all at once
        sizes = SIZES if len(networks) <= n else (len(networks),)
        curve = predictive_curve(networks, task, sizes, ood=outside, draws=draws, random_state=seed)
        numbers = {
            part: {k: v.tolist() for k, v in values.items()}
            for part, values in asdict(curve).items()
            if part != "sizes"
        }
        rows[name] = {"sizes": curve.sizes, **numbers, "networks": len(networks), **cost}
    return {"sources": rows, "affordable": affordable}


def show(job: str, seed: int, row: dict[str, Any]) -> None:
    """What was measured, on the screen."""
    print(f"{job}, seed {seed}: the flow costs as much as {row['affordable']:.0f} training runs")
    for name, found in row["sources"].items():
        knobs = ", ".join(f"{key} {found[key]:g}" for key in ("learning_rate", "prior_precision") if key in found)
        print(f"  {name} ({found['seconds']:.1f} s{', ' if knobs else ''}{knobs})")
        for i, size in enumerate(found["sizes"]):
            print(f"    {size:5}  " + "  ".join(f"{key} {values[i]:.3f}" for key, values in found["mean"].items()))


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=JOBS, default="wdbc")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--draws", type=int, default=20, help="averages of each size")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure seeds that the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: to see that it runs")
    parser.add_argument("--out", type=Path, help="default: docs/results/posterior_JOB.json; none with --quick")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick and options.out is None:
        parser.error("--quick needs --out: what it measures says nothing")
    recipe, n, epochs, draws = RECIPES[options.job], options.networks, EPOCHS[options.job], options.draws
    if options.quick:
        recipe, n, epochs, draws = quick(recipe), 10, 4, 2
    settings = {
        "job": options.job, **recipe, "networks": n, "draws": draws, "epochs": epochs, "chains": CHAINS,
        "rates": RATES, "prior_variance": PRIOR_VARIANCE, "precisions": PRECISIONS,
    }  # fmt: skip
    file = ResultsFile(options.out or RESULTS / f"posterior_{options.job}.json", settings, options.again)
    for seed in options.seeds:
        row = file.measure(str(seed), lambda s=seed: measured(options.job, recipe, s, n, epochs, draws))
        show(options.job, seed, row)


if __name__ == "__main__":
    main()
