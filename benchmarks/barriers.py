"""The loss barrier between independently trained networks, by the method that aligns them.

The recipe: MLPs from uniform initial weights (torch's), Adam 1e-3 without decay, batches of 128, 10 epochs, on pixels
between 0 and 1; runs 0 to 9 of random state 0; all pairs (i < j), j aligned to i. Functions see the raw weights of
pairs; `PermutationAligner`, with its defaults, makes them scale-free itself. The barrier is the largest excess of the
training loss over the chord, at 25 points strictly between the ends. ``--widths 512 512 512 --seeds 4`` is the wide
case; ``--quick`` takes scikit-learn's digits and a minute. MNIST is read from the folder in WSFLOW_DATA, or from
OpenML.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from measure import hardware
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.estimators.aligner import PermutationAligner
from wsflow.evaluation.barrier import loss_barrier
from wsflow.populations import load_task
from wsflow.populations.training import train_population
from wsflow.symmetry.actions import Action
from wsflow.symmetry.batches import concatenate
from wsflow.symmetry.matching import (
    activation_matching,
    best_chain,
    sinkhorn_matching,
    straight_through_matching,
    weight_matching,
)
from wsflow.symmetry.matching.scales import scale_matching
from wsflow.task import Task
from wsflow.weights import WeightArray

RECIPE = {"initialisation": "uniform", "optimizer": "adam", "learning_rate": 1e-3, "batch_size": 128, "random_state": 0}
QUICK = {"task": "digits", "widths": [32, 32], "seeds": 4, "epochs": 30}
READ = 4096

Aligned = Callable[[Tensor, Tensor, Architecture, tuple[Tensor, Tensor, str]], Action]


def some(X: Tensor) -> Tensor:
    """Inputs on which activations are compared."""
    return X[torch.randperm(len(X), generator=seeded())[:READ]]


def seeded() -> torch.Generator:
    """The same stream of random numbers for every method."""
    return torch.Generator().manual_seed(0)


def scaled_chain(rows: Tensor, goal: Tensor, architecture: Architecture, data: tuple[Tensor, Tensor, str]) -> Action:
    """The chain, then positive scalings (a larger group than the other methods have)."""
    chain = best_chain(rows, goal, architecture, *data, generator=seeded())
    return scale_matching(chain(rows), goal, architecture, *data, generator=seeded()) @ chain


def by_default(rows: Tensor, goal: Tensor, architecture: Architecture, data: tuple[Tensor, Tensor, str]) -> Action:
    """What a user gets: ``PermutationAligner(task=task)``, one for each reference."""
    task = Task(data[0].numpy(), data[1].numpy(), data[2])
    found = []
    for reference, count in zip(*torch.unique_consecutive(goal, dim=0, return_counts=True), strict=True):
        start = sum(len(action) for action in found)
        some = torch.cat([reference[None], rows[start : start + count]])
        aligner = PermutationAligner(task=task, reference=reference.numpy(), by="network", random_state=0)
        networks = WeightArray(some.numpy(), architecture)
        found.append(aligner.fit(networks).transform(networks, return_action=True)[1].rows(slice(1, None)))
    return concatenate(architecture, found)


METHODS: dict[str, Aligned] = {
    "weight": lambda w, r, a, data: weight_matching(w, r, a),
    "none": lambda w, r, a, data: Action.identity(a, len(w)),
    "activation": lambda w, r, a, data: activation_matching(w, r, a, some(data[0])),
    "activation, then weight": lambda w, r, a, data: after(activation_matching(w, r, a, some(data[0])), w, r, a),
    "straight-through": lambda w, r, a, data: straight_through_matching(w, r, a, *data, generator=seeded()),
    "sinkhorn l2": lambda w, r, a, data: sinkhorn_matching(w, r, a, data, loss="l2", generator=seeded()),
    "sinkhorn random": lambda w, r, a, data: sinkhorn_matching(w, r, a, data, loss="random", generator=seeded()),
    "sinkhorn midpoint": lambda w, r, a, data: sinkhorn_matching(w, r, a, data, loss="midpoint", generator=seeded()),
    "chain": lambda w, r, a, data: best_chain(w, r, a, *data, generator=seeded()),
    "PermutationAligner": by_default,
    "chain and scales": scaled_chain,
}


def after(start: Action, rows: Tensor, goal: Tensor, architecture: Architecture) -> Action:
    """Weight matching from where another action has led."""
    return weight_matching(start(rows), goal, architecture) @ start


def measured(
    methods: Sequence[str], networks: WeightArray, task: Task, judge: Task, n_points: int
) -> dict[str, dict[str, float]]:
    """For each method: barriers over all pairs, and what a pair costs."""
    pairs = np.array(list(combinations(range(len(networks)), 2)))
    first, second = networks[pairs[:, 0]], networks[pairs[:, 1]]
    goal, rows = (torch.from_numpy(np.array(w)) for w in (first, second))
    data = torch.from_numpy(task.X), torch.from_numpy(task.y), task.loss
    table = {}
    for name in methods:
        start = time.perf_counter()
        action = METHODS[name](rows, goal, networks.architecture, data)
        spent = (time.perf_counter() - start) / len(pairs)
        barriers = loss_barrier(first, action(second), judge, n_points)
        table[name] = {
            "mean": barriers.mean(),
            "deviation": barriers.std(),
            "largest": barriers.max(),
            "seconds": spent,
        }
        show(name, table)
    return table


def show(name: str, table: dict[str, dict[str, float]]) -> None:
    """One line of the table."""
    row = table[name]
    row["ratio"] = row["mean"] / table["weight"]["mean"] if "weight" in table else float("nan")
    print(
        f"  {name:24} {row['mean']:9.4f} {row['deviation']:9.4f} {row['largest']:9.4f} {row['ratio']:9.3f} "
        f"{row['seconds']:9.2f} s",
        flush=True,
    )


def main() -> None:
    """Train, align, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mnist")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 64, 64])
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--points", type=int, default=25)
    parser.add_argument("--examples", type=int, help="training examples on which barriers are measured (default: all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="digits, 64-32-32-10, 4 seeds, 30 epochs")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        vars(arguments).update(QUICK)
    torch.set_num_threads(arguments.threads)
    task = load_task(arguments.task)
    start = time.perf_counter()
    population = train_population(
        task, arguments.widths, arguments.seeds, activation=arguments.activation, epochs=arguments.epochs, **RECIPE
    )
    trained = time.perf_counter() - start
    order = np.random.default_rng(0).permutation(len(task.X))[: arguments.examples]
    judge = Task(task.X[order], task.y[order], task.loss)
    print(f"{population}, {arguments.task}, trained in {trained:.0f} s; barriers on {len(order)} training examples")
    print(f"  {'method':24} {'mean':>9} {'sd':>9} {'largest':>9} {'ratio':>9} {'a pair':>11}", flush=True)
    rows = measured(arguments.methods, population.weights, task, judge, arguments.points)
    if arguments.out is not None:
        settings = {key: value for key, value in vars(arguments).items() if key != "out"}
        data = {"settings": {**settings, **RECIPE}, "trained": trained, "rows": rows, "hardware": hardware()}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
