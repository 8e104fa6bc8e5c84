"""Flows over networks that are no plain MLPs: what knows the function runs them by their programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wsflow import Architecture, PermutationAligner, Task, WeightArray, WeightFlow, load_model, save_model
from wsflow.evaluation.predictive import predict
from wsflow.flow.hints import GradientHints
from wsflow.geometry.geometries import GEOMETRIES
from wsflow.models.options import EnergyMatching, NeuronTransformer
from wsflow.objectives.consensus import fit_consensus
from wsflow.objectives.function_metric import function_metric
from wsflow.running import forward

INPUTS = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def _cnn() -> nn.Module:
    layers = (nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4 * 4, 3))


@pytest.fixture(scope="module")
def population() -> tuple[WeightArray, Task]:
    """Networks around one that tells three patterns apart, relabelled at random."""
    torch.manual_seed(0)
    teacher = _cnn()
    optimizer = torch.optim.Adam(teacher.parameters(), 0.02)
    y = torch.arange(40) % 3
    patterns = torch.randn(3, 1, 6, 6)[y] + 0.3 * INPUTS
    for _ in range(60):
        loss = nn.functional.cross_entropy(teacher(patterns), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    architecture = Architecture.from_module(teacher, INPUTS[:2])
    row = np.asarray(WeightArray.from_modules([teacher], architecture))
    noise = np.random.default_rng(0).standard_normal((60, architecture.n_weights))
    weights = WeightArray((row + 0.05 * noise).astype(np.float32), architecture)
    return weights, Task(patterns.numpy(), y.numpy(), test=Task(patterns.numpy(), y.numpy()))


def test_hints_are_gradients_of_the_modules_consensus(population: tuple[WeightArray, Task]) -> None:
    weights, task = population
    geometry = GEOMETRIES["euclidean"](weights.architecture)
    points = geometry.to_points(torch.from_numpy(np.array(weights)).double())
    consensus = fit_consensus(task, weights.architecture, geometry, points, 40, torch.Generator().manual_seed(0))
    point = points[:2].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(consensus(point).sum(), point)
    for module, found in zip(weights[:2].to_modules(_cnn()), gradient, strict=True):
        module = module.double()
        loss = -(consensus.targets.double() * module(consensus.inputs.double()).log_softmax(-1)).sum(-1).mean()
        theirs = torch.autograd.grad(loss, list(module.parameters()))
        expected = geometry.to_points(torch.cat([g.flatten() for g in theirs])[None])[0]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_function_metric_is_the_change_of_the_outputs(population: tuple[WeightArray, Task]) -> None:
    weights, task = population
    geometry = GEOMETRIES["euclidean"](weights.architecture)
    x = geometry.to_points(torch.from_numpy(np.array(weights[:3])).double())
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    metric = function_metric(task, weights.architecture, geometry, 40)
    found = metric(x, v, torch.Generator().manual_seed(0))
    rows = torch.randint(40, (40,), generator=torch.Generator().manual_seed(0))
    inputs = torch.from_numpy(task.X)[rows].double()

    def outputs(step: float) -> torch.Tensor:
        return forward(geometry.to_weights(x + step * v), weights.architecture, inputs)

    change = (outputs(1e-6) - outputs(-1e-6)) / 2e-6
    expected = (change - change.mean(-1, keepdim=True)).flatten(1)
    # a ReLU may have its kink between both steps: nearly all agree
    assert ((found - expected).abs() < 1e-5 * expected.abs().max()).double().mean() > 0.99


@pytest.mark.parametrize("energy", [None, EnergyMatching(n_steps=2)])
def test_a_flow_of_cnns_is_fitted_saved_and_sampled_without_their_module(
    population: tuple[WeightArray, Task], tmp_path: Path, energy: EnergyMatching | None
) -> None:
    weights, task = population
    aligned = PermutationAligner(reference="first", random_state=0).fit_transform(weights)
    flow = WeightFlow(
        geometry="euclidean",
        task=task,
        energy=energy,
        velocity=NeuronTransformer(16, 1, 2),
        max_iter=20,
        random_state=0,
    )
    flow.fit(aligned)
    assert isinstance(flow.model_.velocity.hints, GradientHints)
    samples = flow.sample(20, random_state=1)
    save_model(flow, tmp_path / "flow.st")
    again = load_model(tmp_path / "flow.st")
    assert again.model_.geometry.architecture.module is None
    np.testing.assert_array_equal(again.sample(20, random_state=1), samples)
    # the population's noise hardly changes the function, and neither do samples
    assert predict(weights, task.test).scores.mean() > 0.9
    assert predict(samples, task.test).scores.mean() > 0.8


def test_alignment_where_networks_run_one_by_one(population: tuple[WeightArray, Task]) -> None:
    weights, task = population
    aligner = PermutationAligner(method="activation", task=task, reference="first")
    aligned = aligner.fit_transform(weights)
    # each network is aligned as it is among others
    np.testing.assert_allclose(aligner.transform(weights[40:41]), aligned[40:41], rtol=1e-6)
    assert len(aligner.n_passes_) == len(aligner.barrier_after_) == 60
