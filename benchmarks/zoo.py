"""Accuracy of networks, or the class of an image that a network holds, predicted from weights.

Three zoos: perceptrons and convolutional networks with learning rates, weight decays, scales of first weights, dropout,
shares of the data and numbers of steps of their own (as in Unterthiner et al. 2020, arXiv:2002.11448), of which the
accuracy on test data is predicted; and sirens of one image each, of which the class is. Test networks are of other
runs. Each predictor is scored on them as they are, and after random symmetries of their architecture have moved them,
and so are its intervals; beside metanetworks stand a ridge on the weights, gradient-boosted trees on statistics of
weights, and what hyperparameters alone tell. Writes a row for each seed and predictor. MNIST is read from the folder
that ``WSFLOW_DATA`` names, or downloaded, and brought to 14 x 14 pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import RESULTS
from results_file import Clock, ResultsFile
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from zoo_networks import RANGES, Zoo, images

from wsflow import MetaClassifier, MetaRegressor, ScaleCanonicalizer, WeightArray
from wsflow.evaluation import hyperparameter_baseline, kendall_tau, tau_ceiling
from wsflow.metanetworks.statistics import weight_statistics
from wsflow.models.options import NeuronTransformer
from wsflow.symmetry.actions import Action

COVERAGE = 0.9


def metanetwork(encoder: Any, canonicalize: str | None = "auto", **settings: Any) -> Callable[..., Any]:
    """What makes an estimator with this encoder and these settings, and its defaults elsewhere."""

    def make(is_number: bool, seed: int, steps: dict[str, int]) -> Any:
        kind = MetaRegressor if is_number else MetaClassifier
        return kind(encoder, canonicalize=canonicalize, random_state=seed, **settings | steps)

    return make


def statistics(X: WeightArray) -> np.ndarray:
    """Statistics of each parameter."""
    return weight_statistics(torch.from_numpy(np.array(X, dtype=float)), X.architecture).numpy()


def trees(is_number: bool, seed: int, steps: dict[str, int]) -> Pipeline:
    """Gradient-boosted trees on the statistics of networks."""
    kind = HistGradientBoostingRegressor if is_number else HistGradientBoostingClassifier
    return make_pipeline(FunctionTransformer(statistics), kind(random_state=seed))


def canonical_trees(is_number: bool, seed: int, steps: dict[str, int]) -> Pipeline:
    """Gradient-boosted trees on the statistics of networks whose neurons have unit norm."""
    return make_pipeline(ScaleCanonicalizer(), *(step for _, step in trees(is_number, seed, steps).steps))


def ridge(is_number: bool, seed: int, steps: dict[str, int]) -> Pipeline:
    """A linear model of the weights."""
    kind = RidgeCV if is_number else RidgeClassifierCV
    return make_pipeline(FunctionTransformer(np.array), StandardScaler(), kind(np.logspace(0, 6, 13)))


PREDICTORS: dict[str, Callable[..., Any]] = {
    "default": metanetwork("auto"),
    "default, 1,200 steps": metanetwork("auto", max_iter=1200),
    "neuron, unit": metanetwork(NeuronTransformer(identity=None), "unit"),
    "neuron, raw": metanetwork(NeuronTransformer(identity=None), None),
    "deep_sets": metanetwork("deep_sets"),
    "deep_sets, unit": metanetwork("deep_sets", "unit"),
    "statistics": metanetwork("statistics"),
    "statistics, unit": metanetwork("statistics", "unit"),
    "statistics, raw": metanetwork("statistics", None),
    "mlp": metanetwork("mlp"),
    "mlp, unit": metanetwork("mlp", "unit"),
    "mlp, raw": metanetwork("mlp", None),
    "probe": metanetwork("probe"),
    "trees on statistics, unit": canonical_trees,
    "trees on statistics, raw": trees,
    "ridge, raw": ridge,
}
"""Ways to predict; those that are called raw read networks as they are, and others balanced ones or those of units."""


def measured(data: dict[str, Any], name: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Scores of one way to predict, on test networks as they are and moved."""
    X, y, clock, n = data["X"], data["y"], Clock(), options.train
    is_number = y.dtype.kind == "f"
    if name == "hyperparameters":
        found = hyperparameter_baseline(data["hyperparameters"], y, random_state=seed)
        return {"clean": found.score, "tau": found.tau, "ceiling": tau_ceiling(y)}
    with clock("fit"):
        steps = {} if options.steps is None else {"max_iter": options.steps}
        model = PREDICTORS[name](is_number, seed, steps).fit(X[:n], y[:n])
    moved = Action.random(X.architecture, len(X) - n, torch.Generator().manual_seed(seed))(X[n:])
    with clock("score"):
        row = scores(model, X[n:], y[n:])
    row |= {f"{key}_moved": value for key, value in scores(model, moved, y[n:]).items()}
    row = {"clean": row.pop("score"), "moved": row.pop("score_moved")} | row
    return row | ({"ceiling": tau_ceiling(y[n:])} if is_number else {}) | {"seconds": clock.seconds}


def scores(model: Any, X: WeightArray, y: np.ndarray) -> dict[str, float]:
    """The coefficient of determination and ranks of numbers, or the accuracy of classes; and what intervals cover."""
    found = {"score": float(model.score(X, y))}
    if y.dtype.kind == "f":
        found["tau"] = kendall_tau(y, model.predict(X))
    if len(getattr(model, "calibration_scores_", ())) >= COVERAGE / (1 - COVERAGE):
        low, high = model.predict_interval(X, COVERAGE).T
        found |= {"covered": float(np.mean((low <= y) & (y <= high))), "width": float(np.mean(high - low))}
    return found


def networks(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Networks, what is to be predicted of them, and their hyperparameters."""
    n, low_high = options.train + options.test, tuple(options.network_steps)
    if options.job == "inr":
        return images(options.data, n, seed, low_high[-1])
    return Zoo(options.job, options.data, options.activation, low_high, seed).read(n, options.cache)


JOBS: dict[str, dict[str, Any]] = {
    "mlp": {"train": 3800, "test": 1200, "network_steps": [50, 500]},
    "cnn": {"train": 3000, "test": 1000, "network_steps": [50, 250]},
    "inr": {"train": 1000, "test": 500, "network_steps": [200, 200]},
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=JOBS, default="mlp")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--activation", choices=["relu", "tanh"], default="relu")
    parser.add_argument("--train", type=int)
    parser.add_argument("--test", type=int)
    parser.add_argument("--network-steps", type=int, nargs=2)
    parser.add_argument("--steps", type=int, help="of each metanetwork; default: that of its estimator")
    parser.add_argument("--predictors", nargs="+", default=[*PREDICTORS, "hyperparameters"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="a folder for trained networks, which later runs read")
    parser.add_argument("--again", action="store_true", help="measure rows that the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, on the small digits")
    parser.add_argument("--out", type=Path, help="default: docs/results/zoo_JOB.json; none with --quick")
    options = parser.parse_args()
    if options.quick and options.out is None:
        parser.error("--quick needs --out: what it measures says nothing")
    for key, value in JOBS[options.job].items():
        setattr(options, key, value if getattr(options, key) is None else getattr(options, key))
    if options.quick:
        options.data, options.train, options.test, options.network_steps, options.steps = "digits", 60, 20, [5, 20], 5
    if unknown := set(options.predictors) - {*PREDICTORS, "hyperparameters"}:
        parser.error(f"There is no predictor {min(unknown)!r}. Choose from {', '.join(map(repr, PREDICTORS))}.")
    return options


def main() -> None:
    """Run, print and write."""
    options = parse()
    torch.set_num_threads(options.threads)
    names = ("job", "data", "activation", "train", "test", "network_steps", "steps")
    settings = {**{name: getattr(options, name) for name in names}, "ranges": RANGES}
    file = ResultsFile(options.out or RESULTS / f"zoo_{options.job}.json", settings, options.again)
    wanted = [name for name in options.predictors if name != "hyperparameters" or options.job != "inr"]
    for seed in options.seeds:
        waiting = [name for name in wanted if options.again or f"{seed}/{name}" not in file.rows]
        data = networks(options, seed) if waiting else {}
        for name in waiting:
            row = file.measure(f"{seed}/{name}", lambda n=name, s=seed, d=data: measured(d, n, options, s))
            shown = {key: value for key, value in row.items() if key not in ("hardware", "seconds")}
            print(f"seed {seed}, {name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
