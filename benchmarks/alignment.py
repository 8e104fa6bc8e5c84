"""Weight matching of a whole population at once, against one pair at a time, and against its assignments alone.

The plain loop is the algorithm of Ainsworth et al. 2023 (arXiv:2209.04836) as it is usually written: for each network,
for each layer in random order, a matrix of inner products and a linear assignment, until a sweep changes nothing.
The floor is what scipy's assignments of the batched run cost by themselves: no implementation that uses them is faster.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure import report, seconds
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from wsflow.architecture import Architecture
from wsflow.networks import forward, unflatten
from wsflow.symmetry import matching
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import canonical_action


def one_pair(weights: Tensor, reference: Tensor, architecture: Architecture, rng: np.random.Generator) -> list[Tensor]:
    """The permutations of one network's hidden layers, layer by layer."""
    a, b = (unflatten(row.unsqueeze(0), architecture) for row in (reference, weights))
    layers = sorted({int(name.partition(".")[0]) for name in architecture.names})
    permutations = [torch.arange(a[f"{layer}.bias"].shape[1]) for layer in layers]
    for _ in range(50):
        changed = False
        for i in rng.permutation(len(layers) - 1):
            now, after = layers[i], layers[i + 1]
            incoming = b[f"{now}.weight"][0] if i == 0 else b[f"{now}.weight"][0][:, permutations[i - 1]]
            outgoing = b[f"{after}.weight"][0][permutations[i + 1]]
            scores = a[f"{now}.weight"][0] @ incoming.T + a[f"{after}.weight"][0].T @ outgoing
            scores = scores + torch.outer(a[f"{now}.bias"][0], b[f"{now}.bias"][0])
            found = torch.from_numpy(linear_sum_assignment(scores.numpy(), maximize=True)[1])
            rows = torch.arange(len(found))
            better = scores[rows, found].sum() > scores[rows, permutations[i]].sum() + 1e-12
            if better:
                permutations[i], changed = found, True
        if not changed:
            break
    return permutations


def loop(weights: Tensor, reference: Tensor, architecture: Architecture) -> list[list[Tensor]]:
    """One network after the other."""
    rng = np.random.default_rng(0)
    return [one_pair(row, reference, architecture, rng) for row in weights]


def assignments_alone(weights: Tensor, reference: Tensor, architecture: Architecture, repeats: int) -> float:
    """Seconds that the batched run spends in scipy."""
    spent: list[float] = []

    def timed(*args: object, **keywords: object) -> object:
        start = time.perf_counter()
        result = linear_sum_assignment(*args, **keywords)
        spent.append(time.perf_counter() - start)
        return result

    original, matching.linear_sum_assignment = matching.linear_sum_assignment, timed
    try:
        for _ in range(repeats):
            matching.weight_matching(weights, reference, architecture)
    finally:
        matching.linear_sum_assignment = original
    return sum(spent) / repeats


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[30, 16, 16, 2])
    parser.add_argument("-n", type=int, default=500, help="networks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    architecture = Architecture.mlp(options.widths)
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(options.n, architecture.n_weights, generator=generator, dtype=torch.float64)
    weights = canonical_action(raw, architecture)(raw)
    reference = weights[0]
    check(weights, architecture, generator)
    times = {
        "assignments alone (floor)": assignments_alone(weights, reference, architecture, options.repeats),
        "batched": seconds(lambda: matching.weight_matching(weights, reference, architecture), options.repeats),
        "one pair at a time": seconds(lambda: loop(weights, reference, architecture), options.repeats),
    }
    times = {name: value / options.n for name, value in times.items()}
    report("weight matching", times, "a network", options.out, widths=options.widths, networks=options.n)


def check(weights: Tensor, architecture: Architecture, generator: torch.Generator) -> None:
    """Both must keep the function and undo a permutation: a fast wrong answer is not worth timing."""
    few = weights[:5]
    moved = Action.random(architecture, 5, generator, log_scale=0.0)(few)
    inputs = torch.randn(3, architecture.layers[0].inputs, generator=generator, dtype=few.dtype)
    batched = matching.weight_matching(moved, few, architecture)(moved)
    names = [group.name for group in architecture.groups]
    permutations = [
        one_pair(row, original, architecture, np.random.default_rng(0))[: len(names)]
        for row, original in zip(moved, few, strict=True)
    ]
    stacked = {name: torch.stack([found[i] for found in permutations]) for i, name in enumerate(names)}
    for found in (batched, Action(architecture, stacked, {})(moved)):
        torch.testing.assert_close(forward(found, architecture, inputs), forward(few, architecture, inputs))
        torch.testing.assert_close(found, few)


if __name__ == "__main__":
    main()
