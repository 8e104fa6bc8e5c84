"""A latent flow over networks of 10^5 to 10^7 weights: memory and seconds of aligning, fitting and sampling.

Networks are random, because what they compute is not what is measured: what grows with the number of weights is the
alignment, the principal components and the decoder. Memory is the largest growth of resident memory, over the bytes of
the population:

    python benchmarks/latent.py --out docs/results/latent.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import hardware
from memory import watched
from results_file import Clock
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow.models.options import NetworkGeometry

WIDTHS = {100: 2, 1000: 2, 2000: 3}  # neurons of a hidden layer, and layers
INPUTS, OUTPUTS = 784, 10


def measured(hidden: int, depth: int, n: int, steps: int) -> dict[str, Any]:
    """Align, fit and sample n networks."""
    architecture = wsflow.Architecture.mlp([INPUTS, *(depth * [hidden]), OUTPUTS])
    rows = np.random.default_rng(0).standard_normal((n, architecture.n_weights), dtype=np.float32)
    networks, clock = wsflow.WeightArray(rows, architecture), Clock()
    flow = wsflow.WeightFlow(NetworkGeometry("euclidean", latent=n), max_iter=steps, random_state=0)
    model = make_pipeline(wsflow.PermutationAligner(method="weight", reference="first"), flow)
    with watched(None) as grown:
        with clock("alignment"):
            aligned = model[:-1].fit_transform(networks)
        with clock("flow"):
            flow.fit(aligned)
        with clock("samples"):
            samples = wsflow.sample(model, n, random_state=0)
    if samples.shape != rows.shape or not np.isfinite(np.asarray(samples)).all():
        raise SystemExit(f"{architecture}: samples are not finite networks")
    return {
        "weights": architecture.n_weights,
        "networks": n,
        "gib": rows.nbytes / 2**30,
        "resident_growth": grown["resident"] / rows.nbytes,
        "dimension": flow.geometry_.manifold.dimension,
        "seconds": clock.seconds,
    }


def main() -> None:
    """Measure each size and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=100, help="Training steps of a flow.")
    parser.add_argument("--hidden", type=int, nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for hidden in options.hidden:
        rows.append(measured(hidden, WIDTHS[hidden], options.networks, options.steps))
        print(json.dumps(rows[-1]), flush=True)
    if options.out is not None:
        text = json.dumps({"rows": rows, "steps": options.steps, "hardware": hardware()}, indent=1, sort_keys=True)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
