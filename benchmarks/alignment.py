"""Weight matching of a whole population, against one pair at a time, and against its bare arithmetic.

The loop is Git Re-Basin (Ainsworth et al. 2023, arXiv:2209.04836) as its PyTorch port has it: a dict of permutations,
layers in random order, and for each the sum over all its parameters of products of matrices whose other axes have been
permuted. The floor is what the batched run's own assignment problems and matrix products cost by themselves: the
scores are recorded and handed to scipy as they are, and products of the same shapes are made again, of operands that
lie in the cache. The estimator is measured as well, on networks that nobody has canonicalized: it makes scale-free
representatives before, and applies what it finds. Times are CPU times of interleaved runs, because a shared machine is
not equally fast all the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from measure import report
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from wsflow.architecture import Architecture, NeuronGroup
from wsflow.estimators.aligner import PermutationAligner
from wsflow.running import unflatten
from wsflow.running.initialisation import INITIALISATIONS
from wsflow.symmetry.actions import Action
from wsflow.symmetry.canonical import canonical_action
from wsflow.symmetry.matching import orbit_matching, solution, weight_matching
from wsflow.symmetry.matching.assignment import assignment
from wsflow.weights import WeightArray

Axes = dict[str, tuple[str | None, ...]]


def axes_to_groups(architecture: Architecture) -> Axes:
    """For each parameter, the name of the group on each axis, as a permutation spec has it."""
    return {
        p.name: tuple(s.name if isinstance(s, NeuronGroup) else None for s in p.blocks[0].axes)
        for p in architecture.parameters
    }


def permuted(axes: Axes, found: dict[str, Tensor], name: str, params: dict[str, Tensor], skip: int) -> Tensor:
    """A parameter with all of its axes but one permuted."""
    w = params[name]
    for axis, group in enumerate(axes[name]):
        if axis != skip and group is not None:
            w = torch.index_select(w, axis, found[group].int())
    return w


def one_pair(axes: Axes, a: dict[str, Tensor], b: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The permutations of one network, matched to another."""
    places: dict[str, list[tuple[str, int]]] = {}
    for name, groups in axes.items():
        for axis, group in enumerate(groups):
            if group is not None:
                places.setdefault(group, []).append((name, axis))
    sizes = {group: a[where[0][0]].shape[where[0][1]] for group, where in places.items()}
    found = {group: torch.arange(size) for group, size in sizes.items()}
    names = list(found)
    for _ in range(300):
        progress = False
        for i in torch.randperm(len(names), generator=generator):
            group = names[i]
            n = sizes[group]
            scores = torch.zeros((n, n), dtype=next(iter(a.values())).dtype)
            for name, axis in places[group]:
                w_a = torch.moveaxis(a[name], axis, 0).reshape((n, -1))
                w_b = torch.moveaxis(permuted(axes, found, name, b, axis), axis, 0).reshape((n, -1))
                scores += w_a @ w_b.T
            _, columns = linear_sum_assignment(scores.detach().numpy(), maximize=True)
            eye = torch.eye(n, dtype=scores.dtype)
            old = torch.einsum("ij,ij->i", scores, eye[found[group].long()]).sum()
            new = torch.einsum("ij,ij->i", scores, eye[columns, :]).sum()
            progress = progress or bool(new > old + 1e-12)
            found[group] = torch.from_numpy(columns)
        if not progress:
            break
    return found


def loop(weights: Tensor, reference: Tensor, architecture: Architecture) -> list[dict[str, Tensor]]:
    """One network after the other."""
    generator, axes = torch.Generator().manual_seed(0), axes_to_groups(architecture)
    goal = {name: tensor[0] for name, tensor in unflatten(reference.unsqueeze(0), architecture).items()}
    tensors = unflatten(weights, architecture)
    return [
        one_pair(axes, goal, {name: tensor[i] for name, tensor in tensors.items()}, generator)
        for i in range(len(weights))
    ]


@contextmanager
def recorded(problems: list[np.ndarray], products: Counter[Any]) -> Iterator[None]:
    """Keep the assignment problems that are solved, and the shapes of the matrix products."""

    def solve(scores: Tensor) -> Tensor:
        problems.extend(scores.double().numpy().copy())
        return assignment(scores)

    def counted(multiply: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def product(*operands: Tensor) -> Tensor:
            a, b = operands[-2:]
            products[tuple(a.shape), tuple(b.shape), a.dtype, a.stride(0) == 0] += 1
            return multiply(*operands)

        return product

    with (
        mock.patch.object(solution, "assignment", solve),
        mock.patch.object(torch, "bmm", counted(torch.bmm)),
        mock.patch.object(torch, "baddbmm", counted(torch.baddbmm)),
        mock.patch.object(torch.Tensor, "baddbmm_", counted(torch.Tensor.baddbmm_)),
    ):
        yield


def floors(run: Callable[[], Any]) -> tuple[Callable[[], Any], Callable[[], Any], dict[str, int]]:
    """What does a run's assignments alone, what does its matrix products alone, and their numbers."""
    problems: list[np.ndarray] = []
    products: Counter[Any] = Counter()
    with recorded(problems, products):
        run()
    operands = []
    for (left, right, dtype, shared), count in products.items():
        a = torch.randn(left[1:] if shared else left, dtype=dtype).expand(left)
        # the networks' matrices come as columns
        b = torch.randn(right[0], right[2], right[1], dtype=dtype).transpose(1, 2)
        operands += [(a, b)] * count
    numbers = {"assignments": len(problems), "products": sum(products.values())}
    return (
        lambda: [linear_sum_assignment(problem, maximize=True) for problem in problems],
        lambda: [torch.bmm(a, b) for a, b in operands],
        numbers,
    )


def interleaved(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median time of each, all of them run in turn."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if turn:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[784, 64, 64, 64, 10])
    parser.add_argument("-n", type=int, default=100, help="networks")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    architecture = Architecture.mlp(options.widths)
    generator = torch.Generator().manual_seed(0)
    raw = INITIALISATIONS["uniform"](architecture, options.n + 1, generator).to(getattr(torch, options.dtype))
    weights = canonical_action(raw, architecture)(raw)
    weights, reference = weights[1:], weights[0]
    check(weights, architecture, generator)
    aligner = PermutationAligner("weight", reference=reference.numpy(), architecture=architecture)
    rows = WeightArray(raw[1:].numpy(), architecture)
    aligner.fit(rows)
    runs: dict[str, Callable[[], Any]] = {
        "from the rows as they are": lambda: weight_matching(weights, reference, architecture),
        "layer by layer": lambda: orbit_matching(weights, reference, architecture),
        "PermutationAligner.transform": lambda: aligner.transform(rows),
        "PermutationAligner.fit": lambda: aligner.fit(rows),
    }
    settings = {"widths": options.widths, "networks": options.n, "dtype": options.dtype}
    for name, run in runs.items():
        solve, multiply, numbers = floors(run)
        parts = {
            "assignments": solve,
            "matrix products": multiply,
            "batched": run,
            "one pair at a time": lambda: loop(weights, reference, architecture),
        }
        times = interleaved(parts, options.repeats)
        bare = times.pop("assignments") + times.pop("matrix products")
        table = {"bare cost of its arithmetic": bare, **times}
        report(f"weight matching, {name}", table, "in all", options.out, **settings, **numbers)


def check(weights: Tensor, architecture: Architecture, generator: torch.Generator) -> None:
    """Both must undo a permutation: a fast wrong answer is not worth timing."""
    few = weights[:5]
    moved = Action.random(architecture, len(few), generator, log_scale=0.0)(few)
    batched = weight_matching(moved, few, architecture)(moved)
    torch.testing.assert_close(batched, few)
    for i in range(len(few)):
        found = loop(moved[i : i + 1], few[i], architecture)[0]
        action = Action(architecture, {name: p.unsqueeze(0) for name, p in found.items()}, {})
        torch.testing.assert_close(action(moved[i : i + 1])[0], few[i])


if __name__ == "__main__":
    main()
