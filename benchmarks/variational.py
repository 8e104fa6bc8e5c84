"""Deep variational networks: what lets them learn, constants without symmetries or He's first weights; and the rank.

Perceptrons with 16 hidden layers of 64 ReLU units on Fashion-MNIST, 400 steps of AdamW, the weight of the KL rising to
1. The arms: the first weights of torch's layers, which are those of the paper's code (Lim et al. 2024,
arXiv:2405.20231); He's; the paper's constants in the weights over the first ("W": 8 in each row, of standard deviation
1/2, which with ReLU keep the size of a signal by themselves), and their controls, the same constants as mere first
values ("anchor") and the mask alone; and constants as wide as He's weights over those ("W on He"). The last three arms
have layer norms in front of the activations, as the paper's networks have. Accuracy, negative log-likelihood and
calibration error are those of the average of 20 networks on the test images. Rows of a file are kept: a job that was
interrupted goes on.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from demo_seeds import RESULTS
from results_file import ResultsFile
from torch import nn

import wsflow
from wsflow import Architecture, Task, VariationalNetwork
from wsflow.populations.architectures import flat
from wsflow.populations.asymmetry import Asymmetry

DEPTH, WIDTH = 16, 64
PAPER = partial(Asymmetry, n_fixed=8, kappa=0.5)
AS_HE = partial(Asymmetry, n_fixed=8, kappa=(2 / WIDTH) ** 0.5)
# each arm: settings of VariationalNetwork, and whether there are layer norms
ARMS: dict[str, dict[str, Any]] = {
    "standard": {"initialisation": "torch"},
    "He": {},
    "W": {"initialisation": "torch", "asymmetry": PAPER},
    "anchor": {"initialisation": "torch", "asymmetry": PAPER, "anchor": True},
    "mask alone": {"initialisation": "torch", "asymmetry": partial(Asymmetry, n_fixed=8, kappa=0.0)},
    "W on He": {"asymmetry": AS_HE},
    "standard, norms": {"initialisation": "torch", "norms": True},
    "He, norms": {"norms": True},
    "W, norms": {"initialisation": "torch", "asymmetry": PAPER, "norms": True},
}
RANKS, RANKED, RANK = (0, 1, 4, 16), ("standard", "He", "W"), 4
TRAINING = {"kl_weight": 1.0, "warm_up": 0.5, "learning_rate": 2e-3, "batch_size": 128, "n_networks": 20}
MEASURES = ("accuracy", "nll", "ece")


def with_norms(inputs: int, outputs: int) -> Architecture:
    """The same perceptron with layer norms in front of its activations."""
    widths = [inputs, *[WIDTH] * DEPTH]
    layers = [
        layer
        for before, after in zip(widths, widths[1:], strict=False)
        for layer in (nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU())
    ]
    return Architecture.from_module(nn.Sequential(*layers, nn.Linear(WIDTH, outputs)), torch.zeros(2, inputs))


def measured(arm: str, rank: int, seed: int, steps: int, task: Task) -> dict[str, Any]:
    """The row of one network."""
    settings = dict(ARMS[arm])
    if "asymmetry" in settings:
        settings["asymmetry"] = settings["asymmetry"](seed=seed)
    norms = settings.pop("norms", False)
    network = {"architecture": with_norms(task.n_inputs, task.n_outputs)} if norms else {"hidden": (WIDTH,) * DEPTH}
    model = VariationalNetwork(rank=rank, max_iter=steps, random_state=seed, **network, **TRAINING, **settings)
    start = time.perf_counter()
    model.fit(task.X, task.y)
    seconds = time.perf_counter() - start
    held_out = task.held_out
    found = model.evaluate(held_out.X, held_out.y)
    divergence = float(model.model_.kl()) / len(task.X)
    return {**{key: float(found[key]) for key in MEASURES}, "kl": divergence, "seconds": seconds}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="fashion_mnist")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--ranks", nargs="+", type=int, default=list(RANKS), help="of standard, He and W")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure rows that the file has, too")
    parser.add_argument("--quick", action="store_true", help="digits and 2 steps: to see that it runs")
    parser.add_argument("--out", type=Path, help="default: docs/results/variational.json; none with --quick")
    options = parser.parse_args()
    if options.quick and options.out is None:
        parser.error("--quick needs --out: what it measures says nothing")
    if options.quick:
        options.task, options.steps = "digits", 2
    torch.set_num_threads(options.threads)
    task = flat(wsflow.load_task(options.task))
    settings = {"task": options.task, "depth": DEPTH, "width": WIDTH, "steps": options.steps, **TRAINING}
    file = ResultsFile(options.out or RESULTS / "variational.json", settings, options.again)
    for seed in options.seeds:
        for rank in sorted(options.ranks, key=lambda rank: rank != RANK):
            for arm in (arm for arm in options.arms if rank == RANK or arm in RANKED):
                key = f"{seed}/{arm}, rank {rank}"
                row = file.measure(key, lambda a=arm, r=rank, s=seed: measured(a, r, s, options.steps, task))
                numbers = "  ".join(f"{name} {row[name]:.3f}" for name in (*MEASURES, "kl"))
                print(f"{key:40} {numbers}  {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
