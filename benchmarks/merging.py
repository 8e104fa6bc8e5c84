"""Merging pairs of batch-norm networks that were trained independently: what alignment and statistics are worth.

The recipe: four 3x3 convolutions of 64 channels with batch norm and ReLU, the third with stride 2 (the first one too
where images are larger than 16 pixels), the mean over pixels, a linear layer; stochastic gradient descent with Nesterov
momentum .9, weight decay 5e-4, one cycle up to a learning rate of .1, batches of 128, seeds 0 to 3. Each pair of
networks is merged: as trained or aligned, with the mean of the statistics or with statistics gathered anew on 2,000
examples of the training data, and with REPAIR. Accuracies are on at most 2,000 held-out examples; the part is that of
"aligned, reset" in the mean accuracy of the two networks.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import hardware
from torch import nn

import wsflow
from wsflow import Architecture, PermutationAligner, Task, WeightArray
from wsflow.evaluation.predictive import predict

RECIPE = {"width": 64, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 128}
EPOCHS = {"digits": 20, "mnist": 4}
# examples on which statistics are gathered, and on which accuracies are measured
GATHERED, TESTED = 2000, 2000
COLUMNS = ("networks", "mean", "mean, reset", "aligned", "aligned, reset", "aligned, REPAIR", "part")


def images(task: Task, examples: int | None) -> Task:
    """The task with its features as square images of one channel, cut to a number of training examples."""
    side = round(task.n_inputs**0.5)
    shape = (-1, 1, side, side)
    parts = [part for part in (task.test, task.validation) if part is not None]
    X, y = (np.concatenate([getattr(part, name) for part in parts])[:TESTED] for name in ("X", "y"))
    test = Task(X.reshape(shape).astype(np.float32), y)
    return Task(task.X[:examples].reshape(shape).astype(np.float32), task.y[:examples], test=test)


def network(side: int, classes: int) -> nn.Sequential:
    """The recipe's network, with torch's initialisation."""
    layers: list[nn.Module] = []
    channels = 1
    for stride in (2 if side > 16 else 1, 1, 2, 1):
        layers += [nn.Conv2d(channels, RECIPE["width"], 3, stride=stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(RECIPE["width"]), nn.ReLU()]
        channels = RECIPE["width"]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def trained(task: Task, seed: int, epochs: int) -> nn.Module:
    """One training run."""
    torch.manual_seed(seed)
    module = network(task.X.shape[-1], task.n_outputs).train()
    X, y = torch.from_numpy(task.X), torch.from_numpy(task.y)
    settings = {"momentum": RECIPE["momentum"], "weight_decay": RECIPE["weight_decay"], "nesterov": True}
    optimizer = torch.optim.SGD(module.parameters(), RECIPE["learning_rate"], **settings)
    batches = len(X) // RECIPE["batch_size"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RECIPE["learning_rate"], epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(X)).split(RECIPE["batch_size"])[:batches]:
            loss = nn.functional.cross_entropy(module(X[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return module.eval()


def merged(pair: WeightArray, task: Task, method: str) -> dict[str, float]:
    """Accuracies on held-out data of what becomes of two networks."""
    subset = Task(task.X[:GATHERED], task.y[:GATHERED])
    aligner = PermutationAligner(method=method, task=None if method == "weight" else subset, reference="first")
    aligned = aligner.fit_transform(pair)
    networks = {
        "mean": wsflow.merge(pair, statistics="average"),
        "mean, reset": wsflow.merge(pair, subset),
        "aligned": wsflow.merge(aligned, statistics="average"),
        "aligned, reset": wsflow.merge(aligned, subset),
        "aligned, REPAIR": wsflow.merge(aligned, subset, repair=True),
    }
    found = {name: float(predict(weights, task.test).scores[0]) for name, weights in networks.items()}
    ends = float(predict(pair, task.test).scores.mean())
    return {"networks": ends, **found, "part": found["aligned, reset"] / ends}


def main() -> None:
    """Train, merge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="digits", help="digits, mnist, or a .csv or .npz file of square images")
    parser.add_argument("--examples", type=int, default=8000, help="training examples, at most")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--method", default="weight", help="of alignment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = images(wsflow.load_task(options.task), options.examples)
    epochs = options.epochs or EPOCHS.get(options.task, EPOCHS["mnist"])
    start = time.perf_counter()
    modules = [trained(task, seed, epochs) for seed in options.seeds]
    training = time.perf_counter() - start
    architecture = Architecture.from_module(modules[0], torch.from_numpy(task.X[:2]))
    weights = WeightArray.from_modules(modules, architecture, runs=options.seeds)
    start = time.perf_counter()
    pairs = list(combinations(range(len(weights)), 2))
    rows = {f"{options.seeds[i]}, {options.seeds[j]}": merged(weights[[i, j]], task, options.method) for i, j in pairs}
    seconds = {"training": training, "a pair": (time.perf_counter() - start) / len(pairs)}
    report(rows, seconds, options, epochs, len(task.X))


def report(
    rows: dict[str, dict[str, float]],
    seconds: dict[str, float],
    options: argparse.Namespace,
    epochs: int,
    examples: int,
) -> None:
    """Print the table, and write it with the machine."""
    print(
        f"{options.task}, {examples} examples, {epochs} epochs, aligned by {options.method}; accuracy on held-out data"
    )
    print(f"{'seeds':8}" + "".join(f"{name:>17}" for name in COLUMNS))
    for pair, row in rows.items():
        print(f"{pair:8}" + "".join(f"{row[name]:17.4f}" for name in COLUMNS))
    print(f"lowest part {min(row['part'] for row in rows.values()):.4f}, ", end="")
    print(f"highest accuracy of the plain mean {max(row['mean'] for row in rows.values()):.4f}; ", end="")
    print(", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
    if options.out is not None:
        settings: dict[str, Any] = {**RECIPE, "epochs": epochs, "examples": examples, "task": str(options.task)}
        settings |= {"method": options.method, "seeds": options.seeds}
        data = {"title": "merging", "settings": settings, "rows": rows, "seconds": seconds, "hardware": hardware()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
