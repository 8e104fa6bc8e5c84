"""Model averages of a flow's samples, beside deep ensembles, SGLD, SGHMC, Laplace and variational approximations.

Every source gives networks of one architecture, and averages of 1, 2, 5, ... of them are judged alike: accuracy,
negative log-likelihood, Brier score and calibration error on the test part, and how well their entropy tells foreign
inputs. These are Fashion-MNIST for MNIST; for the breast-cancer data, its own rows with the values of each feature
shuffled by themselves. Step sizes of the samplers, the prior of the Laplace approximation and the weight of the KL of
variational networks are the ones with the best likelihood on the validation part, for each seed; nothing else is
selected. Seconds are those of the call that
makes the networks: of a flow with its population, of a sampler with the step size that was taken. What else could be
had for the cost of a flow is ``affordable``, a number of training runs; its population is a deep ensemble already, and
is averaged whole. Writes a row for each seed. MNIST is where ``WSFLOW_DATA`` says, or is downloaded.

References: Welling and Teh 2011 (SGLD); Chen, Fox and Guestrin 2014, arXiv:1402.4102 (SGHMC); Daxberger et al. 2021,
arXiv:2106.14806 (Laplace approximations of the last layer); Tomczak, Swaroop and Turner 2020 (variational networks of
low rank).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import RESULTS
from quality import RECIPES, fitted, population, quick
from results_file import Clock, ResultsFile, plain

import wsflow
from wsflow import Task, WeightArray
from wsflow.evaluation import predictive_curve
from wsflow.exceptions import NumericalError
from wsflow.populations.laplace import last_layer_laplace

JOBS = ("wdbc", "mnist")
SIZES = (1, 2, 5, 10, 20, 50, 100)
# a chain gives a tenth of the networks, from the second half of its steps
CHAINS = 10
EPOCHS = {"wdbc": 400, "mnist": 10}
RATES = {"sgld": (0.03, 0.1, 0.3, 1.0), "sghmc": (0.003, 0.01, 0.03, 0.1)}
PRIOR_VARIANCE = 1.0  # of the weights, for the samplers
PRECISIONS = (0.1, 1.0, 10.0, 100.0, 1000.0)
# by their rank, and the weights of the KL that are tried
VARIATIONAL = {"variational, rank 4": 4, "variational, mean-field": 0}
KNOBS = ("learning_rate", "prior_precision", "kl_weight")
KL_WEIGHTS = (1.0, 0.1, 0.01)
STEPS = {"wdbc": 1000, "mnist": 4000}


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
        return last_layer_laplace(unseen[:1], task, n, prior_precision=precision, random_state=seed)

    precision, networks, seconds = best({p: lambda p=p: drawn(p) for p in PRECISIONS}, task)
    made["Laplace, last layer"] = (networks, {"seconds": seconds + ensemble / n, "prior_precision": precision})
    return made, n * whole / ensemble


def measured(job: str, recipe: dict[str, Any], seed: int, n: int, epochs: int, draws: int) -> dict[str, Any]:
    """The row of one seed: a curve for each source."""
    task = wsflow.load_task(recipe["task"])
    made, affordable = sources(task, recipe, seed, n, epochs)
    return {"sources": curves(made, task, seed, n, draws), "affordable": affordable}


def variational(recipe: dict[str, Any], seed: int, n: int, steps: int, draws: int, names: list[str]) -> dict[str, Any]:
    """The curves of variational networks, each a single training."""
    task, made = wsflow.load_task(recipe["task"]), {}
    for name in names:

        def drawn(weight: float, rank: int = VARIATIONAL[name]) -> WeightArray:
            model = wsflow.VariationalNetwork(
                recipe["hidden"], rank, kl_weight=weight, max_iter=steps, learning_rate=5e-3, random_state=seed
            )
            return model.fit(task.X, task.y).sample(n, random_state=seed)

        weight, networks, seconds = best({weight: partial(drawn, weight) for weight in KL_WEIGHTS}, task)
        made[name] = (networks, {"seconds": seconds, "kl_weight": weight})
    return curves(made, task, seed, n, draws)


def curves(
    made: dict[str, tuple[WeightArray, dict[str, float]]], task: Task, seed: int, n: int, draws: int
) -> dict[str, Any]:
    """The measures of averages of each source, by their size, and what its networks cost."""
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
    return rows


def show(job: str, seed: int, row: dict[str, Any]) -> None:
    """What was measured, on the screen."""
    print(f"{job}, seed {seed}: the flow costs as much as {row['affordable']:.0f} training runs")
    for name, found in row["sources"].items():
        knobs = ", ".join(
            f"{key} {found[key]:g}" for key in ("learning_rate", "prior_precision", "kl_weight") if key in found
        )
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
    steps = STEPS[options.job]
    if options.quick:
        recipe, n, epochs, draws, steps = quick(recipe), 10, 4, 2, 5
    settings = {
        "job": options.job, **recipe, "networks": n, "draws": draws, "epochs": epochs, "chains": CHAINS,
        "rates": RATES, "prior_variance": PRIOR_VARIANCE, "precisions": PRECISIONS,
    }  # fmt: skip
    file = ResultsFile(options.out or RESULTS / f"posterior_{options.job}.json", settings, options.again)
    for seed in options.seeds:
        row = file.measure(str(seed), lambda s=seed: measured(options.job, recipe, s, n, epochs, draws))
        if missing := [name for name in VARIATIONAL if name not in row["sources"]]:
            row["sources"] |= plain(variational(recipe, seed, n, steps, draws, missing))
            file.write()
        show(options.job, seed, row)


if __name__ == "__main__":
    main()
