"""Zoos of networks that are trained on small images, kept in a folder block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import wsflow
from wsflow import Population, Task
from wsflow.evaluation import predict
from wsflow.populations.representations import train_representations

RANGES: dict[str, Any] = {
    "learning_rate": (5e-4, 5e-2),
    "weight_decay": (1e-6, 1e-2),
    "initialisation_scale": (0.3, 2.0),
    "dropout": (0.0, 0.5),
    "data_fraction": (0.1, 1.0),
}
BLOCK = 250
"""Runs in a file of the cache."""
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def small_images(name: str) -> Task:
    """A task of images, of which larger ones are brought to 14 x 14 pixels by means of 2 x 2."""
    task = wsflow.load_task(name)
    if task.X.shape[1] != 784:
        return task

    def halved(part: Task) -> np.ndarray:
        return part.X.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)

    return Task(halved(task), task.y, test=Task(halved(task.test), task.test.y))


def cnn(task: Task, activation: str) -> Callable[[], nn.Module]:
    """Three convolutions of 16 channels and the mean over pixels, with dropout before the last layer."""
    side = round(task.X.shape[1] ** 0.5)

    def make() -> nn.Module:
        layers: list[nn.Module] = [nn.Unflatten(1, (1, side, side))]
        for channels in (1, 16, 16):
            layers += [nn.Conv2d(channels, 16, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 10))

    return make


@dataclass(frozen=True)
class Zoo:
    """Which networks a zoo has."""

    job: str
    data: str
    activation: str
    steps: tuple[int, int]
    seed: int

    def networks(self, task: Task) -> dict[str, Any]:
        """What of `train_population` says what is trained."""
        if self.job == "cnn":
            return {"module": cnn(task, self.activation), "initialisation": "torch", "batch_size": 32, "chunk_size": 8}
        return {"hidden": (16, 16), "activation": self.activation}

    def block(self, task: Task, first: int, n: int) -> Population:
        """Trained networks of n runs, the first of this number, and their accuracies on test data as labels."""
        settings = {**RANGES, **self.networks(task)}
        known = wsflow.train_population(
            task, n_runs=n, first_run=first, steps=self.steps, random_state=self.seed, **settings
        )
        accuracy = predict(known.weights, task.test).scores
        labels = {"run": known.weights.runs.tolist(), "label": accuracy.tolist()}
        return Population(known.weights, None, known.provenance | {"labels": labels})

    def read(self, n: int, cache: Path | None) -> dict[str, Any]:
        """The first n runs, of which those in the cache are read and the others trained, and their accuracies."""
        task = small_images(self.data)
        blocks = [self._cached(task, first, min(BLOCK, n - first), cache) for first in range(0, n, BLOCK)]
        known = wsflow.concatenate(blocks, runs="shared")
        return {"X": known.weights, "y": known.labels.astype(float), "hyperparameters": known.hyperparameters}

    def _cached(self, task: Task, first: int, n: int, cache: Path | None) -> Population:
        low, high = self.steps
        name = f"{self.job}_{self.data}_{self.activation}_{low}-{high}_{self.seed}_{first}-{first + n}.safetensors"
        if cache is not None and (cache / name).exists():
            return wsflow.load_population(cache / name)
        found = self.block(task, first, n)
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
            wsflow.save_population(found, cache / name)
        return found


def images(data: str, n: int, seed: int, steps: int) -> dict[str, Any]:
    """Sirens of n runs, each of which holds an image, and the images' classes."""
    task = small_images(data)
    side = round(task.X.shape[1] ** 0.5)
    chosen = np.random.default_rng(seed).permutation(len(task.X))[:n]
    values = task.X[chosen].reshape(-1, side, side)
    values = (values - values.min()) / np.ptp(values)
    settings = {"architecture": "siren:32,32", "initialisation": "siren_small", "learning_rate": 1e-3}
    known = train_representations(values, task.y[chosen], steps=steps, random_state=seed, **settings)
    return {"X": known.weights, "y": known.labels, "hyperparameters": None}
