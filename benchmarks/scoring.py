"""Log-densities against samples: the same flow over breast-cancer networks, with the same steps, one thread.

Also how far log-densities are from those with the velocity in double precision, and their standard error over probes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measure import report, seconds
from sklearn.pipeline import make_pipeline

import wsflow
from wsflow.flow.divergence import TraceEstimator
from wsflow.flow.solvers import RungeKutta


class InDouble(RungeKutta):
    """Fixed steps with the velocity in double precision."""

    dtype = torch.float64


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--networks", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = wsflow.load_task("breast_cancer")
    runs = wsflow.train_population(task, hidden=(16, 16), n_runs=options.runs, random_state=0).weights
    model = make_pipeline(
        wsflow.PermutationAligner(),
        wsflow.ScaleCanonicalizer(),
        wsflow.WeightFlow(task=task, density=TraceEstimator("hutchinson", options.probes), random_state=0),
    )
    model.set_params(weightflow__max_iter=options.iterations)
    flow = model.fit(runs)[-1]
    networks = model[:-1].transform(runs[: options.networks])
    times = {
        "samples": seconds(lambda: flow.sample(len(networks), 0), options.repeats),
        "log-densities": seconds(lambda: flow.score_samples(networks), options.repeats),
    }
    found, error = flow.score_samples(networks, return_std=True)
    double = flow.set_params(solver=InDouble()).score_samples(networks)
    report(
        "log-densities and samples",
        times,
        f"{len(networks)} networks",
        options.out,
        weights=int(networks.shape[1]),
        probes=options.probes,
        largest_difference_to_double=float(abs(found - double).max()),
        mean_standard_error=float(error.mean()),
        nats=float(found.mean()),
    )


if __name__ == "__main__":
    main()
