"""Accuracy of networks, or the class of an image that a network holds, predicted from weights.

Three populations: perceptrons and convolutional networks with learning rates, weight decays, scales of first weights,
shares of the data and numbers of steps of their own (as in Unterthiner et al. 2020, arXiv:2002.11448), of which the
accuracy on test data is predicted; and sirens of one image each, of which the class is. Test networks are of other
runs. Each metanetwork is scored on them as they are, and after random symmetries of their architecture have moved them;
beside them stand gradient-boosted trees on the statistics of weights, raw and canonical, and what hyperparameters alone
tell. Writes a row for each seed and metanetwork. MNIST is read from the folder that ``WSFLOW_DATA`` names, or
downloaded, and brought to 14 x 14 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_seeds import RESULTS
from results_file import Clock, ResultsFile
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

import wsflow
from wsflow import MetaClassifier, MetaRegressor, ScaleCanonicalizer, Task, WeightArray
from wsflow.evaluation import hyperparameter_baseline, kendall_tau, orbit_score, predict, tau_ceiling
from wsflow.metanetworks.statistics import weight_statistics
from wsflow.models.metanetworks import METANETWORKS
from wsflow.populations.representations import train_representations

RANGES: dict[str, Any] = {
    "learning_rate": (5e-4, 5e-2),
    "weight_decay": (1e-6, 1e-2),
    "initialisation_scale": (0.3, 2.0),
    "data_fraction": (0.1, 1.0),
}
TREES = {"trees on statistics": None, "trees on canonical statistics": ScaleCanonicalizer()}


def small_images(name: str) -> Task:
    """A task of images, of which larger ones are brought to 14 x 14 pixels by means of 2 x 2."""
    task = wsflow.load_task(name)
    if task.X.shape[1] != 784:
        return task

    def halved(part: Task) -> np.ndarray:
        return part.X.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)

    return Task(halved(task), task.y, test=Task(halved(task.test), task.test.y))


def classifiers(data: str, n: int, seed: int, steps: list[int], **networks: Any) -> dict[str, Any]:
    """Trained networks of n runs, and their accuracy on test data."""
    task = small_images(data)
    known = wsflow.train_population(task, n_runs=n, steps=steps, random_state=seed, **RANGES, **networks)
    settings = dict(known.hyperparameters)
    return {"X": known.weights, "y": predict(known.weights, task.test).scores, "hyperparameters": settings}


def images(data: str, n: int, seed: int, steps: list[int], **networks: Any) -> dict[str, Any]:
    """Sirens of n runs, each of which holds an image, and the images' classes."""
    task = small_images(data)
    side = int(task.X.shape[1] ** 0.5)
    chosen = np.random.default_rng(seed).permutation(len(task.X))[:n]
    values = task.X[chosen].reshape(-1, side, side)
    values = (values - values.min()) / np.ptp(values)
    settings = {"steps": steps[-1], "learning_rate": 1e-3, "random_state": seed, **networks}
    known = train_representations(values, task.y[chosen], **settings)
    return {"X": known.weights, "y": known.labels, "hyperparameters": None}


JOBS: dict[str, tuple[Any, dict[str, Any]]] = {
    "mlp": (classifiers, {"hidden": (16, 16)}),
    "cnn": (classifiers, {"architecture": "cnn:16,16,16"}),
    "inr": (images, {"architecture": "siren:32,32", "initialisation": "siren_small"}),
}


def measured(data: dict[str, Any], name: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Scores of one way to predict, on test networks as they are and moved."""
    X, y, clock = data["X"], data["y"], Clock()
    train, test = np.arange(len(X)) < options.train, np.arange(len(X)) >= options.train
    is_number = y.dtype.kind == "f"
    if name == "hyperparameters":
        found = hyperparameter_baseline(data["hyperparameters"], y, random_state=seed)
        return {"score": found.score, "tau": found.tau, "ceiling": tau_ceiling(y)}
    with clock("fit"):
        if name in TREES:
            model = Trees(TREES[name], is_number, seed).fit(X[train], y[train])
        else:
            kind = MetaRegressor if is_number else MetaClassifier
            form = None if name in options.raw else options.canonicalize
            model = kind(name, canonicalize=form, max_iter=options.steps, random_state=seed).fit(X[train], y[train])
    with clock("score"):
        score = orbit_score(model, X[test], y[test], random_state=seed)
    row: dict[str, Any] = {"clean": score.clean, "moved": score.moved}
    if is_number:
        tau = orbit_score(model, X[test], y[test], scoring=kendall_tau, random_state=seed)
        row |= {"tau": tau.clean, "tau_moved": tau.moved, "ceiling": tau_ceiling(y[test])}
        if name not in TREES and len(model.calibration_scores_) >= 9:
            low, high = model.predict_interval(X[test]).T
            row |= {
                "covered": float(np.mean((low <= y[test]) & (y[test] <= high))),
                "width": float(np.mean(high - low)),
            }
    return {**row, "seconds": clock.seconds}


class Trees:
    """Gradient-boosted trees on the statistics of networks, perhaps brought to a canonical form first."""

    def __init__(self, form: Any, is_number: bool, seed: int) -> None:
        kind = HistGradientBoostingRegressor if is_number else HistGradientBoostingClassifier
        self.form, self.model = form, kind(random_state=seed)

    def features(self, X: WeightArray) -> np.ndarray:
        """Statistics of each parameter."""
        X = X if self.form is None else self.form.fit(X).transform(X)
        return weight_statistics(torch.from_numpy(np.array(X, dtype=float)), X.architecture).numpy()

    def fit(self, X: WeightArray, y: np.ndarray) -> Trees:
        """Grow the trees."""
        self.model.fit(self.features(X), y)
        return self

    def predict(self, X: WeightArray) -> np.ndarray:
        """Predict numbers or classes."""
        return self.model.predict(self.features(X))

    def score(self, X: WeightArray, y: np.ndarray) -> float:
        """The coefficient of determination, or the accuracy."""
        return float(self.model.score(self.features(X), y))


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=JOBS, default="mlp")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--network-steps", type=int, nargs=2, default=[50, 500])
    parser.add_argument("--steps", type=int, default=600, help="of each metanetwork")
    parser.add_argument("--canonicalize", default="auto")
    parser.add_argument("--metanetworks", nargs="+", default=["statistics", "mlp", "deep_sets", "neuron", "probe"])
    parser.add_argument("--raw", nargs="*", default=[], help="metanetworks that read networks as they are")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure rows that the file has, too")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, on the small digits")
    parser.add_argument("--out", type=Path, help="default: docs/results/metanetworks_JOB.json; none with --quick")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick and options.out is None:
        parser.error("--quick needs --out: what it measures says nothing")
    if options.quick:
        options.data, options.train, options.test = "digits", 60, 20
        options.network_steps, options.steps = [5, 20], 5
    if unknown := set(options.metanetworks) - METANETWORKS.keys():
        parser.error(f"There is no metanetwork {min(unknown)!r}.")
    make, networks = JOBS[options.job]
    names = ("job", "data", "train", "test", "network_steps", "steps", "canonicalize", "raw")
    file = ResultsFile(
        options.out or RESULTS / f"metanetworks_{options.job}.json",
        {**{name: getattr(options, name) for name in names}, "networks": networks, "ranges": RANGES},
        options.again,
    )
    for seed in options.seeds:
        wanted = [*options.metanetworks, *TREES, *(["hyperparameters"] if make is classifiers else [])]
        waiting = [name for name in wanted if options.again or f"{seed}/{name}" not in file.rows]
        if not waiting:
            continue
        data = make(options.data, options.train + options.test, seed, options.network_steps, **networks)
        for name in waiting:
            row = file.measure(f"{seed}/{name}", lambda n=name, s=seed, d=data: measured(d, n, options, s))
            shown = {key: value for key, value in row.items() if key not in ("hardware", "seconds")}
            print(f"seed {seed}, {name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
