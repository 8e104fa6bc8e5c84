"""Flows over implicit representations of one image: sines with signs and phases, a task of coordinates and values."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import wsflow
from wsflow import PermutationAligner, Task, WeightArray, WeightFlow
from wsflow.flow.solvers import RungeKutta
from wsflow.geometry.geometries import GEOMETRIES
from wsflow.models.options import AdamW, NeuronTransformer
from wsflow.objectives.consensus import fit_consensus
from wsflow.running import forward
from wsflow.symmetry.actions import Action

FAST = {
    "velocity": NeuronTransformer(8, 1, 2),
    "training": AdamW(batch_size=8),
    "solver": RungeKutta("euler", 2),
    "max_iter": 3,
    "random_state": 0,
}


@cache
def image() -> Task:
    """A blob at 8x8 pixels: coordinates, and their values."""
    axis = np.linspace(-1, 1, 8)
    X = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    y = np.exp(-3 * ((X - 0.2) ** 2).sum(1, keepdims=True))
    return Task(X, y, loss="mse", test=Task(X, y, loss="mse"))


@cache
def networks() -> WeightArray:
    settings = {
        "activation": "sine",
        "initialisation": "siren",
        "n_runs": 20,
        "epochs": 200,
        "batch_size": 64,
        "learning_rate": 0.01,
    }
    return wsflow.train_population(image(), hidden=(8, 8), random_state=0, **settings).weights


@pytest.mark.parametrize("geometry", ["geometric", "euclidean", "normalized"])
def test_they_are_fitted_sampled_and_judged(geometry: str) -> None:
    weights, task = networks(), image()
    aligned = PermutationAligner(reference="first", random_state=0).fit_transform(weights[:14])
    flow = WeightFlow(geometry, task=task, **FAST).fit(aligned)
    assert flow.model_.consensus.loss == "mse"
    samples = flow.sample(6, random_state=0)
    report = wsflow.evaluate(samples, weights[:14], weights[14:], task, nulls=False)
    errors = [
        (module(torch.from_numpy(task.X)).detach().numpy() - task.y.reshape(-1, 1)) ** 2
        for module in samples.to_modules()
    ]
    assert report.score == "r2"
    assert report.samples["loss"] == pytest.approx(np.mean(errors), rel=1e-4)
    # peak signal-to-noise ratios of trained networks, whose values are between 0 and 1
    assert -10 * np.log10(report.training["loss"]) > 15


@pytest.mark.parametrize("geometry", ["geometric", "euclidean"])
def test_hints_do_not_depend_on_signs_phases_and_order(geometry: str) -> None:
    """The consensus, and its gradient along the orbit: L(g w) = L(w), and <grad L(g w), g v> = <grad L(w), v>."""
    weights, task = networks(), image()
    architecture = weights.architecture
    space = GEOMETRIES[geometry](architecture)
    rows = torch.from_numpy(np.array(weights)).double()
    action = Action.random(architecture, len(rows), torch.Generator().manual_seed(1))
    moved = action(rows)
    assert (moved - rows).abs().max() > 1
    consensus = [
        fit_consensus(task, architecture, space, space.to_points(w), 64, torch.Generator().manual_seed(0))
        for w in (rows, moved)
    ]
    expected = forward(rows.float(), architecture, consensus[0].inputs).mean(0)
    for found in consensus:
        torch.testing.assert_close(found.targets[..., :1], expected, rtol=1e-4, atol=1e-5)
    points = [space.to_points(w).requires_grad_() for w in (rows, moved)]
    losses = [consensus[0](p) for p in points]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-8, atol=1e-10)
    lengths = [torch.autograd.grad(loss.sum(), p)[0].norm(dim=1) for loss, p in zip(losses, points, strict=True)]
    torch.testing.assert_close(*lengths, rtol=1e-6, atol=1e-8)
