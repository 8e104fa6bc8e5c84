"""Flows over principal components of networks: the span of the training networks, and hints through the decoder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import wsflow
from wsflow import Architecture, PermutationAligner, Task, WeightArray, WeightFlow, load_model, save_model
from wsflow.exceptions import InvalidInputError
from wsflow.geometry import euclidean, fit_principal, vectors
from wsflow.models.options import MLP, AdamW, EnergyMatching, NetworkGeometry, NeuronTransformer
from wsflow.objectives.consensus import fit_consensus

SMALL = {"velocity": MLP(16, 1), "training": AdamW(batch_size=8), "max_iter": 3, "random_state": 0}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def population() -> tuple[WeightArray, Task]:
    task = wsflow.load_task("iris")
    weights = wsflow.train_population(task, hidden=(16, 8), n_runs=24, epochs=10, random_state=0).weights
    return PermutationAligner(reference="first", random_state=0).fit_transform(weights), task


def outside(rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The share of each row's distance from the mean that is outside of the span of training networks."""
    centre = train.mean(0)
    basis = np.linalg.svd(train - centre, full_matrices=False)[2][: len(train) - 1]
    away = rows - centre
    return np.linalg.norm(away - away @ basis.T @ basis, axis=1) / np.linalg.norm(away, axis=1)


class TestComponents:
    @pytest.mark.parametrize(("n", "d"), [(6, 40), (40, 6), (12, 12), (3, 70_001)])
    @pytest.mark.parametrize("count", [2, 1000])
    def test_they_are_those_of_a_singular_value_decomposition(
        self, n: int, d: int, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # several chunks of columns
        monkeypatch.setattr("wsflow.geometry.principal.CHUNK_NUMBERS", 4 * n)
        if d > 1000:
            monkeypatch.undo()
        rows = normal(n, d) * torch.linspace(1, 3, d, dtype=torch.float64) + 5
        geometry = fit_principal(vectors(d), rows, count)
        away = rows - rows.mean(0)
        _, deviations, expected = torch.linalg.svd(away, full_matrices=False)
        k = min(count, d, n - 1)
        basis = geometry.coordinates.basis.double()
        assert basis.shape == (k, d)
        # up to signs
        overlap = (basis @ expected[:k].T).abs()
        torch.testing.assert_close(overlap, torch.eye(k, dtype=torch.float64), atol=1e-4, rtol=0)
        points = geometry.to_points(rows)
        torch.testing.assert_close(points.square().sum(0).sqrt(), deviations[:k], rtol=1e-5, atol=1e-5)
        if count >= min(d, n - 1):
            torch.testing.assert_close(geometry.to_weights(points), rows, rtol=1e-5, atol=1e-4)

    def test_what_is_rounding_is_no_component(self) -> None:
        rows = normal(8, 2) @ normal(2, 50, seed=1) + 3
        assert fit_principal(vectors(50), rows, 7).manifold.dimension == 2
        assert fit_principal(vectors(50), rows.float(), 7).manifold.dimension == 2

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_equal_networks_have_none(self, dtype: torch.dtype) -> None:
        with pytest.raises(InvalidInputError, match="All 5 networks are equal"):
            fit_principal(vectors(30), normal(1, 30).to(dtype).repeat(5, 1), 3)


def test_samples_lie_in_the_span_of_the_training_networks(population: tuple[WeightArray, Task]) -> None:
    weights, task = population
    train, held_out = weights[:18], weights[18:]
    flow = WeightFlow(NetworkGeometry("euclidean", latent=100), task=task, **SMALL).fit(train)
    # without those that are held out for validation the span would be smaller
    assert flow.geometry_.manifold.dimension == 17
    samples = flow.sample(20, random_state=0)
    assert isinstance(samples, WeightArray) and samples.architecture == weights.architecture
    assert outside(np.asarray(samples, dtype=float), np.asarray(train, dtype=float)).max() < 1e-5
    assert outside(np.asarray(held_out, dtype=float), np.asarray(train, dtype=float)).min() > 0.1
    few = WeightFlow(NetworkGeometry("euclidean", latent=3), **SMALL).fit(train).sample(20, random_state=0)
    assert np.linalg.matrix_rank(np.asarray(few - few.mean(0), dtype=float), tol=1e-3) == 3


def test_hints_are_gradients_through_the_decoder(population: tuple[WeightArray, Task]) -> None:
    weights, task = population
    rows = torch.from_numpy(np.array(weights)).double()
    flat = euclidean(weights.architecture)
    latent = fit_principal(flat, rows, 5)
    inputs = len(task.X)
    consensus = [
        fit_consensus(task, weights.architecture, g, g.to_points(rows), inputs, torch.Generator().manual_seed(0))
        for g in (flat, latent)
    ]
    z = latent.to_points(rows[:3]).requires_grad_()
    w = latent.to_weights(z.detach()).requires_grad_()
    (by_weights,) = torch.autograd.grad(consensus[0](w).sum(), w)
    # the same targets, since projected networks predict something else
    other = type(consensus[1])(**{**vars(consensus[1]), "targets": consensus[0].targets, "inputs": consensus[0].inputs})
    (by_components,) = torch.autograd.grad(other(z).sum(), z)
    basis = latent.coordinates.basis.double()
    torch.testing.assert_close(by_components, by_weights @ basis.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"energy": EnergyMatching(n_steps=2)}, {"coupling": "ot"}, {"hints": None}])
def test_a_file_keeps_the_flow(population: tuple[WeightArray, Task], tmp_path: Path, options: dict) -> None:
    weights, task = population
    flow = WeightFlow(NetworkGeometry("euclidean", latent=6), task=task, **SMALL, **options).fit(weights)
    save_model(flow, tmp_path / "flow.st")
    again = load_model(tmp_path / "flow.st")
    np.testing.assert_array_equal(again.sample(5, random_state=0), flow.sample(5, random_state=0))


class TestRefusals:
    @pytest.mark.parametrize(
        ("geometry", "what"),
        [
            (NetworkGeometry(latent=4), r"kind='geometric'.*NetworkGeometry\('euclidean', latent=4\)"),
            (NetworkGeometry("normalized", latent=4), "kind='normalized'"),
            (NetworkGeometry("euclidean", "polar", latent=4), "last_layer='polar'"),
            (NetworkGeometry("euclidean", latent=0), "latent"),
        ],
    )
    def test_other_geometries(self, population: tuple[WeightArray, Task], geometry: NetworkGeometry, what: str) -> None:
        with pytest.raises(ValueError, match=what):
            WeightFlow(geometry, max_iter=1).fit(population[0])

    @pytest.mark.parametrize(
        "options", [{"velocity": NeuronTransformer()}, {"velocity": "relational"}, {"coupling": "orbit"}]
    )
    def test_what_knows_neurons(self, population: tuple[WeightArray, Task], options: dict) -> None:
        flow = WeightFlow(NetworkGeometry("euclidean", latent=4), max_iter=1, **options)
        with pytest.raises(ValueError, match=r"knows principal components and no neurons.*velocity='mlp'"):
            flow.fit(population[0])

    def test_densities(self, population: tuple[WeightArray, Task]) -> None:
        flow = WeightFlow(NetworkGeometry("euclidean", latent=4), **SMALL).fit(population[0])
        with pytest.raises(ValueError, match="span of those that it was fitted to, which has no volume"):
            flow.score_samples(population[0])
        with pytest.raises(ValueError, match="no volume"):
            flow.sample(1, return_log_prob=True)


def test_evaluation_tells_copies_and_few_components(population: tuple[WeightArray, Task]) -> None:
    weights, task = population
    train, held_out = weights[:16], weights[16:]
    geometry = fit_principal(euclidean(weights.architecture), torch.from_numpy(np.array(train)), 15)
    copies = geometry.to_weights(geometry.to_points(torch.from_numpy(np.array(train)))).numpy()
    report = wsflow.evaluate(WeightArray(copies, weights.architecture), train, held_out, task, nulls=False)
    assert report.samples["novelty"] < 0.01
    line = WeightFlow(NetworkGeometry("euclidean", latent=1), **SMALL).fit(train).sample(30, random_state=0)
    assert wsflow.evaluate(line, train, held_out, task, nulls=False).samples["dispersion_weights"] < 0.7


def test_the_command_line_takes_it(tmp_path: Path, population: tuple[WeightArray, Task]) -> None:
    from click.testing import CliRunner

    from wsflow.cli.main import main

    zoo, model, out = (str(tmp_path / name) for name in ("zoo.safetensors", "model.st", "new.safetensors"))
    wsflow.save_population(wsflow.Population(*population), zoo)
    run = CliRunner().invoke
    options = ("--geometry", "euclidean", "--form", "raw", "-p", "geometry.latent=9", "--iterations", "2", "-q")
    found = run(main, ["fit", zoo, "-o", model, *options])
    assert found.exit_code == 0, found.output
    assert run(main, ["sample", model, "-n", "3", "-o", out, "-q"]).exit_code == 0
    assert load_model(model)[-1].geometry_.manifold.dimension == 9
    assert wsflow.load_population(out).weights.shape == (3, population[0].shape[1])
    assert Architecture.from_json(population[0].architecture.to_json()) == population[0].architecture


LARGE = """
import resource, sys
import numpy as np, torch
from torch import nn
from wsflow import Architecture, Task, WeightArray, WeightFlow
from wsflow.flow.solvers import RungeKutta
from wsflow.models.options import AdamW, MLP, NetworkGeometry, NeuronTransformer

class Block(nn.Module):
    def __init__(self, a, c):
        super().__init__()
        self.first, self.second = nn.Conv2d(a, c, 3, c // a, 1, bias=False), nn.Conv2d(c, c, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(c), nn.BatchNorm2d(c)])
        self.short = nn.Conv2d(a, c, 1, c // a) if c != a else nn.Identity()
    def forward(self, x):
        return (self.short(x) + self.norms[1](self.second(self.norms[0](self.first(x)).relu()))).relu()

widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
blocks = map(Block, widths, widths[1:])
net = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
rng = np.random.default_rng(0)
architecture = Architecture.from_module(net, torch.zeros(2, 3, 8, 8))
row = np.asarray(WeightArray.from_modules([net], architecture))
rows = row + 0.02 * rng.standard_normal((60, row.shape[1]), dtype=np.float32)
task = Task(rng.standard_normal((16, 3, 8, 8)).astype(np.float32), np.arange(16) % 10)
options = {
    "latent": {"geometry": NetworkGeometry("euclidean", latent=100), "velocity": MLP(), "task": task},
    "neuron": {"geometry": "euclidean", "velocity": NeuronTransformer()},
}[sys.argv[1]]
flow = WeightFlow(**options, training=AdamW(batch_size=8), solver=RungeKutta("euler", 1), max_iter=2, random_state=0)
samples = flow.fit(WeightArray(rows, architecture)).sample(2, random_state=0, task=task)
assert samples.shape[1] > 270_000 and np.isfinite(samples).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["latent", "neuron"])
def test_networks_of_270_000_weights_take_a_few_gigabytes(kind: str) -> None:
    run = subprocess.run([sys.executable, "-c", LARGE, kind], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    # 60 networks are 65 MB; a covariance of all weights would be 590 GB
    assert float(run.stdout) < 4
