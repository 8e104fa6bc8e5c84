"""Outputs and gradients of n networks: `wsflow.running.forward` and a loop over torch's modules, in turns.

CNNs have 4,970 weights. Times are those of the CPU, the least of several rounds in which all ways take turns, so that
a busy machine is as busy for each of them; ratios are to the loop on the same inputs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import report
from torch import Tensor, nn

from wsflow import Architecture, WeightArray
from wsflow.running import forward

Way = Callable[[], object]


def cnn() -> nn.Module:
    """Return three convolutions with stride 2, and a linear layer on means over pixels."""
    layers: list[nn.Module] = []
    for inputs in (1, 16, 16):
        layers += [nn.Conv2d(inputs, 16, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def normed_cnn() -> nn.Module:
    """Return the same network with batch norms."""
    layers: list[nn.Module] = []
    for layer in cnn():  # type: ignore[attr-defined]
        layers += [layer, nn.BatchNorm2d(16)] if isinstance(layer, nn.Conv2d) else [layer]
    return nn.Sequential(*layers)


def mlp() -> nn.Module:
    """Return a perceptron on 784 pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU(), nn.Linear(10, 10))


def looped(networks: list[nn.Module], X: Tensor) -> Way:
    """Differentiate one module after the other."""

    def step() -> None:
        for network, x in zip(networks, X, strict=True):
            torch.autograd.grad(network(x).square().mean(), list(network.parameters()))

    return step


def at_once(weights: Tensor, architecture: Architecture, X: Tensor, size: int, training: bool) -> Way:
    """Differentiate all networks, in groups of one size, with inputs that all share or of their own."""

    def step() -> None:
        for rows, x in zip(weights.split(size), X.split(size) if X.dim() == 5 else [X] * len(weights), strict=False):
            leaf = rows.detach().requires_grad_()
            outputs = forward(leaf, architecture, x, training=training)
            torch.autograd.grad(outputs.square().mean((1, 2)).sum(), leaf)

    return step


def in_turns(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Return the least CPU time of each way, after one round that does not count."""
    times = {name: float("inf") for name in ways}
    for i in range(rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name] = min(times[name], time.process_time() - start) if i else times[name]
    return times


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=("cnn", "normed_cnn", "mlp"), default="cnn")
    parser.add_argument("-n", type=int, default=100, help="networks")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--training", action="store_true", help="in training mode")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    build = {"cnn": cnn, "normed_cnn": normed_cnn, "mlp": mlp}[options.network]
    networks = [build().train(options.training) for _ in range(options.n)]
    architecture = Architecture.from_module(networks[0], torch.zeros(2, 1, 28, 28))
    weights = torch.from_numpy(np.array(WeightArray.from_modules(networks, architecture)))
    X = torch.randn(options.n, options.batch_size, 1, 28, 28)
    ways = {"loop over modules": looped(networks, X)}
    for size in (options.n, max(1, options.n // 4)):
        for name, x in (("shared inputs", X[0]), ("own inputs", X)):
            ways[f"{name}, groups of {size}"] = at_once(weights, architecture, x, size, options.training)
    settings = {"network": options.network, "networks": options.n, "batch": options.batch_size}
    settings |= {"weights": weights.shape[1], "training": options.training}
    report("outputs and gradients", in_turns(ways, options.rounds), "of all networks", options.out, **settings)


if __name__ == "__main__":
    main()
