"""A step of training for each velocity network, on the same batch: forward, backward and AdamW.

The neuron transformer folds fixed axes into the features of neurons; the relational transformer of the thesis
(Erdogan 2025) has a state for every weight; the flat MLP knows no symmetry. Sizes are those of wsflow's defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from measure import report, seconds
from torch import Tensor, nn

from wsflow.architecture import Architecture
from wsflow.metanetworks.velocity import velocity_network


def training_step(network: nn.Module, x: Tensor, t: Tensor, target: Tensor) -> Callable[[], None]:
    """One step of flow matching, with targets given."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (network(x, t) - target).square().mean().backward()
        optimizer.step()

    return step


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[30, 16, 16, 2])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    architecture = Architecture.mlp(options.widths)
    size = {"dim": options.dim, "depth": options.depth, "identity": "learned"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks: dict[str, nn.Module] = {
            "neuron transformer": velocity_network("neuron", architecture, **size),
            "relational transformer": velocity_network("relational", architecture, **size),
            "flat MLP": velocity_network("mlp", architecture),
        }
        x, target = torch.randn(2, options.batch_size, architecture.n_weights)
        t = torch.rand(options.batch_size)
    times = {name: seconds(training_step(f, x, t, target), options.repeats) for name, f in networks.items()}
    counts = {name: sum(p.numel() for p in f.parameters()) for name, f in networks.items()}
    settings = {"widths": options.widths, "batch": options.batch_size, "dim": options.dim, "parameters": counts}
    report("velocity networks", times, "a training step", options.out, **settings)


if __name__ == "__main__":
    main()
