"""A step of training for n networks: hand-batched in one tensor program, with vmap of grad, and in a loop.

All three take the same minibatches and end with gradients; the optimizer's step is that of one tensor, of one tensor,
and of each network's own parameters. With ``--epoch``, an epoch of ``wsflow.train_population`` instead, with random
data in chunks of several sizes, and without a size:

    python benchmarks/training.py --epoch --widths 784 10 10 -n 256 --examples 11000 --chunks 256 64 32 16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import report, seconds
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.populations.optimizers import OPTIMIZERS, Rates
from wsflow.populations.training import train_population
from wsflow.running import forward, losses
from wsflow.task import Task
from wsflow.weights import WeightArray

LEARNING_RATE = 1e-3
Step = Callable[[], object]


def batched(weights: Tensor, architecture: Architecture, X: Tensor, y: Tensor) -> Step:
    """As wsflow.train_population does it."""
    leaf = weights.clone().requires_grad_()
    row, memory = OPTIMIZERS["adam"], [torch.zeros_like(weights) for _ in range(2)]
    rate = torch.full((len(weights), 1), LEARNING_RATE)

    def step() -> Tensor:
        (gradient,) = torch.autograd.grad(losses(forward(leaf, architecture, X), y, "cross_entropy").sum(), leaf)
        kept = gradient.clone()
        row.update(leaf.detach(), gradient, memory, Rates(1, rate, rate, rate, torch.empty))
        return kept

    return step


def vectorised(weights: Tensor, architecture: Architecture, X: Tensor, y: Tensor) -> Step:
    """vmap over networks of the gradient of one."""
    leaf = weights.clone()
    leaf.grad = torch.zeros_like(leaf)
    optimizer = torch.optim.Adam([leaf], LEARNING_RATE, fused=True)

    def loss(row: Tensor, x: Tensor, target: Tensor) -> Tensor:
        return losses(forward(row[None], architecture, x), target, "cross_entropy")[0]

    gradient = torch.func.vmap(torch.func.grad(loss))

    def step() -> Tensor:
        leaf.grad = gradient(leaf, X, y)
        optimizer.step()
        return leaf.grad

    return step


def looped(weights: Tensor, architecture: Architecture, X: Tensor, y: Tensor) -> Step:
    """One module after the other."""
    modules = WeightArray(weights.numpy(), architecture).to_modules()
    optimizers = [torch.optim.Adam(module.parameters(), LEARNING_RATE, fused=True) for module in modules]

    def step() -> Tensor:
        for module, optimizer, x, target in zip(modules, optimizers, X, y, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), target).backward()
            optimizer.step()
        return torch.stack([torch.cat([p.grad.flatten() for p in m.parameters()]) for m in modules])

    return step


def epochs(options: argparse.Namespace) -> None:
    """An epoch of train_population, for several sizes of chunks."""
    rng = np.random.default_rng(0)
    X = rng.random((options.examples, options.widths[0]), dtype=np.float32)
    task = Task(X, np.arange(len(X)) % options.widths[-1])
    settings = {"hidden": options.widths[1:-1], "n_runs": options.n, "batch_size": options.batch_size, "epochs": 1}
    settings |= {"optimizer": options.optimizer, "initialisation": "uniform", "learning_rate": LEARNING_RATE}
    times = {
        f"chunks of {size}" if size else "default": seconds(
            lambda size=size: train_population(task, chunk_size=size, device=options.device, **settings),
            options.repeats,
        )
        for size in (None, *options.chunks)
    }
    settings = {
        "widths": options.widths,
        "networks": options.n,
        "batch": options.batch_size,
        "examples": options.examples,
    }
    report("training of a population", times, "an epoch of all networks", options.out, **settings)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[30, 16, 16, 2])
    parser.add_argument("-n", type=int, default=256, help="networks")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epoch", action="store_true")
    parser.add_argument("--examples", type=int, default=11000)
    parser.add_argument("--chunks", type=int, nargs="*", default=[256, 64, 32, 16])
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.epoch:
        epochs(options)
        return
    architecture = Architecture.mlp(options.widths)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(options.n, architecture.n_weights, generator=generator) * 0.1**0.5
    X = torch.randn(options.n, options.batch_size, options.widths[0], generator=generator)
    y = torch.randint(options.widths[-1], (options.n, options.batch_size), generator=generator)
    ways = {"batched": batched, "vmap of grad": vectorised, "loop over modules": looped}
    gradients = [make(weights, architecture, X, y)() for make in ways.values()]
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-5)
    times = {name: seconds(make(weights, architecture, X, y), options.repeats) for name, make in ways.items()}
    settings = {"widths": options.widths, "networks": options.n, "batch": options.batch_size}
    report("training of a population", times, "a step of all networks", options.out, **settings)


if __name__ == "__main__":
    main()
