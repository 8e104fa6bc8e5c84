"""What knows the function, on the populations of a folder: run by itself, where no class of their modules is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import wsflow
from wsflow import Descent, Guidance, Task, WeightFlow
from wsflow.evaluation import ood_auroc, predict
from wsflow.evaluation.connectivity import loss_path
from wsflow.evaluation.importance_sampling import log_likelihoods
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import MLP, EnergyMatching, NeuronTransformer
from wsflow.objectives.functionals import TaskLoss


def use(path: Path) -> dict[str, Any]:
    """Return numbers of everything that runs the networks of a file, and what was sampled."""
    population = wsflow.load_population(path)
    weights, task = population.weights, population.task
    assert weights.architecture.module is None
    found: dict[str, Any] = {}
    nested = any(group.parent is not None for group in weights.architecture.groups)
    velocity = MLP(16, 1) if nested else NeuronTransformer(16, 1, 2)
    flow = WeightFlow(
        geometry="euclidean",
        task=task,
        energy=EnergyMatching(n_steps=1),
        velocity=velocity,
        max_iter=6,
        solver=RungeKutta("euler", 2),
        random_state=0,
    ).fit(weights)
    samples = flow.sample(8, random_state=1)
    wsflow.save_model(flow, path.with_suffix(".flow"))
    again = wsflow.load_model(path.with_suffix(".flow"))
    found["hints"] = flow.model_.velocity.hints is not None
    found["loaded"] = bool(np.array_equal(again.sample(8, random_state=1), samples))
    descents = [Descent(3, 1, "gradient", rate=0.3, natural=True, standardize=first) for first in (False, True)]
    other = Task(task.X, (task.y + 1) % 3 if task.is_classification else -task.y, loss=task.loss)
    for name, guidance in (
        ("gradient", Guidance(other, strength=0.3)),
        ("natural", Guidance(other, batch_size=20, descent=descents[0])),
        ("standardized", Guidance(other, batch_size=20, descent=descents[1])),
    ):
        found[name] = float(predict(flow.sample(8, 1, guidance=guidance), other).losses.mean())
    found["unguided"] = float(predict(samples, other).losses.mean())
    found["samples"] = float(predict(samples, task).losses.mean())
    found["bound"] = (
        TaskLoss(task).bind(weights.architecture, torch.Generator())(torch.from_numpy(np.array(weights[:4]))).tolist()
    )
    predicted = predict(weights, task)
    found |= {
        "losses": predicted.losses.tolist(),
        "scores": predicted.scores.tolist(),
        "average": predicted.average.tolist(),
    }
    report = wsflow.evaluate(samples, weights[:18], weights[18:], task, nulls=False)
    found["report"] = report.samples
    curve = wsflow.predictive_curve(weights, task, sizes=(1, len(weights)), draws=3)
    found["curve"] = {key: value.tolist() for key, value in curve.mean.items()}
    curves = wsflow.learning_curves(weights[:3], task, n_steps=20, every=20, learning_rate=0.01, batch_size=40)
    found["learning"] = curves.losses.mean(1).tolist()
    detected = wsflow.detect(weights[:2], weights[:14], weights[14:], task, level=0.1)["duplicate"]
    found["duplicates"] = detected.flags.tolist()
    likelihood = log_likelihoods(weights, task)
    found["likelihood"] = likelihood.tolist()
    mixture = wsflow.posterior_predictive(weights, task, log_weights=likelihood)
    found["posterior"] = mixture.average.tolist()
    if task.is_classification:
        found["ood"] = ood_auroc(mixture.average, np.full_like(mixture.average, 1 / 3))
    path_found = loss_path(weights[:2], weights[2:4], task, n_points=3)
    found["path"] = path_found.losses.tolist()
    found["barrier"] = wsflow.loss_barrier(weights[:2], weights[2:4], task, n_points=3).tolist()
    found["repaired"] = float(
        predict(wsflow.merge(weights, Task(task.X, task.y, loss=task.loss), repair=True), task).losses[0]
    )
    # groups of convolutions in groups are read in no layer
    for method in ("activation" if weights.architecture.activation_sites else "weight",):
        aligned = wsflow.PermutationAligner(method=method, task=task, reference="first", random_state=0).fit_transform(
            weights
        )
        found["aligned"] = predict(aligned, task).losses.tolist()
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    result = {path.stem: use(path) for path in sorted(folder.glob("*.safetensors"))}
    (folder / "found.json").write_text(json.dumps(result, default=lambda value: value.tolist()))
